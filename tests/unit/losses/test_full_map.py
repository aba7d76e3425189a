"""Tests of roiseg.losses.full_map: a written-out map, and what lies beyond the ROI."""

import math
from typing import Any

import pytest
import torch
from loss_factory import FULL, drawn_output, frames_of, loss_params, targets_of, two_people
from torch import Tensor

from roiseg.dataset import Targets
from roiseg.losses import MaskLoss, needs_frames
from roiseg.losses.full_map import full_map_loss

EVEN = torch.ones(3)


def frames(labels: list[int], inside: list[int]) -> Tensor:
    return torch.tensor([[[labels]], [[inside]]], dtype=torch.uint8)


@pytest.mark.parametrize("outside", [0.0, 0.1, 1.0])
def test_written_out(outside: float) -> None:
    """Two cells in the ROI, the target and background; beyond it another person and background."""
    logits = torch.zeros(1, 3, 1, 4)
    logits[0, 1, 0, 0], logits[0, 2, 0, 2] = 2.0, 3.0
    weights = torch.tensor([0.5, 1.0, 2.0])
    values = [math.log(math.exp(2) + 2) - 2, math.log(3), math.log(math.exp(3) + 2) - 3, math.log(3)]
    factors = [1.0, 0.5, 2.0 * outside, 0.5 * outside]
    expected = sum(value * factor for value, factor in zip(values, factors, strict=True)) / sum(factors)
    assert float(full_map_loss(logits, frames([1, 0, 2, 0], [1, 1, 0, 0]), weights, outside)) == pytest.approx(expected, rel=1e-5)


def test_class_two_that_leaks_out_costs() -> None:
    """Where nobody is, though it may not be in the ROI at all."""
    truth, logits = frames([1, 1, 0, 0], [1, 1, 0, 0]), torch.zeros(1, 3, 1, 4)
    logits[0, 1, 0, :2] = logits[0, 0, 0, 2:] = 6.0
    leaking = logits.clone()
    leaking[0, 2, 0, 3] = 9.0
    before, after = (float(full_map_loss(item, truth, EVEN, 0.1)) for item in (logits, leaking))
    assert after > 10 * before
    assert float(full_map_loss(leaking, truth, EVEN, 0.0)) == pytest.approx(float(full_map_loss(logits, truth, EVEN, 0.0)))


@pytest.mark.parametrize("outside", [0.0, 0.1])
@pytest.mark.parametrize("inside", [0, 1])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_gradients_are_finite(label: int, inside: int, outside: float) -> None:
    """Also of an ROI between the centres of two cells, and of none."""
    for rois in (2, 0):
        logits = (torch.randn(rois, 3, 3, 4, generator=torch.Generator().manual_seed(0)) * 50).requires_grad_()
        truth = torch.stack([torch.full((rois, 3, 4), value, dtype=torch.uint8) for value in (label, inside)])
        loss = full_map_loss(logits, truth, EVEN, outside)
        loss.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
        assert float(loss.detach()) >= 0
        if not inside and not outside:
            assert float(loss.detach()) == 0


def test_other_people_become_background_beyond_the_roi_too() -> None:
    values: dict[str, Any] = {"ce": 0.0, "full_map": {"weight": 1.0, "outside": 1.0}}
    targets, output = targets_of(two_people()), drawn_output(2)
    own, background = (
        MaskLoss(loss_params(**values, non_target=kind), (1.0, 1.0, 1.0))(output, targets)["full_map"]
        for kind in ("own", "background")
    )
    alone = frames_of(two_people())
    alone[0][alone[0] == 2] = 0
    assert float(background) == pytest.approx(float(full_map_loss(output.aux["full_map"].detach(), alone, EVEN, 1.0)))
    assert float(own) != float(background)


def test_frames_are_needed_where_a_map_is_learnt() -> None:
    assert needs_frames(loss_params(FULL))
    assert not needs_frames(loss_params(FULL, full_map=None))
    targets = targets_of(two_people())
    bare = Targets(targets.labels, targets.boundary, targets.target, targets.non_target)
    with pytest.raises(
        ValueError, match=r"loss\.full_map is on and the targets hold no frames, expected those of an RoiDataset with"
    ):
        MaskLoss(loss_params(FULL), (1.0, 1.0, 1.0))(drawn_output(2), bare)
