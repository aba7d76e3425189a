"""Tests of roiseg.losses.boundary: closed forms on a square and an edge, symmetry, and the flaws that must not come back."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from roiseg.errors import ParamsError
from roiseg.losses.boundary import (
    BoundaryCeParams,
    boundary_band,
    boundary_cross_entropy,
    boundary_weight_map,
    outline_distance,
    separation_weight_map,
)
from roiseg.losses.region import IGNORE
from roiseg.masks import label_distances

WIDTH, WEIGHT = 5.0, 2.0


def weights_of(labels: NDArray[np.uint8], width: float = WIDTH, weight: float = WEIGHT) -> Tensor:
    return boundary_weight_map(torch.from_numpy(label_distances(labels).boundary)[None], width, weight)[0]


def separation_of(labels: NDArray[np.uint8], near_px: float = 5.0, weight: float = 3.0) -> Tensor:
    found = label_distances(labels)
    return separation_weight_map(torch.from_numpy(found.target), torch.from_numpy(found.non_target), near_px, weight)


def half(height: int, width: int, edge: int) -> NDArray[np.uint8]:
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[:, edge:] = 1
    return labels


@pytest.mark.parametrize(("width", "weight"), [(5.0, 2.0), (3.0, 1.5), (1.0, 10.0)])
def test_straight_edge(width: float, weight: float) -> None:
    distance = np.abs(np.arange(20) + 0.5 - 8)
    expected = 1 + (weight - 1) * np.clip(1 - distance / width, 0, None)
    found = weights_of(half(6, 20, 8), width, weight).numpy()
    np.testing.assert_allclose(found, np.tile(expected, (6, 1)), atol=1e-5)


def test_written_out_edge() -> None:
    assert weights_of(half(1, 8, 4)).tolist()[0] == pytest.approx([1.3, 1.5, 1.7, 1.9, 1.9, 1.7, 1.5, 1.3])


def test_square() -> None:
    labels = np.zeros((18, 22), dtype=np.uint8)
    labels[5:11, 7:15] = 1
    rows, columns = np.mgrid[:18, :22]
    above, left = np.maximum(5 - rows, rows - 10), np.maximum(7 - columns, columns - 14)
    outside = np.hypot(np.maximum(above, 0), np.maximum(left, 0))
    inside = np.minimum(1 - above, 1 - left)
    distance = np.where(labels == 1, inside, outside) - 0.5
    expected = 1 + (WEIGHT - 1) * np.clip(1 - distance / WIDTH, 0, None)
    np.testing.assert_allclose(weights_of(labels).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_one_label_has_no_border(label: int) -> None:
    assert torch.equal(weights_of(np.full((7, 9), label, dtype=np.uint8)), torch.ones(7, 9))


@pytest.mark.parametrize("labels", [(0, 1), (0, 2), (1, 2)])
def test_two_labels_weight_the_border_and_not_the_person(labels: tuple[int, int]) -> None:
    """The original took the mask itself for the border then, and gave -1 for {0, 2} (spec 11.5, flaw ii)."""
    drawn = np.array(labels, dtype=np.uint8)[half(5, 24, 12)]
    found = weights_of(drawn)
    assert found.min() == 1
    assert found[:, [11, 12]].tolist() == [[pytest.approx(1.9)] * 2] * 5
    assert torch.equal(found[:, 18:], torch.ones(5, 6)), "the inside of a person counts once"
    assert torch.equal(found, weights_of(half(5, 24, 12))), "which labels meet makes no difference"


@given(st.integers(0, 10_000))
def test_weights_stay_between_one_and_the_weight(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.choice(3, size=int(rng.integers(1, 4)), replace=False)
    labels = rng.choice(kinds, size=(int(rng.integers(1, 9)), int(rng.integers(1, 9)))).astype(np.uint8)
    found = weights_of(labels)
    assert found.min() >= 1
    assert found.max() <= WEIGHT


def test_mirrored_labels_have_mirrored_weights() -> None:
    """The original's differences looked to one side only (spec 11.5, flaw iii)."""
    labels = np.random.default_rng(2).integers(0, 3, (9, 14)).astype(np.uint8).repeat(2, axis=0)
    for axis in (0, 1):
        flipped = np.ascontiguousarray(np.flip(labels, axis))
        torch.testing.assert_close(weights_of(flipped), weights_of(labels).flip(axis), atol=1e-5, rtol=0)
    torch.testing.assert_close(weights_of(np.ascontiguousarray(labels.T)), weights_of(labels).T, atol=1e-5, rtol=0)


