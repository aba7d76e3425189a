"""Tests of roiseg.evaluate.labels: digits of a size that can be read, and labels that don't hide each other."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roiseg.evaluate.labels import (
    DIGIT_PX,
    SHEET_PX,
    Rectangle,
    digit_px,
    draw_label,
    label_places,
    label_size,
    overlaps,
    text_size,
    touches,
    write,
)

SIZE = (16, 17)


@pytest.mark.parametrize("height", [DIGIT_PX, 14, 20, 40])
@pytest.mark.parametrize("text", ["1", "7", "0", "289"])
def test_digits_are_as_high_as_asked(text: str, height: int) -> None:
    canvas = np.zeros((100, 200, 3), dtype=np.uint8)
    write(canvas, text, (5, 20), height)
    rows, columns = np.nonzero(canvas.max(axis=2) > 100)
    assert height - 1 <= rows.max() - rows.min() + 1 <= height * 1.15
    assert rows.min() == pytest.approx(20, abs=2)
    assert columns.max() <= 5 + text_size(text, height)[0]


@pytest.mark.parametrize(
    ("hw", "expected"), [((SHEET_PX, 480), DIGIT_PX), ((60, 90), DIGIT_PX), ((3600, 4800), 10 * DIGIT_PX), ((480, 720), 15)]
)
def test_digits_grow_with_large_pictures_and_never_shrink(hw: tuple[int, int], expected: int) -> None:
    assert digit_px(hw) == expected


def test_a_label_fills_its_place_and_no_more() -> None:
    canvas = np.full((60, 90, 3), 100, dtype=np.uint8)
    width, height = label_size("12", DIGIT_PX)
    draw_label(canvas, "12", (10, 20, 10 + width, 20 + height), DIGIT_PX)
    changed = (canvas != 100).any(axis=2)
    assert changed[20 : 20 + height, 10 : 10 + width].all()
    assert changed.sum() == width * height


def test_first_choice_is_the_upper_left_corner() -> None:
    assert label_places([(40, 50, 200, 300)], [SIZE], (360, 480)) == [(40, 50, 56, 67)]


def test_small_boxes_have_theirs_above() -> None:
    assert label_places([(40, 50, 60, 90)], [SIZE], (360, 480)) == [(40, 33, 56, 50)]


def test_boxes_that_share_a_corner() -> None:
    found = label_places([(40, 50, 200, 300)] * 4, [SIZE] * 4, (360, 480))
    assert found == [(40, 50, 56, 67), (40, 33, 56, 50), (184, 50, 200, 67), (184, 33, 200, 50)]


def test_labels_stay_in_the_picture() -> None:
    assert label_places([(470, 350, 480, 360)], [SIZE], (360, 480)) == [(464, 333, 480, 350)]
    assert label_places([(0, 0, 20, 20)], [SIZE], (360, 480)) == [(0, 0, 16, 17)]


def test_a_full_picture_still_gets_all_its_labels() -> None:
    found = label_places([(0, 0, 30, 30)] * 3, [SIZE] * 3, (20, 30))
    assert len(found) == 3
    assert all(0 <= x0 and 0 <= y0 and x1 <= 30 and y1 <= 20 for x0, y0, x1, y1 in found)


def test_touching_isnt_overlapping() -> None:
    assert touches((0, 0, 5, 5), (5, 0, 8, 5))
    assert not overlaps((0, 0, 5, 5), (5, 0, 8, 5))
    assert overlaps((0, 0, 5, 5), (4, 4, 8, 8))
    assert not touches((0, 0, 5, 5), (6, 0, 8, 5))


@st.composite
def crowds(draw: st.DrawFn) -> list[Rectangle]:
    def box() -> Rectangle:
        x, y = draw(st.integers(0, 470)), draw(st.integers(0, 350))
        return x, y, draw(st.integers(x + 1, 480)), draw(st.integers(y + 1, 360))

    return [box() for _ in range(draw(st.integers(0, 40)))]


@settings(max_examples=40, deadline=None)
@given(crowds())
def test_no_label_covers_another(boxes: list[Rectangle]) -> None:
    found = label_places(boxes, [SIZE] * len(boxes), (360, 480))
    assert not any(overlaps(first, second) for first, second in combinations(found, 2))
    assert all((x1 - x0, y1 - y0) == SIZE for x0, y0, x1, y1 in found)
    assert all(0 <= x0 and 0 <= y0 and x1 <= 480 and y1 <= 360 for x0, y0, x1, y1 in found)


def test_as_many_people_as_coco_has_in_an_image() -> None:
    found = label_places([(200, 150, 260, 240)] * 289, [(25, 17)] * 289, (360, 540))
    assert not any(overlaps(first, second) for first, second in combinations(found, 2))
