"""Tests of roiseg.heads.composed: parts that any composed head may have, each alone and all at once; params and their faults."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from head_factory import INPUT_HW, MODELS, SPECS, fresh_head
from torch import Tensor

from roiseg.errors import ParamsError
from roiseg.export.onnx import example_inputs
from roiseg.heads import parse_model
from roiseg.heads.composed import ComposedHead, PartsParams, correct
from roiseg.nn.cascade import Cascade
from roiseg.nn.outputs import HeadOutput
from roiseg.params import overlay

FAMILIES = [name for name, values in MODELS.items() if "cascade" in values]
BRANCH = {"channels": 4}
ALL_BRANCHES = {"foreground": BRANCH, "contour": BRANCH, "distance": BRANCH, "embedding": BRANCH, "correct_by_foreground": False}
NO_BRANCH: dict[str, Any] = {**dict.fromkeys(ALL_BRANCHES), "correct_by_foreground": False}
PARTS: dict[str, dict[str, Any]] = {
    "attention": {"attention": "cbam"},
    "auxiliary": {"auxiliary": ALL_BRANCHES},
    "upsampling": {"refine": {"upsampling": "progressive", "boundary": False}},
    "boundary": {"refine": {"upsampling": None, "boundary": True}},
    "relational": {"relational": {"heads": 2, "dropout": 0.1}},
    "cascade": {"cascade": {"channels": 8}},
}
ALL: dict[str, Any] = {
    **PARTS["attention"],
    "auxiliary": {**ALL_BRANCHES, "correct_by_foreground": True},
    "refine": {"upsampling": "progressive", "boundary": True},
    **PARTS["relational"],
    **PARTS["cascade"],
}
RGB: dict[str, Any] = {"layers": ["layer_34", "layer_3", "image"], "inputs": {"rgb": {"layers": ["layer_34"], "channels": 8}}}


def composed(family: str, changes: Mapping[str, Any] | None = None, seed: int = 0) -> tuple[PartsParams, ComposedHead]:
    params = parse_model(overlay(MODELS[family], changes or {}))
    head = fresh_head(params, SPECS, seed)
    assert isinstance(params, PartsParams)
    assert isinstance(head, ComposedHead)
    return params, head


def inputs_of(params: PartsParams, images: int = 2, rois: int = 5) -> tuple[dict[str, Tensor], Tensor]:
    *maps, boxes = example_inputs([SPECS[name] for name in params.layers], INPUT_HW, images, rois, seed=1)
    return dict(zip(params.layers, maps, strict=True)), boxes


def run(family: str, changes: Mapping[str, Any] | None = None, rois: int = 5) -> HeadOutput:
    params, head = composed(family, changes)
    with torch.no_grad():
        output = head(*inputs_of(params, rois=rois))
    assert isinstance(output, HeadOutput)
    return output


# --- each part on each family ---


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", [*PARTS, "all"])
def test_a_part_on_a_family(family: str, part: str) -> None:
    params, head = composed(family, ALL if part == "all" else PARTS[part])
    output = head.train()(*inputs_of(params))
    assert output.mask_logits.shape == (5, 3, 12, 10)
    assert set(output.aux) == params.aux_names
    sum((item.square().mean() for item in (output.mask_logits, *output.aux.values())), torch.tensor(0.0)).backward()
    dead = [name for name, item in head.named_parameters() if item.grad is None or not item.grad.any()]
    assert dead == []
    assert all(item.grad is not None and torch.isfinite(item.grad).all() for item in head.parameters())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rois", [0, 1, 7])
def test_everything_at_once_of_any_number_of_rois(family: str, rois: int) -> None:
    for output in (run(family, ALL, rois),):
        assert output.mask_logits.shape == (rois, 3, 12, 10)
        assert torch.isfinite(output.mask_logits).all()
        assert all(len(item) == rois for item in output.aux.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_rois_train_without_harm(family: str) -> None:
    params, head = composed(family, ALL)
    output = head.train()(*inputs_of(params, rois=0))
    sum((item.sum() for item in (output.mask_logits, *output.aux.values())), torch.tensor(0.0)).backward()
    assert all(item.grad is None or torch.isfinite(item.grad).all() for item in head.parameters())


# --- what each part gives ---


def test_auxiliary_outputs() -> None:
    output = run("multiscale", {"auxiliary": ALL_BRANCHES})
    assert {name: tuple(item.shape) for name, item in output.aux.items()} == {
        **dict.fromkeys(("foreground", "contour", "distance"), (5, 1, 12, 10)),
        "embedding": (5, 4, 6, 8),
    }
    for name in ("foreground", "contour", "distance"):
        found = output.aux[name]
        assert float(found.min()) < 0 or float(found.max()) > 1, "a logit, not a probability: the loss has the sigmoid (spec 11.10)"
    for name in ("foreground", "contour", "distance", "embedding"):
        assert set(run("multiscale", {"auxiliary": {**NO_BRANCH, name: BRANCH}}).aux) == {name}
    assert run("multiscale").aux == {}


@pytest.mark.parametrize("family", [name for name in FAMILIES if name.startswith("hierarchical")])
def test_decisions_are_handed_on(family: str) -> None:
    aux = run(family).aux
    assert set(aux) == {"bg_fg", "target_non_target"}
    assert all(item.shape[:2] == (5, 2) for item in aux.values())
    assert {"bg_fg", "target_non_target", "foreground", "stage_1", "stage_2"} < set(run(family, ALL).aux)


def test_branches_leave_the_masks_alone() -> None:
    """But for the weights that the other parts begin with."""
    params, head = composed("multiscale", {"auxiliary": ALL_BRANCHES})
    _, plain = composed("multiscale")
    plain.load_state_dict({name: item for name, item in head.state_dict().items() if not name.startswith("auxiliary")})
    features, boxes = inputs_of(params)
    assert torch.equal(plain(features, boxes).mask_logits, head(features, boxes).mask_logits)


def test_correction_is_the_product_and_outside_of_training_only() -> None:
    auxiliary = {**NO_BRANCH, "foreground": BRANCH, "correct_by_foreground": True}
    params, head = composed("multiscale", {"auxiliary": auxiliary})
    features, boxes = inputs_of(params)
    plain, corrected = head.train()(features, boxes), head.eval()(features, boxes)
    before, said = plain.mask_logits.softmax(1), corrected.aux["foreground"].sigmoid()
    product = before * torch.cat([1 - said, said, said], dim=1)
    torch.testing.assert_close(corrected.mask_logits.softmax(1), product / product.sum(1, keepdim=True), atol=1e-5, rtol=1e-4)
    assert (corrected.mask_logits.softmax(1) - before).abs().max() > 1e-2


def test_correction_bears_large_logits() -> None:
    foreground = torch.tensor([-500.0, 500.0]).view(2, 1, 1, 1)
    found = correct(torch.zeros(2, 3, 1, 1), foreground).softmax(1).flatten(1)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]))


@pytest.mark.parametrize("family", FAMILIES)
def test_cascade_stages_are_three_different_masks(family: str) -> None:
    output = run(family, PARTS["cascade"])
    stages = [output.aux["stage_1"], output.aux["stage_2"], output.mask_logits]
    assert all(stage.shape == (5, 3, 12, 10) for stage in stages)
    assert all((one - two).abs().max() > 1e-2 for one, two in pairwise(stages))


@pytest.mark.parametrize("share", [True, False])
def test_cascade_behind_variable_rois(share: bool) -> None:
    """Unsupported by the seed (spec 9.3): all grids come to one before the first stage, and every weight learns from the last."""
    grids = {"inputs": {"layer_roi_hw": {"layer_3": [12, 16], "layer_34": [9, 12]}, "smooth": True}}
    params, head = composed("variable_roi", {"cascade": {"channels": 8, "share_features": share}, **grids})
    output = head.train()(*inputs_of(params))
    assert {name: tuple(item.shape) for name, item in output.aux.items()} == dict.fromkeys(("stage_1", "stage_2"), (5, 3, 12, 10))
    output.mask_logits.square().mean().backward()
    assert [name for name, item in head.named_parameters() if item.grad is None or not item.grad.any()] == []


@pytest.mark.parametrize("share", [True, False])
def test_stages_read_the_trunk_or_the_inputs(share: bool) -> None:
    """With features of its own, a stage doesn't hear what the trunk says but through the logits of the stage before."""
    params, head = composed("coarse", {"cascade": {"channels": 8, "share_features": share}})
    assert isinstance(head.cascade, Cascade)
    generator = torch.Generator().manual_seed(0)
    fused, shared, other = (torch.randn(2, params.mid_channels, 6, 8, generator=generator) for _ in range(3))
    logits = torch.randn(2, 3, 12, 10, generator=generator)
    first, after_trunk, after_inputs = (
        head.cascade(*features, logits) for features in ((fused, shared), (fused, other), (other, shared))
    )
    assert all(len(stages) == 3 and torch.equal(stages[0], logits) for stages in (first, after_trunk, after_inputs))
    for stage in (1, 2):
        assert torch.equal(first[stage], after_inputs[stage]) == share
        assert torch.equal(first[stage], after_trunk[stage]) != share


