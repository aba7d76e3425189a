"""Boxes whose edges can be told apart: drawn with OpenCV alone, for reports and for use.

Pictures are (H, W, 3) uint8 in OpenCV's BGR order; boxes are in pixels of the canvas.
"""

from collections.abc import Sequence

import cv2

from roiseg.evaluate.labels import WHITE, Canvas
from roiseg.evaluate.palette import GREEN, RED, Colour
from roiseg.geometry import Floats

ROUGH, SNAPPED, TRUTH = GREEN, RED, WHITE

DASH = 4
"""Length of a dash and of the gap after it, in thicknesses of its line."""

SOLID = (False, False, False, False)


def draw_edges(canvas: Canvas, box_canvas: Floats, colour: Colour, thickness: int = 1, weak: Sequence[bool] = SOLID) -> None:
    """Draw a box edge by edge; what lies outside the canvas is drawn on its border.

    Args:
        canvas: is changed.
        box_canvas: (4,) xyxy.
        colour: of the lines.
        thickness: of the lines, in pixels.
        weak: which edges are dashed, in the order of xyxy.
    """
    height, width = canvas.shape[:2]
    x0, x1 = (min(max(round(float(box_canvas[place])), 0), width - 1) for place in (0, 2))
    y0, y1 = (min(max(round(float(box_canvas[place])), 0), height - 1) for place in (1, 3))
    ends = (((x0, y0), (x0, y1)), ((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x0, y1), (x1, y1)))
    for (first, last), dashed in zip(ends, weak, strict=True):
        for start, stop in _dashes(first, last, DASH * thickness) if dashed else [(first, last)]:
            cv2.line(canvas, start, stop, colour, thickness)


def _dashes(first: tuple[int, int], last: tuple[int, int], length: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Parts of a line along an axis, every other `length` of it, from its start on."""
    along = 0 if first[1] == last[1] else 1
    low, high = sorted((first[along], last[along]))
    other = first[1 - along]
    pairs = [(start, min(start + length - 1, high)) for start in range(low, high + 1, 2 * length)]
    return [((start, other), (stop, other)) if along == 0 else ((other, start), (other, stop)) for start, stop in pairs]
