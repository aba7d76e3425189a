"""Tests of roiseg.evaluate.baselines: boxes and ellipses by hand, with and without padding."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from roiseg.classes import Labels
from roiseg.evaluate.baselines import BESIDE, beside, ellipse, whole_box, without_two
from roiseg.geometry import Floats, pad_boxes
from roiseg.types import HW

BOX = np.array([[0.2, 0.1, 0.6, 0.9]])


def test_whole_box_is_the_whole_roi_without_padding() -> None:
    boxes = np.random.default_rng(0).random((3, 4)) @ np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert (whole_box(boxes, boxes, (7, 5)) == 1).all()


def test_whole_box_in_a_padded_roi() -> None:
    """Half of the box on each side: the middle half of rows and columns is the box."""
    found = whole_box(pad_boxes(BOX, 0.5), BOX, (4, 8))
    expected = np.zeros((1, 4, 8), dtype=np.uint8)
    expected[0, 1:3, 2:6] = 1
    np.testing.assert_array_equal(found, expected)


def test_a_cell_belongs_to_the_box_by_its_centre() -> None:
    """Of cells a quarter wide, the first has its centre at 1/8."""
    rois = np.array([[0.0, 0.0, 1.0, 1.0]])
    inside, outside = (whole_box(rois, np.array([[left, 0.0, 1.0, 1.0]]), (1, 4)) for left in (0.125, 0.13))
    assert (inside.tolist(), outside.tolist()) == ([[[1, 1, 1, 1]]], [[[0, 1, 1, 1]]])


def test_ellipse_by_hand() -> None:
    assert ["".join(map(str, row)) for row in ellipse(BOX, BOX, (8, 6))[0].tolist()] == [
        "001100",
        "011110",
        "111111",
        "111111",
        "111111",
        "111111",
        "011110",
        "001100",
    ]


@pytest.mark.parametrize("padding", [0.0, 0.3])
def test_ellipse_is_the_slow_one(padding: float) -> None:
    """Of a box at the edge of the image, whose ROI is cut there."""
    boxes = np.array([[0.0, 0.3, 0.4, 0.8], [0.5, 0.1, 0.9, 1.0]])
    rois = pad_boxes(boxes, padding).clip(0, 1)
    found = ellipse(rois, boxes, (9, 7))
    for number, (roi, box) in enumerate(zip(rois, boxes, strict=True)):
        for row in range(9):
            for column in range(7):
                x = roi[0] + (column + 0.5) / 7 * (roi[2] - roi[0])
                y = roi[1] + (row + 0.5) / 9 * (roi[3] - roi[1])
                across, down = (x - (box[0] + box[2]) / 2) / (box[2] - box[0]), (y - (box[1] + box[3]) / 2) / (box[3] - box[1])
                assert found[number, row, column] == (across**2 + down**2 <= 0.25)


def test_ellipse_covers_its_share_of_the_box() -> None:
    assert ellipse(BOX, BOX, (200, 300)).mean() == pytest.approx(np.pi / 4, abs=1e-3)


def test_a_head_without_class_two() -> None:
    logits = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 3
    found = without_two(logits)
    assert (found[:, 2] == 0).all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(4, 5, 6))
    torch.testing.assert_close((found[:, 1] / found[:, 0]).log(), logits[:, 1] - logits[:, 0], atol=1e-4, rtol=1e-4)
    assert (found.argmax(dim=1) == logits[:, :2].argmax(dim=1)).all()


@pytest.mark.parametrize("draw", [whole_box, ellipse])
def test_no_rois(draw: Callable[[Floats, Floats, HW], Labels]) -> None:
    assert draw(np.zeros((0, 4)), np.zeros((0, 4)), (4, 5)).shape == (0, 4, 5)


def test_few_figures_stand_beside() -> None:
    figures = {"miou_fg_roi": 0.25, "iou_target_roi": 0.5, "miou_fg_pooled": 0.375, "pixel_accuracy": 0.9}
    assert beside("ellipse", figures) == {
        "ellipse_miou_fg_roi": 0.25,
        "ellipse_iou_target_roi": 0.5,
        "ellipse_miou_fg_pooled": 0.375,
    }
    assert "oracle_box_ap" in BESIDE
