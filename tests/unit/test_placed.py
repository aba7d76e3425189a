"""Tests of roiseg.placed: windows say the same as whole masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roiseg.classes import Bools
from roiseg.placed import Placed, confidence, cut_out, meeting, paste_target, shared_pixels
from roiseg.types import Window


def random_mask(rng: np.random.Generator, hw: tuple[int, int]) -> Bools:
    """In a part of the grid, which may be nothing."""
    mask = np.zeros(hw, dtype=bool)
    (top, bottom), (left, right) = (sorted(rng.integers(0, size + 1, 2).tolist()) for size in hw)
    mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) < 0.5
    return mask


@given(seed=st.integers(0, 10**9), height=st.integers(1, 9), width=st.integers(1, 12))
def test_windows_are_as_good_as_whole_masks(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (random_mask(rng, (height, width)) for _ in range(2))
    found, other = cut_out(first), cut_out(second)
    np.testing.assert_array_equal(found.whole((height, width)), first)
    assert found.pixels == first.sum()
    assert shared_pixels(found, other) == shared_pixels(other, found) == (first & second).sum()
    assert (found.whole((height, width)) == first).all()


def test_cut_out_by_hand() -> None:
    mask = np.zeros((5, 8), dtype=bool)
    mask[1, 2] = mask[3, 6] = True
    found = cut_out(mask)
    assert found.window == Window(top=1, bottom=4, left=2, right=7)
    assert found.mask.shape == (3, 5)
    assert cut_out(mask[:1]).window == (0, 0, 0, 0)


def test_windows_that_dont_meet_share_nothing() -> None:
    assert meeting(Window(0, 4, 0, 4), Window(2, 9, 3, 5)) == (2, 4, 3, 4)
    assert meeting(Window(0, 4, 0, 4), Window(4, 9, 6, 8)) == (4, 4, 6, 6)
    far = Placed(Window(4, 6, 6, 8), np.ones((2, 2), dtype=bool))
    assert shared_pixels(Placed(Window(0, 4, 0, 4), np.ones((4, 4), dtype=bool)), far) == 0


@pytest.mark.parametrize("box", [[2.0, 4.0, 10.0, 9.0], [-4.0, 6.0, 4.0, 16.0], [30.0, 30.0, 40.0, 40.0]])
def test_the_probability_lies_where_the_mask_does(box: list[float]) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32) * 3
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    found = paste_target(probabilities, np.array(box), (12, 20))
    assert found.probability.shape == found.placed.mask.shape
    assert found.probability.dtype == np.float32
    assert (found.probability[found.placed.mask] > 1 / 3).all(), "more than both others"
    won = probabilities.argmax(axis=0) == 1
    assert found.score == pytest.approx(float((probabilities[1] * (1 - probabilities[2]))[won].mean()))


def test_a_cell_that_is_a_pixel_keeps_its_probability() -> None:
    probabilities = np.random.default_rng(1).dirichlet([1, 1, 1], (5, 8)).transpose(2, 0, 1).astype(np.float32)
    found = paste_target(probabilities, np.array([2.0, 4.0, 10.0, 9.0]), (12, 20))
    assert found.placed.window == Window(top=4, bottom=9, left=2, right=10)
    np.testing.assert_allclose(found.probability, probabilities[1], atol=1e-6)
    np.testing.assert_array_equal(found.placed.mask, probabilities.argmax(axis=0) == 1)
    lead = probabilities[1] - np.maximum(probabilities[0], probabilities[2])
    np.testing.assert_allclose(found.claim, 0.5 + lead / 2, atol=1e-6)


def test_confidence_by_hand() -> None:
    """Three cells: sure, sure of the target beside somebody else, and somebody else's."""
    probabilities = np.array([[[0.0, 0.1, 0.1]], [[1.0, 0.5, 0.3]], [[0.0, 0.4, 0.6]]], dtype=np.float32)
    assert confidence(probabilities) == pytest.approx((1.0 * 1.0 + 0.5 * 0.6) / 2)


def test_confidence_of_nobody_is_zero() -> None:
    """Nowhere ahead: behind another class everywhere, or only level with it."""
    behind = np.array([[[0.6]], [[0.3]], [[0.1]]], dtype=np.float32)
    level = np.array([[[0.5]], [[0.5]], [[0.0]]], dtype=np.float32)
    assert confidence(behind) == confidence(level) == 0
