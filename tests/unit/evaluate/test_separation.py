"""Tests of roiseg.evaluate.separation: who touches whom, and to whom a pixel goes."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from slow_figures import slow_separation

from roiseg.classes import Bools
from roiseg.evaluate.separation import NOBODY, owners, separation, touching
from roiseg.placed import Pasted, Placed, cut_out
from roiseg.types import Window

HW = (10, 14)


def block(top: int, bottom: int, left: int, right: int) -> Bools:
    mask = np.zeros(HW, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def said(mask: Bools, probability: float | NDArray[np.float32]) -> Pasted:
    """A prediction whose window is the whole image."""
    values = np.broadcast_to(np.asarray(probability, dtype=np.float32), mask.shape)
    window = Window(0, mask.shape[0], 0, mask.shape[1])
    return Pasted(Placed(window, mask), np.ascontiguousarray(values), 0.5, mask.astype(np.float32))


def counted(annotated: Sequence[Bools], predicted: Sequence[Pasted], ids: Sequence[int] | None = None) -> list[list[int]]:
    numbers = np.array(range(len(annotated)) if ids is None else ids, dtype=np.int64)
    found: list[list[int]] = separation([cut_out(mask) for mask in annotated], predicted, numbers, HW).tolist()
    return found


LEFT, RIGHT = block(2, 6, 1, 5), block(2, 6, 5, 9)
"""Two people of 16 pixels, side by side."""


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        pytest.param(block(2, 6, 4, 8), True, id="overlap"),
        pytest.param(RIGHT, True, id="side by side"),
        pytest.param(block(6, 9, 5, 7), True, id="at a corner"),
        pytest.param(block(0, 2, 1, 5), True, id="above"),
        pytest.param(block(2, 6, 6, 8), False, id="a pixel between"),
        pytest.param(block(7, 9, 1, 5), False, id="a row between"),
        pytest.param(block(0, 0, 0, 0), False, id="nobody"),
    ],
)
def test_who_touches(second: Bools, expected: bool) -> None:
    for pair in ((LEFT, second), (second, LEFT)):
        assert touching([cut_out(mask) for mask in pair]).tolist() == [expected] * 2


def test_boxes_that_meet_arent_masks_that_touch() -> None:
    first, second = block(0, 8, 0, 1) | block(7, 8, 0, 9), block(0, 3, 4, 9)
    assert touching([cut_out(first), cut_out(second)]).tolist() == [False, False]


def test_a_chain_touches_as_one() -> None:
    row = [cut_out(block(0, 2, left, left + 2)) for left in (0, 2, 4, 10)]
    assert touching(row).tolist() == [True, True, True, False]
    assert touching([]).tolist() == []


def test_everybody_has_their_own_pixels() -> None:
    assert counted([LEFT, RIGHT], [said(LEFT, 0.9), said(RIGHT, 0.9)]) == [[16, 16], [16, 16]]


def test_people_swapped() -> None:
    assert counted([LEFT, RIGHT], [said(RIGHT, 0.9), said(LEFT, 0.9)]) == [[0, 16], [0, 16]]


def test_everybody_claimed_by_the_surer_one() -> None:
    both = LEFT | RIGHT
    assert counted([LEFT, RIGHT], [said(both, 0.9), said(both, 0.6)]) == [[16, 16], [0, 16]]


def test_a_pixel_that_nobody_claims_isnt_right() -> None:
    assert counted([LEFT, RIGHT], [said(block(2, 4, 1, 5), 0.9), said(block(0, 0, 0, 0), 0.9)]) == [[8, 16], [0, 16]]


def test_a_shared_pixel_is_right_for_either() -> None:
    first, second = block(2, 6, 1, 6), block(2, 6, 4, 9)
    assert counted([first, second], [said(first, 0.9), said(second, 0.6)]) == [[20, 20], [20, 20]]
    assert counted([first, second], [said(first, 0.6), said(second, 0.9)]) == [[20, 20], [20, 20]]


def test_people_by_themselves_dont_count() -> None:
    alone = block(8, 10, 10, 14)
    assert counted([LEFT, RIGHT, alone], [said(LEFT, 0.9), said(RIGHT, 0.9), said(LEFT, 0.5)])[2] == [0, 0]
    assert counted([LEFT, alone], [said(LEFT, 0.9), said(alone, 0.9)]) == [[0, 0], [0, 0]]


def test_somebody_further_off_may_take_a_pixel() -> None:
    alone = block(8, 10, 10, 14)
    assert counted([LEFT, RIGHT, alone], [said(LEFT, 0.5), said(RIGHT, 0.9), said(LEFT, 0.7)])[0] == [0, 16]


def test_the_lower_id_has_a_pixel_of_equal_claims() -> None:
    both = LEFT | RIGHT
    predicted = [said(both, 1.0), said(both, 1.0)]
    assert counted([LEFT, RIGHT], predicted, [7, 3]) == [[0, 16], [16, 16]]
    assert counted([LEFT, RIGHT], predicted, [3, 7]) == [[16, 16], [0, 16]]


def test_owners_by_hand() -> None:
    mask = np.array([[True, True, False]])
    right = np.array([[True, False]])
    shifted = Pasted(Placed(Window(0, 1, 1, 3), right), np.array([[0.6, 0.9]], dtype=np.float32), 0.5, right.astype(np.float32))
    assert owners([said(mask, 0.5), shifted], np.array([0, 1]), (1, 3)).tolist() == [[0, 1, NOBODY]]


@settings(max_examples=200)
@given(seed=st.integers(0, 10**9), people=st.integers(0, 4))
def test_is_the_slow_one(seed: int, people: int) -> None:
    rng = np.random.default_rng(seed)
    annotated, predicted = (np.zeros((people, *HW), dtype=bool) for _ in range(2))
    for number in range(people):
        for masks in (annotated, predicted):
            (top, bottom), (left, right) = (np.sort(rng.integers(0, size + 1, 2)) for size in HW)
            masks[number, top:bottom, left:right] = rng.random((bottom - top, right - left)) < 0.8
    probability = rng.choice([0.4, 0.6, 0.8], (people, *HW)).astype(np.float32)
    ids = rng.permutation(people).tolist()
    answers = [said(mask, values) for mask, values in zip(predicted, probability, strict=True)]
    expected = slow_separation(annotated, predicted, probability, ids)
    found = counted(list(annotated), answers, ids)
    assert found == [list(pair) for pair in expected]
    order = rng.permutation(people)
    turned = counted([annotated[number] for number in order], [answers[number] for number in order], [ids[n] for n in order])
    assert turned == [found[number] for number in order], "the order of the ROIs makes no difference"