def test_separation_only_between_people() -> None:
    """The original's distances to other people were all 0, so that every pixel got the factor (spec 11.5, flaw v)."""
    labels = np.zeros((4, 30), dtype=np.uint8)
    labels[:, 2:10], labels[:, 14:25] = 1, 2
    found = separation_of(labels)
    columns = np.arange(30)
    to_target = np.where(columns < 2, 2 - columns, np.maximum(columns - 9, 0))
    to_other = np.where(columns > 24, columns - 24, np.maximum(14 - columns, 0))
    expected = np.where((to_target < 5) & (to_other < 5), 3.0, 1.0)
    np.testing.assert_array_equal(found.numpy(), np.tile(expected, (4, 1)))
    assert expected[10:14].tolist() == [3.0] * 4
    assert expected[2] == expected[20] == 1


@pytest.mark.parametrize("label", [0, 1, 2])
def test_no_separation_without_two_people(label: int) -> None:
    labels = half(4, 10, 5) * np.uint8(label)
    assert torch.equal(separation_of(labels), torch.ones(4, 10))


def test_no_separation_between_people_far_apart() -> None:
    labels = np.zeros((3, 40), dtype=np.uint8)
    labels[:, :5], labels[:, 35:] = 1, 2
    assert torch.equal(separation_of(labels), torch.ones(3, 40))


# --- the outline of one label ---


@given(st.integers(0, 10_000))
def test_outline_distance_matches_reference(seed: int) -> None:
    """For each pixel, the nearest one on the other side of the outline, looked for among all."""
    labels = np.random.default_rng(seed).integers(0, 3, (5, 7)).astype(np.uint8)
    found = label_distances(labels)
    boundary = torch.from_numpy(found.boundary)
    for label, region in ((1, found.target), (2, found.non_target)):
        inside = labels == label
        distance = outline_distance(torch.from_numpy(region), boundary).numpy()
        for row, column in np.ndindex(*labels.shape):
            others = np.argwhere(inside != inside[row, column])
            if len(others):
                expected = np.sqrt(((others - [row, column]) ** 2).sum(axis=1).min()) - 0.5
                assert distance[row, column] == pytest.approx(expected, abs=1e-5)
            else:
                assert distance[row, column] > 9000


# --- boundary-aware cross entropy ---


def band_params(width: int = 3, factor: float = 2.0) -> BoundaryCeParams:
    return BoundaryCeParams.parse({"weight": 0.1, "width": width, "factor": factor}, "loss.boundary_ce")


def test_band_of_a_straight_edge() -> None:
    labels = torch.from_numpy(half(4, 12, 6).astype(np.int64))[None]
    assert boundary_band(labels, 3)[0].tolist() == [[column in (5, 6) for column in range(12)]] * 4
    assert boundary_band(labels, 5)[0].tolist() == [[column in (4, 5, 6, 7) for column in range(12)]] * 4


@given(st.integers(0, 10_000), st.sampled_from([3, 5, 7]))
def test_band_matches_reference(seed: int, width: int) -> None:
    """A pixel is in the band where the square around it holds two labels; ignored pixels are none."""
    labels = np.random.default_rng(seed).choice([0, 1, 2, IGNORE], size=(6, 9), p=[0.5, 0.3, 0.1, 0.1])
    found = boundary_band(torch.from_numpy(labels)[None], width)[0]
    reach = width // 2
    for row, column in np.ndindex(*labels.shape):
        square = labels[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
        assert bool(found[row, column]) == (len(set(square.ravel()) - {IGNORE}) > 1)


def test_boundary_cross_entropy_by_hand() -> None:
    """Even odds cost log 3 everywhere; 2 of 4 columns lie in the band and cost 3 times as much."""
    labels = torch.from_numpy(half(2, 4, 2).astype(np.int64))[None]
    logits = torch.zeros(1, 3, 2, 4)
    assert float(boundary_cross_entropy(logits, labels, band_params(3, 3.0))) == pytest.approx(math.log(3) * 2)
    labels[:, :, 0] = IGNORE
    assert float(boundary_cross_entropy(logits, labels, band_params(3, 3.0))) == pytest.approx(math.log(3) * 7 / 3)


def test_width_of_the_band_is_odd() -> None:
    with pytest.raises(ParamsError, match=r"loss\.boundary_ce\.width: value is 4; .*expected an odd number"):
        band_params(4)
