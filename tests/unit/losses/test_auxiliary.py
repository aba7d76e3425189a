"""Tests of roiseg.losses.auxiliary: one sigmoid and no more, true distances, and each loss by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_factory import PLAIN, targets_of
from torch import Tensor

from roiseg.dataset import Targets
from roiseg.errors import ParamsError
from roiseg.losses.auxiliary import AuxiliaryLoss, AuxiliaryParams, contour_map, normalised_distance
from roiseg.losses.part import Parts
from roiseg.losses.region import IGNORE
from roiseg.nn.outputs import HeadOutput


def parts_of(name: str, logits: Tensor, target: Targets, **values: float) -> Parts:
    params: dict[str, Any] = PLAIN["auxiliary"] | {name: {"weight": 0.1} | values}
    output = HeadOutput(torch.zeros(len(logits), 3, *logits.shape[1:]), {name: logits[:, None]})
    return AuxiliaryLoss(AuxiliaryParams.parse(params, "loss.auxiliary"))(output, target)


def softplus(value: float) -> float:
    return math.log(1 + math.exp(value))


def test_foreground_by_hand() -> None:
    """Both kinds of person are foreground; pos_weight acts on them alone."""
    target = targets_of(torch.tensor([[[0, 1, 2, 0]]]))
    target.labels[0, 0, 3] = IGNORE
    parts = parts_of("foreground", torch.tensor([[[1.0, 2.0, -3.0, 60.0]]]), target, pos_weight=2.0)
    assert float(parts["foreground"].value) == pytest.approx((softplus(1) + 2 * softplus(-2) + 2 * softplus(3)) / 3, rel=1e-5)
    assert parts["foreground"].weight == 0.1
    assert float(parts["foreground_accuracy"].value) == pytest.approx(1 / 3)
    assert float(parts["foreground_iou"].value) == pytest.approx(1 / 3)


def test_nobody_said_and_nobody_there() -> None:
    target = targets_of(torch.zeros(1, 2, 3, dtype=torch.int64))
    parts = parts_of("foreground", torch.full((1, 2, 3), -5.0), target, pos_weight=1.0)
    assert float(parts["foreground_iou"].value) == float(parts["foreground_accuracy"].value) == 1


@pytest.mark.parametrize(("name", "values"), [("contour", {"width": 1.0}), ("foreground", {"pos_weight": 1.0})])
def test_sigmoid_is_applied_once(name: str, values: dict[str, float]) -> None:
    """With two of them no answer is outside 0.5 to 0.73, and a right one still costs 0.31 (spec 11.10)."""
    labels = torch.zeros(1, 6, 9, dtype=torch.int64)
    labels[0, 2:5, 3:7] = 1
    target = targets_of(labels)
    truth = contour_map(target, 1.0) if name == "contour" else (labels > 0).float()
    assert float(parts_of(name, truth * 40 - 20, target, **values)[name].value) < 1e-6


def test_contour_by_hand() -> None:
    target = targets_of(torch.tensor([[[0, 0, 0, 1, 1, 1, 2, 2]]]))
    assert contour_map(target, 1.0).tolist() == [[[0, 0, 1, 1, 0, 1, 1, 0]]]
    assert contour_map(target, 2.0).tolist() == [[[0, 1, 1, 1, 1, 1, 1, 1]]]
    found = parts_of("contour", torch.full((1, 1, 8), 2.0), target, width=1.0)["contour"].value
    assert float(found) == pytest.approx((4 * softplus(-2) + 4 * softplus(2)) / 8, rel=1e-5)


@pytest.mark.parametrize("labels", [[0, 0, 2, 2], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_no_contour_without_an_outline_of_the_target(labels: list[int]) -> None:
    assert not contour_map(targets_of(torch.tensor([[labels]])), 1.0).any()


def test_distance_by_hand() -> None:
    target = targets_of(torch.tensor([[[0, 1, 1, 1, 1, 1, 2, 1]]]))
    assert normalised_distance(target).flatten().tolist() == pytest.approx([0, 0.2, 0.6, 1, 0.6, 0.2, 0, 0.2])


@pytest.mark.parametrize(("label", "expected"), [(0, 0.0), (1, 1.0), (2, 0.0)])
def test_distance_in_rois_of_one_label(label: int, expected: float) -> None:
    target = targets_of(torch.full((1, 3, 4), label))
    assert normalised_distance(target).equal(torch.full((1, 3, 4), expected))


@given(st.integers(0, 10_000))
def test_distance_matches_reference(seed: int) -> None:
    """For each pixel of the target the nearest one that isn't, looked for among all; the deepest of each ROI is 1."""
    labels = np.random.default_rng(seed).choice(3, size=(2, 5, 7), p=[0.15, 0.7, 0.15])
    labels[:, 0, 0] = 0
    found = normalised_distance(targets_of(torch.from_numpy(labels))).numpy()
    for truth, values in zip(labels, found, strict=True):
        others = np.argwhere(truth != 1)
        depth = np.zeros(truth.shape)
        for row, column in np.argwhere(truth == 1):
            depth[row, column] = np.sqrt(((others - [row, column]) ** 2).sum(axis=1).min()) - 0.5
        np.testing.assert_allclose(values, depth / max(depth.max(), 0.5), atol=1e-5)


def test_distance_loss_is_least_where_the_sigmoid_is_the_distance() -> None:
    target = targets_of(torch.tensor([[[0, 1, 1, 1, 0]]]))
    truth = normalised_distance(target).clamp(1e-4, 1 - 1e-4)
    best = truth.logit()
    losses = [float(parts_of("distance", best + step, target)["distance"].value) for step in (-0.3, 0.0, 0.3)]
    assert losses[1] < min(losses[0], losses[2])
    assert losses[1] == pytest.approx(float(-(truth * truth.log() + (1 - truth) * (1 - truth).log()).mean()), abs=2e-3)


def test_ignored_pixels_count_for_nothing() -> None:
    target = targets_of(torch.tensor([[[0, 1, 1, 1, 0]]]))
    target.labels[0, 0, 1] = IGNORE
    logits = torch.randn(1, 1, 5, generator=torch.Generator().manual_seed(0))
    other = logits.clone()
    other[0, 0, 1] = 30.0
    for name, values in (("contour", {"width": 1.0}), ("distance", {}), ("foreground", {"pos_weight": 2.0})):
        first, second = (parts_of(name, item, target, **values) for item in (logits, other))
        assert {key: float(part.value) for key, part in first.items()} == {key: float(part.value) for key, part in second.items()}


def test_a_contour_of_no_pixel_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"loss\.auxiliary\.contour\.width: value is 0.5"):
        AuxiliaryParams.parse(PLAIN["auxiliary"] | {"contour": {"weight": 0.1, "width": 0.5}}, "loss.auxiliary")
