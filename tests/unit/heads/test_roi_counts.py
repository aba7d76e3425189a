"""No ROIs, one, and the 289 people of COCO's fullest image: every head under every loss that it can serve, and in evaluation."""

from dataclasses import replace
from functools import cache
from typing import Any

import head_factory
import pytest
import torch
from head_factory import MODELS, every_part, fresh_head
from knobs import nested
from loss_factory import FULL, targets_of
from torch import Tensor, nn

from roiseg.dataset import Targets
from roiseg.evaluate import infer
from roiseg.evaluate.infer import head_outputs
from roiseg.export.onnx import example_inputs
from roiseg.heads import FAMILIES, parse_model
from roiseg.losses import LossParams, MaskLoss, needed_aux
from roiseg.losses.outputs import READERS
from roiseg.nn.outputs import HeadOutput
from roiseg.params import overlay
from roiseg.types import MAX_ROIS

MOST = 289
"""People in the image of COCO that has the most (spec 24.3)."""

SPECS = head_factory.SPECS
MASK_HW, MAP_HW = (8, 10), (8, 12)
"""Cells of the masks, and of the map of the whole image."""

EVERY_OUTPUT: dict[str, Any] = {"mid_channels": 8, **every_part(2, "subpixel")}
"""Changes to a composed head that give it all outputs that it can have, of few channels."""

OWN_OUTPUT: dict[str, dict[str, Any]] = {"positional": {"full_map": True}}
"""The same for heads that aren't composed."""


def head_of(family: str, changes: dict[str, Any]) -> nn.Module:
    values = overlay(MODELS[family], {"mask_hw": MASK_HW})
    return fresh_head(parse_model(overlay(values, changes)), SPECS)


def inputs_of(family: str, rois: int) -> tuple[dict[str, Tensor], Tensor]:
    """Features of one image, and boxes in it."""
    layers = MODELS[family]["layers"]
    *maps, boxes = example_inputs([SPECS[name] for name in layers], (64, 96), 1, rois, seed=rois)
    return dict(zip(layers, maps, strict=True)), boxes


@cache
def people(rois: int) -> Targets:
    """A block of target and one of another person, of any size and place; some ROIs lack one of them, or both."""
    generator = torch.Generator().manual_seed(rois)
    labels = torch.zeros(rois, *MASK_HW, dtype=torch.int64)
    for roi in labels:
        for label in (2, 1):
            top, left, height, width = torch.randint(0, 8, (4,), generator=generator).tolist()
            roi[top : top + height, left : left + width] = label
    frames = torch.stack([torch.randint(3, (rois, *MAP_HW), generator=generator), torch.ones(rois, *MAP_HW, dtype=torch.int64)])
    return replace(targets_of(labels), frames=frames.to(torch.uint8))


def served(output: HeadOutput) -> LossParams:
    """Section `loss` with every term on that reads what this head gives."""
    values = FULL
    for name, reader in READERS.items():
        if name not in output.aux:
            values = overlay(values, nested(reader.section.removeprefix("loss."), None))
    return LossParams.parse(values, "loss")


@pytest.mark.parametrize("rois", [0, 1, MOST])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_learns_from_any_number_of_people(family: str, rois: int) -> None:
    composed = "cascade" in MODELS[family]
    head = head_of(family, EVERY_OUTPUT if composed else OWN_OUTPUT.get(family, {})).train()
    output = head(*inputs_of(family, rois))
    params = served(output)
    assert needed_aux(params) == set(output.aux) - {"stage_1", "stage_2"}
    parts = MaskLoss(params, (0.5, 1.0, 2.0))(output, people(rois))
    assert ("stage_3" in parts) == composed
    assert {name for name, value in parts.items() if not torch.isfinite(value)} == set()
    parts["total"].backward()  # type: ignore[no-untyped-call]
    gradients = {name: item.grad for name, item in head.named_parameters()}
    assert all(grad is None or torch.isfinite(grad).all() for grad in gradients.values())
    if rois == MOST:
        assert [name for name, grad in gradients.items() if grad is None or not grad.any()] == []


def test_every_output_is_given_by_some_head() -> None:
    """So that every term is among those above."""
    given = {name for family in FAMILIES for name in _outputs(family)}
    assert given == {*READERS, "stage_1", "stage_2"}


def _outputs(family: str) -> set[str]:
    changes = EVERY_OUTPUT if "cascade" in MODELS[family] else OWN_OUTPUT.get(family, {})
    return set(head_of(family, changes).train()(*inputs_of(family, 1)).aux)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_people_of_an_image_are_evaluated_in_bounded_parts(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head, (features, boxes) = head_of(family, {}), inputs_of(family, MOST)
    asked: list[int] = []
    head.register_forward_pre_hook(lambda _, given: asked.append(len(given[1])))
    with torch.no_grad():
        found = head_outputs(head, features, boxes, ("bg_fg",))
        assert sum(asked) == MOST
        assert max(asked) <= MAX_ROIS < MOST
        monkeypatch.setattr(infer, "MAX_ROIS", MOST)
        whole = head_outputs(head, features, boxes, ("bg_fg",))
    assert asked[-1] == MOST
    torch.testing.assert_close(found.mask_logits, whole.mask_logits, atol=1e-4, rtol=1e-4)
    assert all(len(item) == MOST for item in found.aux.values())
