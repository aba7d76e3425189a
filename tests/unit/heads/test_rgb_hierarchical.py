"""Tests of roiseg.heads.rgb_hierarchical: sizes as published, every grid of spec 10.4, which way round the teacher is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from head_factory import INPUT_HW, MODELS, SPECS, fresh_head, inputs_of, logits_of
from torch import Tensor, nn
from torch.nn import functional as F

from roiseg.errors import ParamsError
from roiseg.export.onnx import export_head
from roiseg.heads import build_head, parse_model
from roiseg.heads.composed import ComposedHead
from roiseg.nn.norms import BatchNorm2d, LayerNorm2d
from roiseg.nn.person_guide import PERSON, PersonGuide, PersonMap
from roiseg.nn.rgb_inputs import RgbInputs
from roiseg.params import overlay

MODEL = MODELS["rgb_hierarchical"]
HEAD = {"head": "rgb_hierarchical"}
TEACHER = {**HEAD, "layers": ["image", "teacher"]}
BRANCHES = {"auxiliary": {"contour": {"channels": 64}, "distance": {"channels": 128}}}


def count(*modules: nn.Module | None) -> int:
    return sum(item.numel() for module in modules if module is not None for item in module.parameters())


def published(**changes: object) -> ComposedHead:
    """A head of the seed's widths, on the meta device."""
    with torch.device("meta"):
        head = build_head(parse_model({**TEACHER, **changes}), SPECS)
    assert isinstance(head, ComposedHead)
    return head


def small(**changes: object) -> ComposedHead:
    head = fresh_head(parse_model(overlay(MODEL, changes)), SPECS)
    assert isinstance(head, ComposedHead)
    return head


# --- sizes ---


@pytest.mark.parametrize(
    ("base", "depth", "own", "total"),
    [(64, 3, 10_913_192, 13_744_363), (72, 3, 12_565_668, 15_396_839), (96, 4, 60_130_200, 62_961_371)],
)
def test_published_sizes_of_the_full_image_family(base: int, depth: int, own: int, total: int) -> None:
    """Without the people net (spec 10.3)."""
    head = published(base_channels=base, depth=depth, **BRANCHES)
    assert isinstance(head.inputs, RgbInputs)
    assert count(head.inputs.readers) == 1_988_992
    assert count(head.inputs.join) == 66_304
    assert count(head.trunk, head.decoder) == own
    # One less than published: the original's threshold on the distance made a mask that nothing read.
    assert {name: count(branch) for name, branch in head.auxiliary.items()} == {"contour": 184_769, "distance": 591_106 - 1}
    assert count(head) == total - 1


@pytest.mark.parametrize(("attention", "expected"), [(True, 21_557_976), (False, 21_557_976 - 4_194)])
def test_published_size_without_a_teacher(attention: bool, expected: int) -> None:
    """`rgb_hierarchical_unet_v2` and its `_attention` (spec 10.2)."""
    head = published(layers=["image"], inputs={"steps": 4}, base_channels=96, target_attention=attention)
    assert count(head.inputs) == 2_882_496
    assert count(head) == expected


def test_the_guide_has_no_weights() -> None:
    plain, guided = published(), published(guided=True)
    assert plain.guide is None
    assert count(guided.guide) == 0
    assert count(guided) == count(plain) == 13_744_363 - 184_769 - 591_106


@pytest.mark.parametrize(
    ("blocks", "norm"),
    [({}, BatchNorm2d), ({"activation": "silu"}, BatchNorm2d), ({"norm": "layernorm2d"}, LayerNorm2d)],
    ids=["none", "activation", "norm"],
)
def test_batch_norm_unless_another_is_asked_for(blocks: dict[str, Any], norm: type[nn.Module]) -> None:
    norms = {type(item) for item in published(blocks=blocks).modules() if "Norm" in type(item).__name__}
    assert norm in norms
    assert (BatchNorm2d in norms) == (norm is BatchNorm2d)


# --- grids ---

