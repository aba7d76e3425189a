"""The contract of every head: shapes, gradients, determinism, no ROIs, save and load, order and image numbers."""

import io
from typing import Any

import pytest
import torch
from head_factory import MODELS, SPECS, fresh_head, inputs_of, logits_of, other_layers
from torch import nn

from roiseg.heads import FAMILIES, parse_model
from roiseg.heads.base import HeadParams
from roiseg.params import overlay

SIZES: dict[str, dict[str, Any]] = {
    "wide roi, high mask": {"roi_hw": [6, 8], "mask_hw": [12, 10]},
    "high roi, wide mask, one layer": {"roi_hw": [9, 5], "mask_hw": [7, 20], "layers": ["layer_3"]},
}


def resized(family: str, size: dict[str, Any]) -> dict[str, Any]:
    """Section `model` of a small head with these sizes; some keep the ROI grid under `inputs`, `positional` has none."""
    values = {**MODELS[family], **size}
    if "layers" in size:
        values["layers"] = other_layers(family, size["layers"])
    if family == "rgb_hierarchical":
        values |= {"inputs": {**values["inputs"], "roi_hw": values.pop("roi_hw")}, "guided": "teacher" in values["layers"]}
    elif "inputs" in values:
        fusion = "adaptive" if len(values["layers"]) > 1 else "single"
        values["inputs"] = {**values["inputs"], "roi_hw": values.pop("roi_hw"), "fusion": fusion}
    elif "roi_hw" not in MODELS[family]:
        del values["roi_hw"]
    return values


BRANCH = {"channels": 4}
NO_BRANCH: dict[str, Any] = {
    **dict.fromkeys(("foreground", "contour", "distance", "embedding")),
    "correct_by_foreground": False,
}
CASES: dict[str, dict[str, Any]] = {
    **{f"{family}, {size}": resized(family, changes) for family in FAMILIES for size, changes in SIZES.items()},
    **{
        f"multiscale, {fusion}": overlay(MODELS["multiscale"], {"inputs": {"fusion": fusion}})
        for fusion in ("sum", "concat", "fpn")
    },
    **{
        f"multiscale, {name}": overlay(MODELS["multiscale"], {"auxiliary": {**NO_BRANCH, name: BRANCH}})
        for name in ("foreground", "contour", "distance", "embedding")
    },
    "multiscale, corrected": overlay(
        MODELS["multiscale"], {"auxiliary": {**NO_BRANCH, "foreground": BRANCH, "correct_by_foreground": True}}
    ),
}
"""Every family in two sizes, each further fusion, each auxiliary branch: section `model`."""


@pytest.fixture(params=CASES)
def params(request: pytest.FixtureRequest) -> HeadParams:
    return parse_model(CASES[request.param])


@pytest.fixture
def head(params: HeadParams) -> nn.Module:
    return fresh_head(params, SPECS)


@pytest.mark.parametrize(("images", "rois"), [(1, 1), (2, 5), (2, 0)])
def test_output_shape(params: HeadParams, head: nn.Module, images: int, rois: int) -> None:
    logits = logits_of(head, *inputs_of(params, images, rois))
    assert logits.shape == (rois, 3, *params.mask_hw)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_outputs_are_those_that_the_params_name(params: HeadParams, head: nn.Module) -> None:
    assert set(head.train()(*inputs_of(params, 1, 2)).aux) == params.aux_names


def test_every_parameter_gets_a_finite_gradient(params: HeadParams, head: nn.Module) -> None:
    output = head.train()(*inputs_of(params, 2, 4))
    sum((item.square().mean() for item in (output.mask_logits, *output.aux.values())), torch.tensor(0.0)).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_no_rois_train_without_harm(params: HeadParams, head: nn.Module) -> None:
    output = head.train()(*inputs_of(params, 2, 0))
    output.mask_logits.sum().backward()
    assert all(item.grad is None or torch.isfinite(item.grad).all() for item in head.parameters())


def test_same_answer_each_time(params: HeadParams, head: nn.Module) -> None:
    features, boxes = inputs_of(params, 2, 4)
    kept = {name: values.clone() for name, values in features.items()}
    first = logits_of(head, features, boxes)
    assert torch.equal(first, logits_of(head, features, boxes))
    assert all(torch.equal(kept[name], features[name]) for name in kept), "the head wrote into its input"


def test_same_seed_same_weights(params: HeadParams) -> None:
    first, second, third = (fresh_head(params, SPECS, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_save_and_load(params: HeadParams, head: nn.Module) -> None:
    buffer = io.BytesIO()
    torch.save(head.state_dict(), buffer)
    buffer.seek(0)
    other = fresh_head(params, SPECS, seed=7)
    inputs = inputs_of(params, 2, 3)
    assert not torch.equal(logits_of(head, *inputs), logits_of(other, *inputs))
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(logits_of(head, *inputs), logits_of(other, *inputs))


def test_each_box_is_answered_on_its_own(params: HeadParams, head: nn.Module) -> None:
    features, boxes = inputs_of(params, 2, 6)
    whole = logits_of(head, features, boxes)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    torch.testing.assert_close(logits_of(head, features, boxes[order]), whole[order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits_of(head, features, boxes[2:3]), whole[2:3], atol=1e-5, rtol=1e-5)
    assert (whole[0] - whole[1]).abs().max() > 1e-3, "the boxes make no difference"


def test_a_box_sees_its_own_image_only(params: HeadParams, head: nn.Module) -> None:
    features, boxes = inputs_of(params, 2, 4)
    boxes[:, 0] = torch.tensor([0.0, 1.0, 1.0, 0.0])
    before = logits_of(head, features, boxes)
    changed = {name: torch.cat([torch.randn_like(values[:1]), values[1:]]) for name, values in features.items()}
    after = logits_of(head, changed, boxes)
    torch.testing.assert_close(after[1:3], before[1:3])
    assert all((after[place] - before[place]).abs().max() > 1e-3 for place in (0, 3))


def test_every_layer_counts(params: HeadParams, head: nn.Module) -> None:
    features, boxes = inputs_of(params, 1, 2)
    before = logits_of(head, features, boxes)
    for name in params.layers:
        assert (logits_of(head, {**features, name: -features[name]}, boxes) - before).abs().max() > 1e-3, name


def test_layers_are_taken_by_name(params: HeadParams, head: nn.Module) -> None:
    features, boxes = inputs_of(params, 1, 2)
    backwards = dict(reversed(features.items())) | {"another": torch.zeros(1, 1, 1, 1)}
    assert torch.equal(logits_of(head, backwards, boxes), logits_of(head, features, boxes))


def test_every_family_is_in_this_suite() -> None:
    assert set(MODELS) == set(FAMILIES)


def test_sizes_aren_t_square() -> None:
    sizes = [size[key] for size in SIZES.values() for key in ("roi_hw", "mask_hw")]
    assert all(height != width for height, width in sizes)
