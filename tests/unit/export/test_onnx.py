"""Tests of roiseg.export.onnx: what the metadata says of the graph, and that nothing of the machine is left."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from export_factory import export_params
from head_factory import INPUT_HW, MODELS, SPECS, fresh_head

from roiseg.errors import ParamsError
from roiseg.export.half import make_half
from roiseg.export.onnx import ExportedHead, example_inputs, export_head
from roiseg.export.params import LATEST_OPSET
from roiseg.export.parity import parity
from roiseg.export.quantize import make_int8
from roiseg.heads import parse_model
from roiseg.runtime import make_session
from roiseg.types import FeatureSpec


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportedHead]:
    params = parse_model(MODELS["roi_crop"])
    path = tmp_path_factory.mktemp("written") / "head.onnx"
    specs = [SPECS[name] for name in params.layers]
    return path, export_head(fresh_head(params, SPECS), specs, INPUT_HW, 18, {"epoch": 4}, path, simplified=False)


def test_metadata_says_what_the_graph_is(written: tuple[Path, ExportedHead]) -> None:
    path, exported = written
    (item,) = onnx.load(path).metadata_props
    assert item.key == "roiseg"
    assert json.loads(item.value) == exported.metadata
    assert exported.metadata == {
        "epoch": 4,
        "opset": 18,
        "auxiliary_included_in_export": False,
        "inputs": {
            "features_layer_34": {"dtype": "float32", "shape": ["images", 6, 8, 12]},
            "features_layer_3": {"dtype": "float32", "shape": ["images", 4, 16, 24]},
            "boxes": {"dtype": "float32", "shape": ["rois", 5]},
        },
        "outputs": {"masks": {"dtype": "float32", "shape": ["rois", 3, 12, 10]}},
    }


def test_without_simplification_the_graph_is_as_it_was_traced(written: tuple[Path, ExportedHead]) -> None:
    path, exported = written
    assert exported.traced_nodes == len(onnx.load(path).graph.node)


def test_no_trace_of_the_machine(written: tuple[Path, ExportedHead]) -> None:
    data = written[0].read_bytes()
    for trace in (b"/home", b"/root", b"/usr", b"/tmp", b".py", b"Traceback", b"namespace", b"stack_trace"):
        assert trace not in data, trace


# --- example inputs ---


def test_example_inputs() -> None:
    specs = [FeatureSpec("a", 3, (8.0, 16.0)), FeatureSpec("b", 2, (4.0, 4.0))]
    first, second, boxes = example_inputs(specs, (64, 96), 2, 50, seed=3)
    assert first.shape == (2, 3, 8, 6)
    assert second.shape == (2, 2, 16, 24)
    assert set(boxes[:, 0].tolist()) == {0.0, 1.0}
    assert (boxes[:, 3:] > boxes[:, 1:3]).all()
    assert boxes[:, 1:].min() >= 0
    assert boxes[:, 1:].max() <= 1
    again = example_inputs(specs, (64, 96), 2, 50, seed=3)
    assert all(torch.equal(one, other) for one, other in zip((first, second, boxes), again, strict=True))


@pytest.mark.slow
def test_the_latest_opset_that_params_allow(tmp_path: Path) -> None:
    """In every file of a head; beyond it one of them fails."""
    params = parse_model(MODELS["roi_crop"])
    head, specs = fresh_head(params, SPECS), [SPECS[name] for name in params.layers]
    export_head(head, specs, INPUT_HW, LATEST_OPSET, {}, tmp_path / "head.onnx")
    assert parity(head, specs, INPUT_HW, tmp_path / "head.onnx", 1e-4, None).max_abs < 1e-4
    inputs = [f"features_{spec.name}" for spec in specs] + ["boxes"]
    feeds = dict(zip(inputs, (item.numpy() for item in example_inputs(specs, INPUT_HW, 1, 3, 0)), strict=True))
    make_half(tmp_path / "head.onnx", tmp_path / "head.fp16.onnx")
    make_int8(tmp_path / "head.onnx", tmp_path / "head.int8.onnx", [feeds])
    for name in ("head.fp16.onnx", "head.int8.onnx"):
        assert onnx.load(tmp_path / name).opset_import[0].version == LATEST_OPSET
        session, _ = make_session(tmp_path / name, "cpu", "float32")
        assert session.run(["masks"], feeds)[0].shape == (3, 3, 12, 10)


def test_a_later_opset_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"export\.opset: .*21.*20"):
        export_params(opset=21)
