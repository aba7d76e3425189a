"""Tests of roiseg.losses.edge: the Laplacian by hand and against a loop, true edges of each source, and written-out losses."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_factory import targets_of
from torch import Tensor

from roiseg.errors import ParamsError
from roiseg.losses.edge import SLACK, EdgeParams, edge_loss, edges, laplacian
from roiseg.losses.region import IGNORE


def params_of(**changes: object) -> EdgeParams:
    values: dict[str, Any] = {"weight": 1.0, "form": "l1", "source": "laplacian", "distractors": False}
    return EdgeParams.parse(values | changes, "loss.edge")


def certain(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float() * 80


def square(label: int = 1) -> Tensor:
    labels = torch.zeros(1, 6, 8, dtype=torch.int64)
    labels[0, 1:5, 2:6] = label
    return labels


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5))
def test_laplacian_matches_reference(seed: int, height: int, width: int) -> None:
    values = np.random.default_rng(seed).random((height, width))
    expected = np.zeros((height, width))
    for row, column in np.ndindex(height, width):
        for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            if 0 <= row + down < height and 0 <= column + right < width:
                expected[row, column] += values[row, column] - values[row + down, column + right]
    np.testing.assert_allclose(laplacian(torch.from_numpy(values)).numpy(), expected, atol=1e-12)


def test_edges_of_a_step() -> None:
    assert edges(torch.tensor([[0.0, 0.0, 1.0, 1.0]])).tolist() == [[0, 1, 1, 0]]
    assert edges(torch.tensor([[0.0, 0.25, 1.0, 1.0]])).tolist() == [[0.25, 0.5, 0.75, 0]]


@pytest.mark.parametrize("source", ["laplacian", "distance"])
def test_a_true_mask_costs_nothing_but_corners(source: str) -> None:
    """The distance takes the 4 pixels off the corners of the square, which have no neighbour across the outline."""
    labels = square()
    found = float(edge_loss(certain(labels), targets_of(labels), params_of(source=source)))
    assert found == pytest.approx(0 if source == "laplacian" else 4 / 48, abs=1e-6)


def test_absolute_difference_by_hand() -> None:
    """Nothing said where 12 pixels within and 16 without are edges, of 48."""
    labels = square()
    found = float(edge_loss(certain(torch.zeros_like(labels)), targets_of(labels), params_of()))
    assert found == pytest.approx(28 / 48, abs=1e-6)


def test_cross_entropy_by_hand() -> None:
    """28 missed edges at log 1/SLACK, 20 pixels rightly none at log 1/(1 - SLACK)."""
    labels = square()
    found = float(edge_loss(certain(torch.zeros_like(labels)), targets_of(labels), params_of(form="bce")))
    assert found == pytest.approx(-(28 * math.log(SLACK) + 20 * math.log(1 - SLACK)) / 48, rel=1e-4)


@pytest.mark.parametrize("source", ["laplacian", "distance"])
def test_outlines_of_others_are_edges_on_request(source: str) -> None:
    labels = square(label=2)
    nothing = certain(torch.zeros_like(labels))
    without, with_others = (
        float(edge_loss(nothing, targets_of(labels), params_of(distractors=answer, source=source))) for answer in (False, True)
    )
    assert without == pytest.approx(0, abs=1e-6)
    assert with_others == pytest.approx((28 if source == "laplacian" else 32) / 48, abs=1e-6)
    assert float(edge_loss(certain(labels), targets_of(labels), params_of(distractors=True))) == pytest.approx(0, abs=1e-6)


def test_ignored_pixels_count_for_nothing() -> None:
    labels = square()
    target = targets_of(labels)
    labels[0, :, 4:] = IGNORE
    found = float(edge_loss(certain(torch.zeros_like(labels)), target, params_of()))
    assert found == pytest.approx(14 / 24, abs=1e-6)


def test_a_source_that_is_not_known() -> None:
    with pytest.raises(ParamsError, match=r"loss\.edge\.source: value is 'sobel'"):
        params_of(source="sobel")
