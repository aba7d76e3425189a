"""The picture with rough boxes in green and snapped ones in red; edges that a person should look at are dashed."""

from collections.abc import Sequence

import cv2
import numpy as np

from roiseg.evaluate.labels import digit_px
from roiseg.evaluate.overlays import Picture
from roiseg.evaluate.palette import GREEN, RED
from roiseg.geometry import Floats
from roiseg.snap.snapper import SnappedBox

DASH = 5
"""Length of a dash, and of the gap behind it, in thicknesses of the line."""

Point = tuple[int, int]


def draw_snapped(pixels: Picture, boxes: Sequence[SnappedBox]) -> Picture:
    """A copy of a picture with all boxes, rough ones below.

    Args:
        pixels: (H, W, 3) uint8, BGR.
        boxes: snapped in it.
    """
    canvas = pixels.copy()
    thickness = max(digit_px((canvas.shape[0], canvas.shape[1])) // 6, 1)
    for box in boxes:
        for first, second in _sides(box.rough_image, canvas):
            cv2.line(canvas, first, second, GREEN, thickness)
    for box in boxes:
        for (first, second), weak in zip(_sides(box.box_image, canvas), box.review, strict=True):
            if weak:
                _dashed(canvas, first, second, thickness)
            else:
                cv2.line(canvas, first, second, RED, thickness)
    return canvas


def _sides(box: Floats, canvas: Picture) -> list[tuple[Point, Point]]:
    """Ends of the left, top, right and bottom edge, in pixels of the canvas."""
    height, width = canvas.shape[:2]
    x0, x1 = (min(max(round(float(box[place])) - (place > 1), 0), width - 1) for place in (0, 2))
    y0, y1 = (min(max(round(float(box[place])) - (place > 1), 0), height - 1) for place in (1, 3))
    return [((x0, y0), (x0, y1)), ((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x0, y1), (x1, y1))]


def _dashed(canvas: Picture, first: Point, second: Point, thickness: int) -> None:
    """A red line in dashes; one at least, however short it is."""
    ends = np.array([first, second], dtype=np.float64)
    length = float(np.abs(ends[1] - ends[0]).max())
    step = DASH * thickness
    for start in np.arange(0.0, max(length, 1.0), 2 * step):
        share = np.array([start, min(start + step, length)]) / max(length, 1.0)
        one, other = ((ends[0] + (ends[1] - ends[0]) * item).round().astype(int).tolist() for item in share)
        cv2.line(canvas, one, other, RED, thickness)
