"""Tests of roiseg.snapper.drawing and sheets: which lines are dashed, and where a box lies in what is shown of its image."""

from dataclasses import replace

import numpy as np
import pytest
from snapped_factory import chosen, snap_results

from roiseg.classes import Bools
from roiseg.evaluate.overlays import Picture
from roiseg.evaluate.pictures import FixedPicture
from roiseg.evaluate.sheets import LINE_PX
from roiseg.geometry import Floats
from roiseg.snapper.drawing import DASH, SNAPPED, draw_edges
from roiseg.snapper.sheets import COLUMNS, IMAGE_PX, SHOWN, TILE_HW, Shown, choose, draw_boxes, draw_images, draw_sheet, view_around
from roiseg.snapper.windows import EDGES

BOX = np.array([10.0, 5.0, 50.0, 30.0])
GREY = 100


def lines(box: Floats, thickness: int = 1, weak: tuple[bool, ...] = (False,) * 4) -> Bools:
    """Where a box is drawn on a canvas of 40 x 60."""
    canvas = np.zeros((40, 60, 3), dtype=np.uint8)
    draw_edges(canvas, box, SNAPPED, thickness, weak)
    return np.asarray((canvas == SNAPPED).all(axis=2))


def test_edges_lie_on_the_box() -> None:
    expected = np.zeros((40, 60), dtype=bool)
    expected[5:31, [10, 50]] = True
    expected[[5, 30], 10:51] = True
    assert (lines(BOX) == expected).all()


@pytest.mark.parametrize("edge", range(4), ids=EDGES)
def test_a_weak_edge_is_dashed_and_no_other(edge: int) -> None:
    found = lines(BOX, weak=tuple(place == edge for place in range(4)))
    along = {0: found[6:30, 10], 1: found[5, 11:50], 2: found[6:30, 50], 3: found[30, 11:50]}
    for place, line in along.items():
        assert line.all() == (place != edge)
    changes = np.flatnonzero(np.diff(along[edge].astype(int)))
    assert (np.diff(changes) == DASH).all()


def test_what_lies_outside_is_drawn_on_the_border() -> None:
    found = lines(np.array([-20.0, -3.0, 60.0, 45.0]), weak=(True, False, False, False))
    assert found[0].all()
    assert found[-1].all()
    assert found[:, -1].all()
    assert not found[1:-1, 0].all()


def shown_results(count: int = 30) -> Shown:
    results = snap_results(count)
    return Shown(results, 1 - results.entropy, 0.5)


def test_a_snapped_edge_that_is_right_has_a_white_core() -> None:
    one = chosen(snap_results(1), np.zeros(1, dtype=np.int64))
    right = Shown(replace(one, snapped=one.truth), np.ones((1, 4)), 0.5)
    drawn = draw_boxes(np.full((300, 400, 3), GREY, np.uint8), right, [0], np.array([0.0, 0.0, 400.0, 300.0]))
    x, middle = round(float(one.truth[0, 0])), round(float(one.truth[0, [1, 3]].mean()))
    assert drawn[middle, x].tolist() == [255, 255, 255]
    assert drawn[middle, x - 1].tolist() == drawn[middle, x + 1].tolist() == list(SNAPPED)


def test_boxes_are_drawn_where_they_are_in_a_part_of_the_image() -> None:
    """The same box on the whole image, and on its lower right quarter at twice the size."""
    shown = shown_results(1)
    shown = replace(shown, results=replace(shown.results, truth=np.array([[220.0, 170.0, 300.0, 260.0]])))
    part = draw_boxes(np.full((300, 400, 3), GREY, np.uint8), shown, [0], np.array([200.0, 150.0, 400.0, 300.0]))
    assert part[130, 40].tolist() == part[130, 200].tolist() == [255, 255, 255]


def test_the_view_holds_all_and_ends_with_pixels() -> None:
    """An image of 300 x 400, known at a quarter of its size; a margin of .15 of 80 x 40."""
    view = view_around(np.array([[100.0, 60.0, 180.0, 80.0], [110.0, 50.0, 150.0, 90.0]]), (300, 400), (75, 100))
    assert view.tolist() == [88, 44, 192, 96]
    whole = view_around(np.array([[-50.0, -50.0, 500.0, 500.0]]), (300, 400), (75, 100))
    assert whole.tolist() == [0, 0, 400, 300]
    small = view_around(np.array([[399.9, 299.9, 400.0, 300.0]]), (300, 400), (75, 100))
    assert small.tolist() == [396, 296, 400, 300]


def test_choice() -> None:
    shown = shown_results()
    found = choose(shown)
    gains = shown.gain
    assert [len(places) for places in found.values()] == [SHOWN] * 3
    assert gains[found["best"]].tolist() == sorted(gains, reverse=True)[:SHOWN]
    assert gains[found["worst"]].tolist() == sorted(gains)[:SHOWN]
    assert found["least_sure"][0] == shown.confidence.mean(axis=1).argmin()
    same = replace(shown, confidence=np.full((30, 4), 0.5))
    assert choose(same)["least_sure"].tolist() == list(range(SHOWN))
    assert [len(places) for places in choose(shown_results(2)).values()] == [2] * 3


def test_sheets_have_a_place_for_every_box() -> None:
    shown = shown_results()
    asked = []

    def picture(row: int) -> tuple[int, Picture]:
        asked.append(row)
        return 100 + row, np.full((150, 200, 3), GREY, dtype=np.uint8)

    places = choose(shown)["best"][: COLUMNS + 1]
    sheet = draw_sheet("best", shown, places, picture)
    assert asked == shown.results.rows[places].tolist()
    assert sheet.shape[0] > 2 * (TILE_HW[0] + 3 * LINE_PX)
    assert sheet.shape[1] >= COLUMNS * TILE_HW[1]
    # The photographs show: a sheet is more than its ground.
    assert (sheet == GREY).all(axis=2).any()


def test_whole_images_show_their_boxes_and_images_without_any_are_left_as_they_are() -> None:
    shown = shown_results(5)
    pixels = np.full((300, 400, 3), GREY, dtype=np.uint8)
    drawn = draw_images([FixedPicture(0, pixels), FixedPicture(7, pixels), FixedPicture(0, pixels)], shown)
    height = IMAGE_PX
    assert drawn.shape[0] >= 2 * height
    first, second = drawn[-2 * height - 8 :, :640], drawn[-2 * height - 8 : -height - 8, 644:1284]
    assert (first == SNAPPED).all(axis=2).any()
    assert set(np.unique(second)) <= {GREY, 32}