def test_relational_hears_the_rois_of_its_image_only() -> None:
    params, head = composed("coarse", PARTS["relational"])
    features, boxes = inputs_of(params, rois=4)
    boxes[:, 0] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    before = head(features, boxes).mask_logits
    moved = boxes.clone()
    moved[0, 1:] = torch.tensor([0.1, 0.1, 0.9, 0.9])
    difference = (head(features, moved).mask_logits - before).abs().amax((1, 2, 3))
    assert difference[2] > 1e-4
    assert difference[[1, 3]].max() < 1e-6
    alone = head(features, boxes[1:2]).mask_logits
    assert (alone - before[1:2]).abs().max() > 1e-4, "its neighbour made no difference"


def test_image_is_read_where_it_is_asked_for() -> None:
    params, head = composed("multiscale", RGB)
    features, boxes = inputs_of(params)
    before = head(features, boxes).mask_logits
    assert (head({**features, "image": -features["image"]}, boxes).mask_logits - before).abs().max() > 1e-3


# --- params ---


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("multiscale", {"mid_channels": 12}, r"model\.mid_channels: value is 12; .*multiple of 8"),
        (
            "multiscale",
            {"blocks": {"norm": "group", "groups": 4}},
            r"mid_channels: its narrowest norm has 2 channels, which isn't a multiple of blocks\.groups 4",
        ),
        (
            "coarse",
            {"blocks": {"norm": "group", "groups": 2}, "cascade": {"channels": 7}},
            r"cascade\.channels: its narrowest norm has 7 channels",
        ),
        (
            "coarse",
            {"blocks": {"norm": "group", "groups": 2}, "auxiliary": {**NO_BRANCH, "foreground": {"channels": 6}}},
            r"auxiliary\.foreground\.channels: its narrowest norm has 3 channels",
        ),
        (
            "hierarchical_unet_v3",
            {"blocks": {"norm": "group", "groups": 2}, "base_channels": 6, "target_base_channels": 10},
            r"base_channels: its narrowest norm has 3 channels.*; target_base_channels: its narrowest norm has 5 channels",
        ),
        ("coarse", {"relational": {"heads": 3, "dropout": 0.0}}, r"mid_channels 16 isn't a multiple of relational\.heads 3"),
        ("coarse", {"inputs": {"fusion": "single"}}, r"inputs\.fusion is single with 2 feature layers"),
        ("coarse", {"auxiliary": NO_BRANCH}, r"model\.auxiliary: .*all branches are null.*or set auxiliary to null"),
        (
            "coarse",
            {"auxiliary": {**NO_BRANCH, "contour": BRANCH, "correct_by_foreground": True}},
            r"correct_by_foreground is true and foreground null",
        ),
        ("coarse", {"refine": {"upsampling": None, "boundary": False}}, r"model\.refine: .*or set refine to null"),
        ("coarse", {"refine": {"upsampling": "bilinear", "boundary": False}}, r"model\.refine\.upsampling: value is 'bilinear'"),
        ("coarse", {"cascad": None}, r"model\.cascad: unknown key; did you mean 'cascade'"),
        ("coarse", {"combine": "logprob"}, r"model\.combine: unknown key"),
        ("hierarchical", {"combine": "product"}, r"model\.combine: value is 'product'"),
        (
            "hierarchical_unet_v2",
            {"depth": 4},
            r"inputs\.roi_hw is \(6, 8\), expected at least 8 cells a side, which are halved 3 times",
        ),
        ("hierarchical_unet_v4", {"target_depth": 4}, r"inputs\.roi_hw is \(6, 8\), expected at least 8"),
        ("hierarchical_unet_v1", {"inputs": {"roi_hw": [3, 8]}}, r"inputs\.roi_hw is \(3, 8\), expected at least 4"),
        ("hierarchical_unet_v3", {"inputs": {"roi_hw": [3, 8]}}, r"inputs\.roi_hw is \(3, 8\), expected at least 4"),
        ("hierarchical_unet_v2", {"depth": 1}, r"model\.depth: value is 1"),
    ],
)
def test_params_are_refused(family: str, changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse_model(overlay(MODELS[family], changes))
