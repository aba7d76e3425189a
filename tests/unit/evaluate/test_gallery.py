"""Tests of roiseg.evaluate.gallery: colours of each kind of error, sizes, and what stands on a sheet."""

import itertools

import cv2
import numpy as np
import pytest
from case_factory import roi_case

from roiseg.evaluate.gallery import (
    BLUE,
    CLASS_COLOURS,
    ERROR_COLOURS,
    PANEL_HW,
    TILE_WIDTH,
    caption,
    draw_errors,
    draw_labels,
    draw_sheet,
    draw_tile,
    encode_jpeg,
    error_shares,
    panels,
)
from roiseg.evaluate.labels import text_size
from roiseg.evaluate.palette import GREEN, to_lab
from roiseg.evaluate.sheets import GROUND, LINE_PX, framed


def test_errors_by_hand() -> None:
    """A white crop with all nine pairs of classes: right ones are dark grey, wrong ones have the colour of their error."""
    labels, predicted = (np.array(values, dtype=np.uint8) for values in np.indices((3, 3)))
    drawn = draw_errors(np.full((3, 3, 3), 255, dtype=np.uint8), labels, predicted)
    grey = np.array([140, 140, 140])
    for annotated, said in np.ndindex(3, 3):
        colour = np.array(ERROR_COLOURS[annotated, said][0]) * 0.85 + grey * 0.15 if annotated != said else grey
        np.testing.assert_allclose(drawn[annotated, said], colour, atol=1)


def test_every_error_has_a_colour_and_a_name_of_its_own() -> None:
    assert set(ERROR_COLOURS) == {(first, second) for first in range(3) for second in range(3) if first != second}
    colours = np.array([colour for colour, _ in ERROR_COLOURS.values()], dtype=np.uint8)
    lab = to_lab(colours)
    assert min(np.linalg.norm(first - second) for first, second in itertools.combinations(lab, 2)) > 25
    assert len({name for _, name in ERROR_COLOURS.values()}) == 6


def test_labels_by_hand() -> None:
    crop = np.zeros((9, 12, 3), dtype=np.uint8)
    labels = np.zeros((9, 12), dtype=np.uint8)
    labels[2:7, 1:6], labels[2:7, 6:11] = 1, 2
    drawn = draw_labels(crop, labels)
    for column, colour in ((1, GREEN), (6, BLUE)):
        np.testing.assert_array_equal(drawn[2, column], colour)
        np.testing.assert_allclose(drawn[4, column + 2], np.array(colour) * 0.45, atol=1)
    assert (drawn[labels == 0] == 0).all()
    assert set(CLASS_COLOURS) == {1, 2}


@pytest.mark.parametrize(
    ("crop_hw", "expected"), [((40, 30), (176, 132)), ((40, 10), (176, 44)), ((10, 40), (33, 132)), ((1, 900), (1, 132))]
)
def test_panels_fill_their_room_in_the_shape_of_the_crop(crop_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert PANEL_HW == (176, 132)
    found = panels(roi_case(crop=np.full((*crop_hw, 3), 100, dtype=np.uint8)))
    assert {panel.shape for panel in found} == {(*expected, 3)}
    assert draw_tile(roi_case(crop=np.zeros((*crop_hw, 3), dtype=np.uint8))).shape == (176, TILE_WIDTH, 3)


def test_tile_is_crop_annotation_prediction_errors() -> None:
    case = roi_case()
    tile = draw_tile(case)
    for place, panel in enumerate(panels(case)):
        left = place * (PANEL_HW[1] + 4)
        np.testing.assert_array_equal(tile[:, left : left + PANEL_HW[1]], framed(panel, PANEL_HW))
    crop, annotated, predicted, errors = panels(case)
    assert (annotated != crop).any()
    assert (predicted != annotated).any()
    missed = np.array(ERROR_COLOURS[1, 0][0])
    near = (np.abs(errors.astype(int) - missed).max(axis=2) < 40).mean()
    assert near == pytest.approx(6 / 48, abs=0.01), "two rows of three of the 8 x 6 cells"


def test_error_shares_by_hand() -> None:
    assert error_shares(roi_case()) == {"missed target": pytest.approx(6 / 48)}
    same = roi_case().labels
    assert error_shares(roi_case(predicted=same)) == {}


def test_caption() -> None:
    assert caption(roi_case()) == "annotation 7, image 5: target IoU 0.500"
    assert caption(roi_case(iou_nontarget=0.25)) == "annotation 7, image 5: target IoU 0.500, others 0.250"


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_sheet_holds_every_tile_in_two_columns(count: int) -> None:
    cases = [roi_case(number) for number in range(1, count + 1)]
    sheet = draw_sheet(cases, "worst")
    rows = -(-count // 2)
    assert sheet.shape[0] == 4 * (LINE_PX + 4) + rows * (LINE_PX + 4 + PANEL_HW[0] + 4 + 4)
    assert sheet.shape[1] <= 1200, "shown whole on a screen"
    top = 4 * (LINE_PX + 4) + LINE_PX + 4
    for place, case in enumerate(cases):
        y = top + place // 2 * (LINE_PX + PANEL_HW[0] + 12)
        x = place % 2 * (TILE_WIDTH + 16)
        np.testing.assert_array_equal(sheet[y : y + PANEL_HW[0], x : x + TILE_WIDTH], draw_tile(case))


def test_sheet_is_as_wide_as_its_longest_caption() -> None:
    case = roi_case(9_000_000_000_000_000, image_id=9_000_000_000_000_000, iou_nontarget=0.25)
    assert text_size(caption(case), 11)[0] > TILE_WIDTH
    assert draw_sheet([case, case], "worst").shape[1] > 2 * text_size(caption(case), 11)[0]


def test_framed_is_in_the_middle() -> None:
    found = framed(np.full((2, 4, 3), 200, dtype=np.uint8), (6, 8))
    assert (found[2:4, 2:6] == 200).all()
    assert (found == GROUND).sum() == 3 * (48 - 8)


def test_jpeg_comes_back_and_is_the_same_each_time() -> None:
    picture = draw_tile(roi_case())
    data = encode_jpeg(picture, 80)
    assert data == encode_jpeg(picture, 80)
    back = np.asarray(cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR))
    assert back.shape == picture.shape
    assert np.abs(back.astype(int) - picture).mean() < 20
    assert len(encode_jpeg(picture, 20)) < len(data)
