"""Tests of roiseg.backbone (this file's name differs from the module's: another test_backbone.py is there)."""

from pathlib import Path

import pytest
from onnx_factory import INPUT_HW, LAYER_34, LAYERS, make_detector

from roiseg.backbone import make_backbone
from roiseg.errors import GraphError
from roiseg.extractor.graph import load_graph, read_metadata
from roiseg.types import CutLayer


def test_it_writes_what_it_returns(tmp_path: Path) -> None:
    out = tmp_path / "made" / "backbone.onnx"
    info = make_backbone(make_detector(tmp_path / "d.onnx"), {"p5": LAYER_34}, INPUT_HW, "int8", None, out)
    assert info.layers == (CutLayer("p5", LAYER_34, 12, (4, 8)),)
    assert read_metadata(load_graph(out), out) == info
    assert [item.name for item in out.parent.iterdir()] == ["backbone.onnx"]


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    """Whatever the file of the detector is called."""
    made = []
    for name in ("a", "b"):
        make_backbone(make_detector(tmp_path / f"{name}.onnx"), LAYERS, INPUT_HW, "float16", None, tmp_path / f"{name}.cut")
        made.append((tmp_path / f"{name}.cut").read_bytes())
    assert made[0] == made[1]


def test_a_fault_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="layer_9: no tensor 'nope'"):
        make_backbone(make_detector(tmp_path / "d.onnx"), {"layer_9": "nope"}, INPUT_HW, "int8", None, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
