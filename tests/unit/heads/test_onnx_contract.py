"""The contract of every exported head: parity with torch, its interface, standard operators only, the head's own weights."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from head_factory import INPUT_HW, MODELS, SPECS, every_part, fresh_head, inputs_of, logits_of
from onnx import numpy_helper
from torch import nn

from roiseg.export.onnx import export_head
from roiseg.export.parity import parity
from roiseg.heads import FAMILIES, parse_model
from roiseg.heads.base import HeadParams
from roiseg.params import overlay

EXPORTED: dict[str, dict[str, Any]] = {
    "coarse": every_part(4),
    "variable_roi": {
        "blocks": {"norm": "mixed", "batch_share": 0.4, "activation": "mixed"},
        "inputs": {"layer_roi_hw": {"layer_3": [12, 16], "layer_34": [9, 12]}, "fusion": "fpn", "smooth": True},
        "refine": {"upsampling": "subpixel", "boundary": False},
    },
    "baseline": {
        "layers": ["layer_34", "layer_3", "image"],
        "inputs": {"rgb": {"layers": ["layer_34"], "channels": 8}},
        "blocks": {"norm": "channel", "activation": "gelu"},
        "attention": "se",
    },
    "hierarchical_unet_v2": {"depth": 2},
    "hierarchical_unet_v4": {"depth": 2},
}
"""Changes to the small models; exports take seconds, and the fewer nodes the less."""


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass(frozen=True)
class Exported:
    """A head, and what was exported of it.

    Attributes:
        params: of the head.
        head: with the weights that were exported.
        model: the ONNX.
        session: that runs it.
        worst: largest difference that `parity` found.
    """

    params: HeadParams
    head: nn.Module
    model: onnx.ModelProto
    session: onnxruntime.InferenceSession
    worst: float


@cache
def export_of(folder: Path, family: str) -> Exported:
    params = parse_model(overlay(MODELS[family], EXPORTED.get(family, {})))
    head, path = fresh_head(params, SPECS), folder / f"contract_{family}.onnx"
    specs = [SPECS[name] for name in params.layers]
    export_head(head, specs, INPUT_HW, 18, {}, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return Exported(params, head, onnx.load(path), session, parity(head, specs, INPUT_HW, path, 1e-4, []))


@pytest.fixture
def exported(tmp_path_factory: pytest.TempPathFactory, family: str) -> Exported:
    return export_of(tmp_path_factory.getbasetemp(), family)


@pytest.mark.parametrize(("images", "rois"), [(1, 1), (3, 2), (2, 0), (1, 9)])
def test_onnx_says_what_torch_says(exported: Exported, images: int, rois: int) -> None:
    """By an account of its own; that of the export stage agrees."""
    features, boxes = inputs_of(exported.params, images, rois, seed=9)
    expected = logits_of(exported.head, features, boxes).softmax(dim=1).numpy()
    feeds = {f"features_{name}": values.numpy() for name, values in features.items()}
    (masks,) = exported.session.run(["masks"], {**feeds, "boxes": boxes.numpy()})
    assert masks.shape == (rois, 3, *exported.params.mask_hw)
    np.testing.assert_allclose(masks, expected, atol=1e-4)
    np.testing.assert_allclose(masks.sum(axis=1), np.ones((rois, *exported.params.mask_hw)), atol=1e-5)
    if rois:
        assert masks.std() > 0.05, "a flat answer proves nothing"
    assert exported.worst < 1e-4


def test_onnx_interface_and_operators(exported: Exported) -> None:
    model = exported.model

    def shapes(items: list[onnx.ValueInfoProto]) -> dict[str, list[int | str]]:
        return {item.name: [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim] for item in items}

    maps = {"layer_34": ["images", 6, 8, 12], "layer_3": ["images", 4, 16, 24], "image": ["images", 3, 64, 96]}
    wanted = {f"features_{name}": maps[name] for name in exported.params.layers}
    assert shapes(list(model.graph.input)) == {**wanted, "boxes": ["rois", 5]}
    assert next(iter(shapes(list(model.graph.output)).values()))[1:] == [3, 12, 10]
    used = {node.op_type for node in model.graph.node}
    assert not used & {"If", "Loop", "Scan", "RoiAlign"}
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}, "custom operators"
    assert [(item.domain, item.version) for item in model.opset_import if not item.domain] == [("", 18)]


def test_onnx_holds_the_weights_of_the_head(exported: Exported) -> None:
    """The original's exporter put another network in V3's place, untrained. Branches are stripped, but for what corrects."""
    found = {item.name: numpy_helper.to_array(item) for item in exported.model.graph.initializer}
    kernels = {name: item.detach().numpy() for name, item in exported.head.named_parameters() if item.ndim == 4}
    stripped = ("auxiliary.contour", "auxiliary.distance", "auxiliary.embedding")
    kept = {name: item for name, item in kernels.items() if not name.startswith(stripped)}
    held = {item.tobytes() for item in found.values()}
    assert [name for name, item in kept.items() if item.tobytes() not in held] == []
    assert [name for name, item in kernels.items() if name not in kept and item.tobytes() in held] == []
