"""Tests of roiseg.losses.focal: written-out numbers, weights that still act on each pixel, and slopes without bound."""

import math

import pytest
import torch

from roiseg.losses.focal import focal_map
from roiseg.losses.region import cross_entropy_map, weighted_mean

ALL = (0, 1, 2)


@pytest.mark.parametrize(("gamma", "factor"), [(0.0, 1.0), (1.0, 0.2), (2.0, 0.04), (3.0, 0.008)])
def test_written_out(gamma: float, factor: float) -> None:
    """p = 0.8: -log p times 0.2 to the power of gamma."""
    found = focal_map(torch.full((1, 1, 1), -math.log(0.8)), torch.ones(1, 1, 1, dtype=torch.int64), gamma, ALL)
    assert float(found) == pytest.approx(-math.log(0.8) * factor, rel=1e-5)


def test_only_pixels_of_its_classes() -> None:
    labels = torch.tensor([[[0, 1, 2]]])
    entropy = torch.full((1, 1, 3), math.log(2))
    assert focal_map(entropy, labels, 2.0, (1, 2)).tolist() == [[[pytest.approx(math.log(2) * part) for part in (1, 0.25, 0.25)]]]


def test_weights_of_pixels_and_classes_act_on_it() -> None:
    """The original took its mean before any weight saw it (spec 11.5, flaw iv)."""
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(2))
    weights, pixels = torch.tensor([0.5, 1.0, 2.0]), torch.linspace(1, 3, 40).reshape(2, 4, 5)
    found = weighted_mean(focal_map(cross_entropy_map(logits, labels), labels, 2.0, ALL), labels, weights, pixels)
    above = below = 0.0
    for roi, row, column in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(5)).tolist():
        label = int(labels[roi, row, column])
        likely = float(logits[roi, :, row, column].softmax(0)[label])
        weight = float(weights[label] * pixels[roi, row, column])
        above -= weight * (1 - likely) ** 2 * math.log(likely)
        below += weight
    assert float(found) == pytest.approx(above / below, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [0.0, 40.0, 1000.0])
def test_certain_pixels_have_finite_slopes(gamma: float, size: float) -> None:
    logits = torch.tensor([[[[size, -size]], [[0.0, 0.0]], [[0.0, 0.0]]]]).requires_grad_()
    labels = torch.zeros(1, 1, 2, dtype=torch.int64)
    focal_map(cross_entropy_map(logits, labels), labels, gamma, ALL).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
