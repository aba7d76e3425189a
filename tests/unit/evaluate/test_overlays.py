"""Tests of roiseg.evaluate.overlays and plots: what is painted where, and stable bytes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from roiseg.evaluate.labels import DIGIT_PX, label_size
from roiseg.evaluate.overlays import MASK_ALPHA, Person, draw_boxes, draw_masks, outline, tint, write_png
from roiseg.evaluate.palette import RED, instance_colour


def person(number: int, rows: slice, columns: slice, image_hw: tuple[int, int] = (60, 90)) -> Person:
    mask = np.zeros(image_hw, dtype=bool)
    mask[rows, columns] = True
    return Person(mask, np.array([columns.start, rows.start, columns.stop, rows.stop], dtype=np.float64), number)


@pytest.fixture
def grey() -> NDArray[np.uint8]:
    return np.full((60, 90, 3), 100, dtype=np.uint8)


def test_tint_by_hand(grey: NDArray[np.uint8]) -> None:
    where = np.zeros((60, 90), dtype=bool)
    where[10:20, 30:40] = True
    found = tint(grey, where, (0, 200, 50), 0.3)
    assert (found[where] == [70, 130, 85]).all()
    assert (found[~where] == 100).all()
    assert (grey == 100).all(), "the picture itself stays"


def test_outline_is_the_edge_of_the_region(grey: NDArray[np.uint8]) -> None:
    where = np.zeros((60, 90), dtype=bool)
    where[10:20, 30:40] = True
    edge = where.copy()
    edge[11:19, 31:39] = False
    np.testing.assert_array_equal((outline(grey, where, (1, 2, 3)) == [1, 2, 3]).all(axis=2), edge)


def test_masks_are_blended_and_outlined(grey: NDArray[np.uint8]) -> None:
    people = [person(1, slice(5, 25), slice(5, 35)), person(2, slice(30, 55), slice(50, 80))]
    found = draw_masks(grey, people)
    assert (grey == 100).all(), "the picture itself stays"
    for item, (y, x) in zip(people, ((15, 20), (40, 65)), strict=True):
        tint = np.array(instance_colour(item.number), dtype=float)
        np.testing.assert_allclose(found[y, x], 100 * (1 - MASK_ALPHA) + tint * MASK_ALPHA, atol=0.51)
        top, left = int(item.box_canvas[1]), int(item.box_canvas[0])
        assert found[top, left + 3].tolist() == tint.tolist(), "the outline is opaque"
    outside = ~(people[0].mask | people[1].mask)
    assert (found[outside] == 100).all()
    assert (found[15, 20] != found[40, 65]).any()


def test_empty_masks_and_nobody(grey: NDArray[np.uint8]) -> None:
    nobody = Person(np.zeros((60, 90), dtype=bool), np.array([1.0, 1.0, 5.0, 5.0]), 1)
    np.testing.assert_array_equal(draw_masks(grey, [nobody]), grey)
    np.testing.assert_array_equal(draw_masks(grey, []), grey)
    np.testing.assert_array_equal(draw_boxes(grey, []), grey)


def test_boxes_are_red_and_numbered() -> None:
    canvas = np.full((360, 480, 3), 100, dtype=np.uint8)
    found = draw_boxes(canvas, [person(7, slice(100, 300), slice(200, 400), (360, 480))])
    assert (canvas == 100).all()
    red = (found == np.array(RED)).all(axis=2)
    assert red[299, 200:400].all()
    assert red[100:300, 399].all()
    inside = np.zeros((360, 480), dtype=bool)
    inside[100:300, 200:400] = True
    assert not red[~inside].any()
    changed = (found != 100).any(axis=2)
    assert (changed & ~red).any(), "the number is written in white"
    other = draw_boxes(canvas, [person(8, slice(100, 300), slice(200, 400), (360, 480))])
    assert (other != found).any()


def test_boxes_beyond_the_image_stay_in_it(grey: NDArray[np.uint8]) -> None:
    whole = Person(np.ones((60, 90), dtype=bool), np.array([-5.0, -5.0, 200.0, 100.0]), 1)
    red = (draw_boxes(grey, [whole]) == np.array(RED)).all(axis=2)
    assert red[59, 10:].all()
    assert red[20:, 89].all()


def test_numbers_of_people_at_one_corner_are_all_whole() -> None:
    canvas = np.full((360, 480, 3), 100, dtype=np.uint8)
    people = [person(number, slice(100, 300), slice(200, 400), (360, 480)) for number in (1, 2, 3)]
    found = draw_boxes(canvas, people)
    width, height = label_size("1", DIGIT_PX)
    for number, (x, y) in enumerate(((200, 100), (200, 100 - height), (400 - width, 100)), start=1):
        alone = draw_boxes(
            np.full((360, 480, 3), 100, dtype=np.uint8), [person(number, slice(y, y + 100), slice(x, x + 60), (360, 480))]
        )
        np.testing.assert_array_equal(found[y : y + height, x : x + width], alone[y : y + height, x : x + width])


def test_a_number_that_found_no_room_at_its_box_has_a_line_to_it() -> None:
    people = [person(number, slice(100, 110), slice(200, 210), (360, 480)) for number in range(1, 31)]
    found = draw_boxes(np.full((360, 480, 3), 100, dtype=np.uint8), people)
    width, height = label_size("1", DIGIT_PX)
    red = (found == np.array(RED)).all(axis=2)
    assert red.sum() > 0.5 * 30 * width * height
    ring = cv2.dilate(red.astype(np.uint8), np.ones((3, 3), np.uint8))
    count, _ = cv2.connectedComponents(ring)
    assert count == 2, "labels, lines and boxes hang together; the rest is background"


def test_png_comes_back(tmp_path: Path, grey: NDArray[np.uint8]) -> None:
    write_png(tmp_path / "a" / "b.png", draw_masks(grey, [person(1, slice(5, 25), slice(5, 35))]))
    np.testing.assert_array_equal(
        np.asarray(cv2.imread(str(tmp_path / "a" / "b.png"))), draw_masks(grey, [person(1, slice(5, 25), slice(5, 35))])
    )


# --- plots ---
