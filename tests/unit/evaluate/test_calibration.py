"""Tests of roiseg.evaluate.calibration: bins by hand, a loop over pixels, and heads that know how sure they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roiseg.evaluate.calibration import BINS, Calibration


def ece(probability: list[float], target: list[bool]) -> float:
    found = Calibration()
    found.add(np.array(probability), np.array(target))
    return found.figures()["target_ece"]


def slow_ece(probability: list[float], target: list[bool]) -> float:
    """Bins with both ends compared, one after the other."""
    total = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        chosen = [place for place, value in enumerate(probability) if low < value <= high or (number == 0 and value == 0)]
        if chosen:
            sure = sum(probability[place] for place in chosen) / len(chosen)
            right = sum(target[place] for place in chosen) / len(chosen)
            total += len(chosen) / len(probability) * abs(right - sure)
    return total


@settings(max_examples=200)
@given(seed=st.integers(0, 10**9), height=st.integers(1, 6), width=st.integers(1, 9), parts=st.integers(1, 4))
def test_is_the_slow_one(seed: int, height: int, width: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.choice([rng.random((4, height, width)), rng.integers(0, 2, (4, height, width))]).astype(np.float32)
    target = rng.random(probability.shape) < 0.4
    found = Calibration()
    for part in np.array_split(rng.permutation(4), parts):
        found.add(probability[part], target[part])
    expected = slow_ece(probability.ravel().tolist(), target.ravel().tolist())
    assert found.figures() == {"target_ece": pytest.approx(expected, abs=1e-9)}


@pytest.mark.parametrize(
    ("probability", "target", "expected"),
    [
        pytest.param([1.0, 0.0], [True, False], 0, id="sure and right"),
        pytest.param([1.0, 0.0], [False, True], 1, id="sure and wrong"),
        pytest.param([0.5] * 4, [True, False, True, False], 0, id="knows that it doesn't know"),
        pytest.param([0.9] * 10, [True] * 7 + [False] * 3, 0.2, id="too sure"),
        pytest.param([0.01, 0.03, 0.99], [False, True, True], (2 * 0.48 + 0.01) / 3, id="two in a bin"),
    ],
)
def test_by_hand(probability: list[float], target: list[bool], expected: float) -> None:
    assert ece(probability, target) == pytest.approx(expected)


def test_a_bin_holds_its_upper_end() -> None:
    found = Calibration()
    found.add(np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 2 / 15, 1.0]), np.array([False, True, True, False, True]))
    assert [(row["low"], row["pixels"]) for row in found.rows()] == [(0.0, 2), (0.066667, 2), (0.933333, 1)]


def test_rows_are_a_reliability_curve() -> None:
    found = Calibration()
    found.add(np.array([[0.70, 0.72], [0.05, 0.70]]), np.array([[True, False], [False, True]]))
    assert found.rows() == [
        {"low": 0.0, "high": 0.066667, "probability": 0.05, "share": 0.0, "pixels": 1},
        {"low": 0.666667, "high": 0.733333, "probability": 0.706667, "share": 0.666667, "pixels": 3},
    ]


def test_a_head_that_is_as_often_right_as_it_says() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((50, 40, 30))
    found = Calibration()
    found.add(probability, rng.random(probability.shape) < probability)
    assert found.figures()["target_ece"] < 0.01
    assert len(found.rows()) == BINS


def test_nothing_counted() -> None:
    found = Calibration()
    found.add(np.zeros((0, 3, 4)), np.zeros((0, 3, 4), dtype=bool))
    assert (found.figures(), found.rows()) == ({}, [])
