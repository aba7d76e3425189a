"""The contract of every exported head: parity with torch, its interface, standard operators only, the head's own weights."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from end_to_end_factory import TENSORS, StepByStep, backbone, contrasted, metadata, people, photo
from head_factory import INPUT_HW, MODELS, SPECS, every_part, fresh_head, inputs_of
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from roiseg.export.end_to_end import EndToEnd, export_end_to_end
from roiseg.export.onnx import aux_outputs, export_head
from roiseg.export.parity import parity
from roiseg.heads import FAMILIES, parse_model
from roiseg.heads.base import HeadParams
from roiseg.nn.outputs import HeadOutput
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
    "positional": {"full_map": True},
    "hierarchical_unet_v2": {"depth": 2},
    "hierarchical_unet_v4": {"depth": 2},
    "rgb_hierarchical": {"depth": 2, "inputs": {"further_roi_hw": [[12, 16]]}},
}
"""Changes to the small models; exports take seconds, and the fewer nodes the less."""


BY_DEFAULT = ("roi_unet", "roi_crop", "baseline", "positional", "rgb_hierarchical")
"""Families of the default run: the shipped one, the plainest, a composed one, one of whole maps, and one of pixels."""


@pytest.fixture(params=[pytest.param(name, marks=() if name in BY_DEFAULT else pytest.mark.thorough) for name in FAMILIES])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass(frozen=True)
class Exported:
    """A head, and what was exported of it.

    Attributes:
        params: of the head.
        head: with the weights that were exported.
        model: the ONNX.
        traced_nodes: before simplification.
        session: that runs it.
        worst: largest difference that `parity` found.
    """

    params: HeadParams
    head: nn.Module
    model: onnx.ModelProto
    traced_nodes: int
    session: onnxruntime.InferenceSession
    worst: float


@cache
def export_of(folder: Path, family: str) -> Exported:
    params = parse_model(overlay(MODELS[family], EXPORTED.get(family, {})))
    return exported_as(folder / f"contract_{family}.onnx", params, with_aux=False)


def exported_as(path: Path, params: HeadParams, *, with_aux: bool) -> Exported:
    head, specs = fresh_head(params, SPECS), [SPECS[name] for name in params.layers]
    aux = aux_outputs(head, specs, INPUT_HW) if with_aux else []
    nodes = export_head(head, specs, INPUT_HW, 18, {}, path, aux=aux).traced_nodes
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = parity(head, specs, INPUT_HW, path, 1e-4, None, aux=aux).max_abs
    return Exported(params, head, onnx.load(path), nodes, session, worst)


@pytest.fixture
def exported(tmp_path_factory: pytest.TempPathFactory, family: str) -> Exported:
    return export_of(tmp_path_factory.getbasetemp(), family)


def answers(exported: Exported, images: int, rois: int) -> tuple[HeadOutput, dict[str, NDArray[np.float32]]]:
    """Those of torch, and those of onnxruntime by name."""
    features, boxes = inputs_of(exported.params, images, rois, seed=9)
    with torch.no_grad():
        expected: HeadOutput = exported.head(features, boxes)
    feeds = {f"features_{name}": values.numpy() for name, values in features.items()}
    names = [item.name for item in exported.session.get_outputs()]
    found = exported.session.run(names, {**feeds, "boxes": boxes.numpy()})
    return expected, dict(zip(names, found, strict=True))


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("rois", [1, 0, 7])
def test_onnx_says_what_torch_says(exported: Exported, images: int, rois: int) -> None:
    """By an account of its own; that of the export stage agrees."""
    expected, found = answers(exported, images, rois)
    assert set(found) == {"masks"}, "auxiliary branches are stripped"
    masks = found["masks"]
    assert masks.shape == (rois, 3, *exported.params.mask_hw)
    np.testing.assert_allclose(masks, expected.mask_logits.softmax(dim=1).numpy(), atol=1e-4)
    np.testing.assert_allclose(masks.sum(axis=1), np.ones((rois, *exported.params.mask_hw)), atol=1e-5)
    if rois:
        assert masks.std() > 0.05, "a flat answer proves nothing"
    assert exported.worst < 1e-4


def test_onnx_interface_and_operators(exported: Exported) -> None:
    model = exported.model

    def shapes(items: list[onnx.ValueInfoProto]) -> dict[str, list[int | str]]:
        return {item.name: [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim] for item in items}

    maps = {
        "layer_34": ["images", 6, 8, 12],
        "layer_3": ["images", 4, 16, 24],
        "image": ["images", 3, 64, 96],
        "teacher": ["images", 1, 32, 48],
    }
    wanted = {f"features_{name}": maps[name] for name in exported.params.layers}
    assert shapes(list(model.graph.input)) == {**wanted, "boxes": ["rois", 5]}
    assert shapes(list(model.graph.output)) == {"masks": ["rois", 3, 12, 10]}
    used = {node.op_type for node in model.graph.node}
    assert "RoiAlign" in used
    assert not used & {"If", "Loop", "Scan"}
    assert len(model.graph.node) <= exported.traced_nodes
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


# --- from image to masks ---


def test_end_to_end_says_what_the_single_steps_say(exported: Exported, tmp_path: Path) -> None:
    layers, image_hw = exported.params.layers, (75, 130)
    tensors = {"teacher": "/logits"} if "teacher" in layers else TENSORS
    parts = (
        contrasted(exported.model),
        backbone(tensors=tensors),
        metadata(layers, mask_hw=list(exported.params.mask_hw), roi_padding=0.1),
    )
    model = export_end_to_end(*parts, EndToEnd("boxes", preprocess=True), tmp_path / "end_to_end.onnx")
    assert not {node.op_type for node in model.graph.node} & {"If", "Loop", "Scan"}
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}, "custom operators"
    session = onnxruntime.InferenceSession(str(tmp_path / "end_to_end.onnx"), providers=["CPUExecutionProvider"])
    steps = StepByStep(*parts)
    for images, rois in ((1, 1), (1, 0), (1, 7), (3, 1), (3, 0), (3, 7)):
        pixels = [photo(image_hw, number) for number in range(images)]
        boxes, owner = people(image_hw, rois, seed=images), np.sort(np.arange(rois) % images)
        numbered = np.concatenate([owner[:, None], boxes], axis=1).astype(np.float32)
        masks, scores = session.run(["masks", "scores"], {"images": np.stack(pixels), "boxes": numbered})
        found = [steps.masks(item, boxes[owner == place]) for place, item in enumerate(steps.encode(pixels))]
        expected = [person for of_image in found for person in of_image]
        assert (masks.shape, scores.shape) == ((rois, *image_hw), (rois,))
        wanted = np.array([person.mask for person in expected]).reshape(masks.shape)
        assert np.count_nonzero(masks != wanted) <= 1e-4 * masks.size, (images, rois)
        np.testing.assert_allclose(scores, [person.score for person in expected], atol=1e-3)
    assert masks.any(), "nobody's masks prove nothing"


# --- auxiliary outputs, on request ---


def check_aux(exported: Exported) -> None:
    """Every output that the head has outside of training is in the file, under its name, and says the same."""
    for images, rois in ((1, 1), (3, 7), (2, 0)):
        expected, found = answers(exported, images, rois)
        assert set(found) == {"masks", *(f"aux_{name}" for name in expected.aux)}
        for name, values in expected.aux.items():
            np.testing.assert_allclose(found[f"aux_{name}"], values.numpy(), atol=1e-4, err_msg=name)
    metadata = json.loads(exported.model.metadata_props[0].value)
    assert metadata["auxiliary_included_in_export"] is True
    assert set(metadata["outputs"]) == set(found)
    assert all(item["shape"][0] == "rois" for item in metadata["outputs"].values())


def test_auxiliary_outputs_are_in_the_file_on_request(tmp_path: Path) -> None:
    parts = every_part(4)
    changes = {"auxiliary": parts["auxiliary"], "cascade": parts["cascade"]}
    exported = exported_as(tmp_path / "head.aux.onnx", parse_model(overlay(MODELS["multiscale"], changes)), with_aux=True)
    assert set(answers(exported, 1, 1)[0].aux) == {"foreground", "contour", "distance", "embedding", "stage_1", "stage_2"}
    check_aux(exported)


WHOLE = [name for name in FAMILIES if "relational" in MODELS[name]]
"""Families that may have every part."""


@pytest.mark.slow
@pytest.mark.parametrize("upsampling", ["progressive", "subpixel"])
@pytest.mark.parametrize("family", WHOLE)
def test_every_family_exports_with_every_part(tmp_path: Path, family: str, upsampling: str) -> None:
    params = parse_model(overlay(MODELS[family], every_part(4, upsampling)))
    check_aux(exported_as(tmp_path / "head.aux.onnx", params, with_aux=True))