RECTANGULAR = [
    *[((r, 3 * r // 4), (m, 3 * m // 4)) for r, m in ((32, 64), (64, 64), (64, 128), (80, 160), (96, 96), (96, 192))],
    *[((r, 3 * r // 4), (m, 3 * m // 4)) for r, m in ((112, 112), (112, 224), (128, 256))],
]
SQUARE = [
    ((r, r), (m, m))
    for r, masks in ((28, (56,)), (64, (64, 80, 96, 112)), (80, (80, 96, 112, 160)), (96, (96, 112, 160, 192)))
    for m in masks
] + [((112, 112), (m, m)) for m in (112, 160, 192, 224)]


@pytest.mark.parametrize(("roi_hw", "mask_hw"), RECTANGULAR + SQUARE)
def test_every_pair_of_grids(roi_hw: tuple[int, int], mask_hw: tuple[int, int]) -> None:
    """Spec 10.4, and 16.3's; on the meta device, where shapes are all there is."""
    with torch.device("meta"):
        params = parse_model(overlay(MODEL, {"inputs": {"roi_hw": roi_hw}, "mask_hw": mask_hw, "mid_channels": 8, **BRANCHES}))
        head = build_head(params, SPECS)
        features = {"image": torch.rand(1, 3, 64, 96), "teacher": torch.randn(1, 1, 32, 48)}
        output = head(features, torch.tensor([[0.0, 0.1, 0.2, 0.8, 0.9], [0.0, 0.0, 0.3, 0.5, 0.9]]))
    assert output.mask_logits.shape == (2, 3, *mask_hw)
    assert output.aux["contour"].shape == output.aux["distance"].shape == (2, 1, *mask_hw)


@pytest.mark.parametrize(("roi_hw", "mask_hw"), [RECTANGULAR[0], RECTANGULAR[2], SQUARE[0]])
def test_some_pairs_learn(roi_hw: tuple[int, int], mask_hw: tuple[int, int]) -> None:
    head = small(inputs={"roi_hw": roi_hw}, mask_hw=mask_hw, mid_channels=8, blocks={"norm": "batch"}).train()
    params = parse_model(overlay(MODEL, {"mask_hw": mask_hw}))
    output = head(*inputs_of(params, 1, 2))
    assert output.mask_logits.shape == (2, 3, *mask_hw)
    output.mask_logits.square().mean().backward()
    assert all(item.grad is not None and torch.isfinite(item.grad).all() for item in head.parameters())


def test_further_grids_are_looked_at_and_summed_by_learnt_shares() -> None:
    head = small(inputs={"further_roi_hw": [[12, 16], [3, 4]]})
    assert isinstance(head.inputs, RgbInputs)
    assert len(head.inputs.readers) == 3
    features, boxes = inputs_of(parse_model(MODEL), 1, 2)
    found = head.inputs(features, boxes)
    for reader in head.inputs.readers:
        handle = reader.register_forward_hook(lambda _, __, given: torch.zeros_like(given))
        assert (head.inputs(features, boxes) - found).abs().max() > 1e-3
        handle.remove()


# --- the teacher ---


def swapped(head: ComposedHead) -> ComposedHead:
    """The head with the original's fault: the channels of background and person exchanged."""
    for part in head.modules():
        if isinstance(part, PersonMap):
            part.register_forward_hook(lambda _, __, found: found.flip(1))
    return head


def test_the_person_channel_stands_behind_background_and_the_pixels() -> None:
    """The 1x1 convolution takes M channels of pixels, then background, then person: a weight on the last one alone is the map."""
    head = small(guided=False)
    assert isinstance(head.inputs, RgbInputs)
    assert isinstance(head.inputs.join, nn.Conv2d)
    with torch.no_grad():
        head.inputs.join.weight.zero_()
        head.inputs.join.bias.zero_()  # type: ignore[union-attr]
        head.inputs.join.weight[:, -2 + PERSON] = 1
    features, boxes = inputs_of(parse_model(MODEL), 1, 2)
    found = {sign: head.inputs({**features, "teacher": torch.full((1, 1, 32, 48), 20.0 * sign)}, boxes) for sign in (1, -1)}
    torch.testing.assert_close(found[1], torch.ones_like(found[1]))
    torch.testing.assert_close(found[-1], torch.zeros_like(found[-1]))
    assert (swapped(head).inputs({**features, "teacher": torch.full((1, 1, 32, 48), 20.0)}, boxes) < 0.5).all()


def test_the_gate_is_held_back_where_the_teacher_sees_nobody() -> None:
    """Attention times (0.5 + 0.5 p): what the second decision reads with a sure person is twice what it reads with nobody."""
    head = small(guided=True)
    read: list[Tensor] = []
    head.decoder.target.register_forward_pre_hook(lambda _, given: read.append(given[0]))  # type: ignore[union-attr]
    assert isinstance(head.inputs, RgbInputs)
    head.inputs.people = None  # so that the guide is the teacher's only way
    features, boxes = inputs_of(parse_model(MODEL), 1, 2)
    for logit in (20.0, -20.0):
        head({**features, "teacher": torch.full((1, 1, 32, 48), logit)}, boxes)
    torch.testing.assert_close(read[0], 2 * read[1])
    swapped(head)({**features, "teacher": torch.full((1, 1, 32, 48), 20.0)}, boxes)
    torch.testing.assert_close(read[2], read[1])


def taught() -> ComposedHead:
    """A small head that has learnt on noise for pixels that the teacher alone knows where people are."""
    torch.manual_seed(0)
    changes = {"base_channels": 8, "depth": 2, "dropout": 0.0, "blocks": {"norm": "batch"}}
    head = build_head(parse_model(overlay(MODEL, changes)), SPECS).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.01)
    boxes = torch.tensor([[float(image), 0.0, 0.0, 1.0, 1.0] for image in range(4)])
    halves = torch.tensor([[[[1.0, -1.0]], [[-1.0, 1.0]]]]).view(2, 1, 1, 2).repeat(2, 1, 1, 1)  # left, right, left, right
    for _ in range(60):
        features = {"image": torch.rand(4, 3, 64, 96), "teacher": F.interpolate(8 * halves, (32, 48))}
        truth = (F.interpolate(halves, (12, 10)) > 0)[:, 0].long()
        F.cross_entropy(head(features, boxes).mask_logits, truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    assert isinstance(head, ComposedHead)
    return head.eval()


def test_a_teacher_that_says_person_raises_the_probability_of_people() -> None:
    """From end to end, and the other way round if the channels were exchanged behind the head's back."""
    head, boxes = taught(), torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]])

    def people() -> tuple[float, float]:
        """In the left half, where the teacher says person, and in the right, where it says background."""
        teacher = torch.cat([torch.full((1, 1, 32, 24), 8.0), torch.full((1, 1, 32, 24), -8.0)], dim=3)
        logits = logits_of(head, {"image": torch.full((1, 3, 64, 96), 0.5), "teacher": teacher}, boxes)
        found = 1 - logits.softmax(1)[:, 0]
        return float(found[..., :5].mean()), float(found[..., 5:].mean())

    left, right = people()
    assert left > right + 0.3
    swapped(head)
    left, right = people()
    assert right > left + 0.3


# --- batch norm, and from torch to ONNX ---


def test_batch_norm_is_exported(tmp_path: Path) -> None:
    params = parse_model(overlay(MODEL, {"blocks": {"norm": "batch"}, "depth": 2, **BRANCHES}))
    head = fresh_head(params, SPECS)
    for rois in (3, 0):
        head.train()(*inputs_of(params, 2, rois))
    export_head(head.eval(), [SPECS[name] for name in params.layers], INPUT_HW, 18, {}, tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "head.onnx"), providers=["CPUExecutionProvider"])
    for images, rois in ((1, 1), (2, 5), (1, 0)):
        features, boxes = inputs_of(params, images, rois)
        feeds = {f"features_{name}": item.numpy() for name, item in features.items()} | {"boxes": boxes.numpy()}
        (masks,) = session.run(["masks"], feeds)
        np.testing.assert_allclose(masks, logits_of(head, features, boxes).softmax(1).numpy(), atol=5e-4)


# --- params ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layers": ["layer_34"], "guided": False},
            r"layers are layer_34, expected image alone, or image and teacher; this head reads",
        ),
        ({"layers": ["teacher"]}, r"layers are teacher, expected image alone"),
        ({"layers": ["image", "teacher", "layer_3"]}, r"layers are image, teacher, layer_3, expected image alone"),
        ({"layers": ["image", "image"], "guided": False}, r"layers are image, image, expected image alone"),
        (
            {"layers": ["image"]},
            r"guided is true and layers are image, expected teacher among them; add it, or set guided to false",
        ),
        ({"inputs": {"steps": 5}}, r"model\.inputs\.steps: value is 5"),
        ({"inputs": {"further_roi_hw": [[0, 4]]}}, r"model\.inputs\.further_roi_hw\.0\.0: value is 0"),
        ({"inputs": {"fusion": "sum"}}, r"model\.inputs\.fusion: unknown key"),
        ({"inputs": {"roi_hw": [3, 8]}}, r"inputs\.roi_hw is \(3, 8\), expected at least 4 cells a side, which are halved 2 times"),
        ({"blocks": {"norm": "group", "groups": 4}}, r"mid_channels: its narrowest norm has 2 channels"),
        ({"blocks": {"norm": "group"}}, r"groups is null with norm group, expected a value"),
    ],
)
def test_params_are_refused(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse_model(overlay(MODEL, changes))


def test_the_order_of_layers_is_free() -> None:
    head = small(layers=["teacher", "image"])
    features, boxes = inputs_of(parse_model(MODEL), 1, 2)
    assert torch.equal(logits_of(head, features, boxes), logits_of(small(), features, boxes))


def test_the_guide_is_the_map_of_the_inputs() -> None:
    head = small()
    assert isinstance(head.guide, PersonGuide)
    assert isinstance(head.inputs, RgbInputs)
    assert head.guide.people is head.inputs.people
