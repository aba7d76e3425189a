"""Tests of roiseg.overlap: every pixel goes to one person, by the rule, however the people lie."""

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from roiseg.overlap import resolve
from roiseg.placed import Pasted, Placed
from roiseg.types import HW, Window


def random_person(rng: np.random.Generator, image_hw: HW) -> Pasted:
    """In a window that may be empty, with few levels of score and probability, so that there are draws."""
    (top, bottom), (left, right) = (sorted(rng.integers(0, size + 1, 2).tolist()) for size in image_hw)
    shape = bottom - top, right - left
    probability = rng.choice(np.array([0.25, 0.5, 1], dtype=np.float32), shape)
    score = float(rng.choice([0.0, 0.5, 1.0]))
    claim = rng.random(shape, dtype=np.float32)
    return Pasted(Placed(Window(top, bottom, left, right), claim > 0.5), probability, score, claim)


def stacked(people: Sequence[Pasted], image_hw: HW) -> NDArray[np.bool_]:
    """The rule, with everybody's maps at the size of the image."""
    values = np.full((len(people) + 1, *image_hw), -1.0, dtype=np.float32)
    for number, person in enumerate(people, start=1):
        values[number][person.placed.slices] = np.where(person.placed.mask, np.float32(person.score) * person.probability, -1)
    owner = values.argmax(axis=0)
    return np.stack([owner == number for number in range(1, len(people) + 1)])


@given(seed=st.integers(0, 10**9), count=st.integers(1, 5), height=st.integers(1, 9), width=st.integers(1, 12))
def test_resolve_matches_reference(seed: int, count: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    people = [random_person(rng, (height, width)) for _ in range(count)]
    found = resolve(people)
    whole = np.stack([item.whole((height, width)) for item in found])
    np.testing.assert_array_equal(whole, stacked(people, (height, width)))
    claimed = np.any([person.placed.whole((height, width)) for person in people], axis=0)
    np.testing.assert_array_equal(whole.sum(axis=0), claimed)
    assert [item.window for item in found] == [person.placed.window for person in people]


def block(left: int, right: int, score: float, probability: float) -> Pasted:
    shape = 2, right - left
    claim = np.ones(shape, dtype=np.float32)
    return Pasted(Placed(Window(3, 5, left, right), claim > 0.5), np.full(shape, probability, dtype=np.float32), score, claim)


def test_score_and_probability_decide_together() -> None:
    weak, sure = block(0, 4, score=0.5, probability=1.0), block(2, 6, score=0.9, probability=0.6)
    first, second = resolve([weak, sure])
    assert (first.pixels, second.pixels) == (4, 8), "0.9 * 0.6 is more than 0.5 * 1"


def test_a_draw_goes_to_the_first() -> None:
    first, second = resolve([block(0, 4, 0.5, 0.8), block(2, 6, 0.8, 0.5)])
    assert (first.pixels, second.pixels) == (8, 4)


def test_a_claim_without_confidence_stands_where_nobody_else_claims() -> None:
    nothing, sure = resolve([block(0, 4, 0.0, 0.5), block(2, 6, 0.5, 0.5)])
    assert (nothing.pixels, sure.pixels) == (4, 8)


def test_empty() -> None:
    empty = np.zeros((0, 0), dtype=np.float32)
    nobody = Pasted(Placed(Window(9, 9, 4, 4), empty > 0), empty, 0.0, empty)
    assert resolve([]) == []
    assert resolve([nobody])[0].window == nobody.placed.window
    assert [item.pixels for item in resolve([nobody, block(0, 4, 1.0, 1.0)])] == [0, 8]


@pytest.mark.parametrize("count", [20, 200])
def test_memory_is_that_of_the_windows(count: int) -> None:
    """A crowd in an image of 1000 x 1000 pixels takes two maps of it and the answers, and no stack."""
    step = 1000 // count
    ones = np.ones((8, 1000), dtype=np.float32)
    people = [
        Pasted(Placed(Window(number * step, number * step + 8, 0, 1000), ones > 0), ones, 0.5, ones) for number in range(count - 1)
    ]
    tracemalloc.start()
    resolve(people)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 4 * 1000 * 1000
