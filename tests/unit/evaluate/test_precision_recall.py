"""Tests of roiseg.evaluate.precision_recall: curves by hand, order of equal scores, and weights that stand for copies."""

import numpy as np
import pytest
from numpy.typing import NDArray

from roiseg.evaluate.precision_recall import IOUS, RECALLS, Matches, Ranked


def ranked(matched: list[bool], ignored: list[bool] | None = None, images: list[int] | None = None) -> Ranked:
    """The same at each IoU."""
    count, thresholds = len(matched), len(IOUS)
    return Ranked(
        np.array(images or [0] * count, dtype=np.int64),
        np.repeat(np.array([matched], dtype=bool), thresholds, axis=0),
        np.repeat(np.array([ignored or [False] * count], dtype=bool), thresholds, axis=0),
    )


def test_curve_by_hand() -> None:
    """Right, wrong, right, of 4 people: precision 1 up to recall 1/4, then 2/3 up to 2/4, then nothing."""
    precision, recall = ranked([True, False, True]).curves(np.ones(1), 4)
    assert precision.shape == (len(IOUS), len(RECALLS))
    expected = np.where(RECALLS <= 0.25, 1, np.where(RECALLS <= 0.5, 2 / 3, 0))
    np.testing.assert_allclose(precision, np.repeat(expected[None], len(IOUS), axis=0), atol=1e-12)
    np.testing.assert_array_equal(recall, 0.5)


def test_what_is_ignored_counts_for_nothing() -> None:
    whole = ranked([True, True, False, True], [False, True, True, False])
    for found, expected in zip(whole.curves(np.ones(1), 2), ranked([True, True]).curves(np.ones(1), 2), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_no_results() -> None:
    precision, recall = ranked([]).curves(np.ones(3), 2)
    assert not precision.any()
    assert not recall.any()


@pytest.mark.parametrize("seed", range(5))
def test_weights_stand_for_copies(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, matched = rng.integers(0, 6, 40), rng.random(40) < 0.6
    weights = rng.integers(0, 4, 6).astype(np.float64)
    copies = np.repeat(np.arange(40), weights[images].astype(np.int64))
    found = ranked(matched.tolist(), images=images.tolist()).curves(weights, 60)
    expected = ranked(matched[copies].tolist()).curves(np.ones(1), 60)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_curves_are_to_the_last_bit_those_of_the_formula_at_every_result(seed: int) -> None:
    """Right, wrong and ignored ones, images that weren't drawn, and an IoU that nothing reaches."""
    rng = np.random.default_rng(seed)
    images, weights = rng.integers(0, 8, 50), rng.integers(0, 3, 8).astype(np.float64)
    matched = rng.random((len(IOUS), 50)) < np.linspace(0.8, 0, len(IOUS))[:, None]
    ignored = rng.random((len(IOUS), 50)) < 0.2
    precision, recall = Ranked(images, matched, ignored).curves(weights, 70)
    for number in range(len(IOUS)):
        counted = weights[images] * ~ignored[number]
        right, wrong = np.cumsum(counted * matched[number]), np.cumsum(counted * ~matched[number])
        best = np.maximum.accumulate((right / (right + wrong + np.spacing(1)))[::-1])[::-1]
        assert precision[number].tolist() == np.append(best, 0)[np.searchsorted(right / 70, RECALLS)].tolist()
        assert recall[number] == right[-1] / 70


def part(image: int, scores: list[float], mark: int) -> Matches:
    """Results of an image; the first `mark` have found somebody."""
    count = len(scores)
    matched: NDArray[np.bool_] = np.zeros((count, 1, len(IOUS)), dtype=bool)
    matched[:mark] = True
    return Matches(np.full(count, image, dtype=np.int64), np.arange(count), np.array(scores), matched, ~matched)


def test_equal_scores_come_in_the_order_of_images_and_ranks() -> None:
    parts = [part(1, [0.9, 0.5, 0.5], 1), part(0, [0.9, 0.5], 2)]
    for order in (parts, parts[::-1]):
        found = Matches.together(order, 1)
        assert found.images.tolist() == [0, 1, 0, 1, 1]
        assert found.ranks.tolist() == [0, 0, 1, 1, 2]
        assert found.first(2, 0).images.tolist() == [0, 1, 0, 1]
        assert found.first(2, 0).matched[0].tolist() == [True, True, True, False]
        assert found.first(2, 0).ignored[0].tolist() == [False, False, False, True]


def test_nothing_together() -> None:
    found = Matches.together([], 4).first(100, 3)
    assert found.matched.shape == found.ignored.shape == (len(IOUS), 0)
