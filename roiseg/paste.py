"""The way of a mask from its ROI back to the image.

Symbols: (H, W) image size, (h, w) cells of the mask.
"""

import numpy as np

from roiseg.classes import Floats32
from roiseg.geometry import Floats
from roiseg.types import HW


def paste(values: Floats32, box_image: Floats, image_hw: HW) -> tuple[tuple[slice, slice], Floats32]:
    """Bring a mask of a box back to the image, bilinear between its cell centres.

    Args:
        values: (h, w), any range.
        box_image: (4,) xyxy, image frame, of positive area.
        image_hw: size of the image.

    Returns:
        The rows and columns of the image whose pixel centres lie in the box, and the values there, float32. The inverse
        of sampling an ROI at cell centres: a pixel centre at share u of the box's width reads the mask at u * w - 0.5.
    """
    x0, y0, x1, y1 = (float(item) for item in box_image)
    spans = []
    for low, high, limit in ((y0, y1, image_hw[0]), (x0, x1, image_hw[1])):
        start = max(int(np.ceil(low - 0.5)), 0)
        stop = min(int(np.floor(high - 0.5)) + 1, limit)
        spans.append((start, max(stop, start)))
    (top, bottom), (left, right) = spans
    window = slice(top, bottom), slice(left, right)
    if bottom == top or right == left:
        return window, np.zeros((bottom - top, right - left), dtype=np.float32)
    height, width = values.shape
    rows = ((np.arange(top, bottom) + 0.5 - y0) / (y1 - y0) * height - 0.5).astype(np.float32)
    columns = ((np.arange(left, right) + 0.5 - x0) / (x1 - x0) * width - 0.5).astype(np.float32)
    return window, _bilinear(np.asarray(values, dtype=np.float32), rows, columns)


def _bilinear(values: Floats32, rows: Floats32, columns: Floats32) -> Floats32:
    """Separable bilinear samples of `values` (h, w) at fractional rows and columns, edges repeated."""

    def lerp(array: Floats32, at: Floats32, axis: int) -> Floats32:
        low = np.floor(at)
        share = (at - low).astype(np.float32)
        last = array.shape[axis] - 1
        first = np.take(array, low.astype(np.int64).clip(0, last), axis)
        second = np.take(array, (low.astype(np.int64) + 1).clip(0, last), axis)
        share = share.reshape((-1, 1) if axis == 0 else (1, -1))
        return np.asarray(first + (second - first) * share, dtype=np.float32)

    return lerp(lerp(values, rows, 0), columns, 1)
