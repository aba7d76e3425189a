"""Tests of roiseg.evaluate.baseline_masks: pixels by hand, on images that aren't square."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from roiseg.evaluate.baseline_masks import BOX_MASKS, box_mask, box_results, ellipse_mask


def test_box_holds_the_pixels_whose_centre_it_holds() -> None:
    mask = box_mask(np.array([2.5, 1.0, 6.4, 3.5]), (5, 8))
    expected = np.zeros((5, 8), dtype=bool)
    expected[1:4, 2:6] = True
    expected[3] = False
    expected[3, 2:6] = True
    np.testing.assert_array_equal(mask, expected)


def test_box_beyond_the_image() -> None:
    assert box_mask(np.array([-5.0, -5.0, 50.0, 50.0]), (4, 6)).all()
    assert not box_mask(np.array([6.0, 0.0, 9.0, 4.0]), (4, 6)).any()


def test_ellipse_by_hand() -> None:
    """Half axes 3 and 2 about (4, 2)."""
    drawn = ["..####..", ".######.", ".######.", "..####.."]
    expected = [[cell == "#" for cell in line] for line in drawn]
    found = ellipse_mask(np.array([1.0, 0.0, 7.0, 4.0]), (4, 8))
    cells = [[((x + 0.5 - 4) / 3) ** 2 + ((y + 0.5 - 2) / 2) ** 2 <= 1 for x in range(8)] for y in range(4)]
    assert found.tolist() == cells
    assert found.tolist() == expected


@pytest.mark.parametrize("box", [(3.0, 2.0, 90.0, 41.0), (-10.5, 7.25, 60.0, 70.0)])
def test_ellipse_fills_its_share_of_the_box(box: tuple[float, float, float, float]) -> None:
    whole, found = box_mask(np.array(box), (120, 100)), ellipse_mask(np.array(box), (120, 100))
    assert not (found & ~whole).any()
    if box[0] > 0:
        assert found.sum() / whole.sum() == pytest.approx(np.pi / 4, abs=0.01)


def test_results_of_an_image() -> None:
    boxes = np.array([[1.0, 1.0, 7.0, 4.0], [0.0, 0.0, 3.0, 3.0]])
    assert set(BOX_MASKS) == {"whole_box", "ellipse"}
    for name, draw in BOX_MASKS.items():
        results = box_results(name, 7, 18, (5, 8), boxes, [0.5, 1 / 3])
        assert [(item["image_id"], item["category_id"], item["score"]) for item in results] == [(7, 18, 0.5), (7, 18, 0.333333)]
        for box, item in zip(boxes, results, strict=True):
            np.testing.assert_array_equal(coco_mask.decode(item["segmentation"]).astype(bool), draw(box, (5, 8)))
    assert box_results("whole_box", 7, 18, (5, 8), np.zeros((0, 4)), []) == []
