"""Tests of roiseg.evaluate.sheets: sizes, and what stands where."""

import numpy as np
import pytest

from roiseg.evaluate.labels import SHEET_PX
from roiseg.evaluate.overlays import Picture, draw_heat
from roiseg.evaluate.sheets import (
    BAR_PX,
    GAP,
    GROUND,
    LINE_PX,
    legend,
    shown,
    side_by_side,
    stacked,
    table,
    text_line,
    widened,
    with_bar,
)


def plain(height: int, width: int, value: int = 100) -> Picture:
    return np.full((height, width, 3), value, dtype=np.uint8)


@pytest.mark.parametrize(("image_hw", "expected"), [((480, 640), (360, 480)), ((640, 480), (360, 270)), ((240, 330), (360, 495))])
def test_images_are_shown_360_pixels_high(image_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert SHEET_PX == 360
    found = shown(plain(*image_hw))
    assert found.shape == (*expected, 3)
    assert (found == 100).all()


def test_a_narrow_image_keeps_a_column() -> None:
    assert shown(plain(2000, 1)).shape == (360, 1, 3)


def test_side_by_side_and_stacked() -> None:
    row = side_by_side([plain(20, 30), plain(20, 10, 200)])
    assert row.shape == (20, 40 + GAP, 3)
    assert (row[:, 30 : 30 + GAP] == GROUND).all()
    assert (row[:, 30 + GAP :] == 200).all()
    found = stacked([plain(5, 60, 7), row])
    assert found.shape == (25 + 2 * GAP, 60, 3)
    np.testing.assert_array_equal(found[5 + GAP : 25 + GAP], widened(row, 60))
    assert (found[5 + GAP : 25 + GAP, 40 + GAP :] == GROUND).all()


def test_a_long_title_isnt_cut() -> None:
    long = text_line("epoch 100: miou_fg_roi 0.1234, and more than a narrow picture is wide")
    assert stacked([long, plain(20, 30)]).shape[1] == long.shape[1] > 300
    assert (long[:, -3:] == GROUND).all(), "the text ends before the line does"
    assert (long == 255).any()


def test_a_table_has_its_columns_below_their_captions() -> None:
    lines, first, second = table([[plain(20, 200), plain(20, 30, 50)], [plain(40, 90), plain(40, 60, 60)]], ["left", "right"])
    assert lines.shape[0] == LINE_PX
    assert lines.shape[1] == first.shape[1] == second.shape[1]
    at = 200 + GAP
    assert (first[:, at : at + 30] == 50).all()
    assert (second[:, at : at + 60] == 60).all()
    assert (second[:, 90:at] == GROUND).all()
    assert (lines[:, :at] == 255).any()
    assert (lines[:, at:] == 255).any()


def test_legend_has_a_patch_before_each_text() -> None:
    found = legend([((1, 2, 3), "one"), ((4, 5, 6), "two")])
    patches = [np.nonzero((found == np.array(colour)).all(axis=2)) for colour in ((1, 2, 3), (4, 5, 6))]
    assert [len(rows) for rows, _ in patches] == [121, 121]
    between = found[:, patches[0][1].max() + 1 : patches[1][1].min()]
    assert (between == 255).any()


def test_the_bar_runs_from_white_down_to_black() -> None:
    heat = draw_heat(np.zeros((SHEET_PX, 50), dtype=np.float32))
    found = with_bar(heat)
    bar = found[:, 50 + GAP : 50 + GAP + BAR_PX]
    assert (bar[0] == 255).all()
    assert (bar[-1] == 0).all()
    assert (np.diff(bar[:, 0].astype(int).sum(axis=1)) <= 0).all()
    numbers = found[:, 50 + 2 * GAP + BAR_PX :].min(axis=2)
    rows = np.nonzero(numbers.max(axis=1) > 200)[0]
    groups = np.split(rows, np.nonzero(np.diff(rows) > 1)[0] + 1)
    assert len(groups) == 5, "one number for each quarter"
    for group, step in zip(groups, (0, 0.25, 0.5, 0.75, 1), strict=True):
        assert float(group.mean()) == pytest.approx(step * (SHEET_PX - 1), abs=8)


def test_heat_by_hand() -> None:
    found = draw_heat(np.array([[0.0, 0.33, 0.74, 1.0, 1.5, -1.0]], dtype=np.float32))[0].astype(int)
    black, red, yellow, white, above, below = found
    assert black.tolist() == below.tolist() == [0, 0, 0]
    assert white.tolist() == above.tolist() == [255, 255, 255]
    assert red[2] > 200
    assert red[:2].max() < 20
    assert yellow[1:].min() > 200
    assert yellow[0] < 60
