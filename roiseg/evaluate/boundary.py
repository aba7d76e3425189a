"""Boundary IoU of Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation" (CVPR 2021), section 4.

The band of a mask is those of its pixels that lie within d of its contour; boundary IoU is the IoU of two bands. d is 2 % of the
diagonal, as in the paper, and distances are the larger of rows and columns, as in the paper's code, which erodes d times by 3 x 3.
There the border of the grid is contour too. It is measured twice: on the grid of the ROI's mask with a band of 2 % of the grid's
diagonal, which judges the outline that a head draws, and in the image with 2 % of the image's, as COCO's boundary AP does.

Symbols: R ROIs, (h, w) cells of the mask.
"""

from math import hypot

import cv2
import numpy as np
from numpy.typing import NDArray

from roiseg.classes import Bools
from roiseg.placed import Placed, shared_pixels
from roiseg.types import HW

DIAGONAL_SHARE = 0.02


def band_px(hw: HW) -> int:
    """Width of the band on a grid of a size: 2 % of its diagonal in whole cells, at least 1."""
    return max(round(DIAGONAL_SHARE * hypot(*hw)), 1)


def band(mask: Bools, width: int) -> Bools:
    """The pixels of a mask that are within `width` of one outside it, or of the border of the grid.

    Args:
        mask: (rows, columns).
        width: d, at least 1.
    """
    if not mask.any():
        return np.zeros_like(mask)
    framed = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(framed, cv2.DIST_C, cv2.DIST_MASK_3)[1:-1, 1:-1]
    # Whole numbers, but for what OpenCV's fixed point leaves.
    return np.asarray(mask & (distance < width + 0.5))


def crop_boundaries(predicted: Bools, annotated: Bools) -> NDArray[np.int64]:
    """Cells of the ROI masks that are in both bands, and in either.

    Args:
        predicted: (R, h, w), true where a class is predicted.
        annotated: (R, h, w), true where it is annotated.

    Returns:
        (R, 2).
    """
    width = band_px((predicted.shape[1], predicted.shape[2]))
    found = np.zeros((len(predicted), 2), dtype=np.int64)
    for number, pair in enumerate(zip(predicted, annotated, strict=True)):
        first, second = (band(mask, width) for mask in pair)
        found[number] = np.count_nonzero(first & second), np.count_nonzero(first | second)
    return found


def image_boundary(predicted: Placed, annotated: Placed, image_hw: HW) -> tuple[int, int]:
    """Pixels of an image that are in both bands, and in either.

    A window that holds a whole mask is as good as the image: what lies beyond its sides is outside the mask, whether image or not.

    Args:
        predicted: one person's mask.
        annotated: the same person's.
        image_hw: (H, W), which the width of the band follows.
    """
    width = band_px(image_hw)
    first, second = (Placed(item.window, band(item.mask, width)) for item in (predicted, annotated))
    shared = shared_pixels(first, second)
    return shared, first.pixels + second.pixels - shared
