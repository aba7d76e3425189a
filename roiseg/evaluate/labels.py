"""Text in pictures, and places for it where no label covers another.

Rectangles are integer (x0, y0, x1, y1) in pixels of the canvas, the far edges outside.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

import cv2
import numpy as np
from numpy.typing import NDArray

from roiseg.evaluate.palette import RED, Colour
from roiseg.types import HW

Canvas = NDArray[np.uint8]
Rectangle = tuple[int, int, int, int]

WHITE: Colour = (255, 255, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX
DIGIT_PX = 11
"""Height of the digits on a sheet. Whoever draws on a sheet does so after scaling, so that this is what is seen."""
SHEET_PX = 360
"""Height of a picture of a sheet; digits grow with larger ones."""
PADDING = 3
SMALL_BOX = 5
"""A box of fewer label heights than this is kept free of its own label."""
SCALE_PX = 20
"""Height of the digits of `FONT` at scale 1."""


def digit_px(canvas_hw: HW) -> int:
    """Height of digits on a canvas: never below `DIGIT_PX`, and in proportion above the size of a sheet's picture."""
    return max(DIGIT_PX, round(DIGIT_PX * min(canvas_hw) / SHEET_PX))


def text_size(text: str, height: int) -> tuple[int, int]:
    """Width and height in pixels of a text whose digits are `height` high."""
    (width, _), _ = cv2.getTextSize(text, FONT, height / SCALE_PX, 1)
    return int(width), height


def write(canvas: Canvas, text: str, corner: tuple[int, int], height: int) -> None:
    """Write in white.

    Args:
        canvas: is changed.
        text: one line.
        corner: x and y of the upper left corner of the digits.
        height: of the digits.
    """
    cv2.putText(canvas, text, (corner[0], corner[1] + height), FONT, height / SCALE_PX, WHITE, 1, cv2.LINE_AA)


def label_size(text: str, height: int) -> tuple[int, int]:
    """Width and height of a label with its padding."""
    width, tall = text_size(text, height)
    return width + 2 * PADDING, tall + 2 * PADDING


def draw_label(canvas: Canvas, text: str, place: Rectangle, height: int) -> None:
    """White text on red."""
    x0, y0, x1, y1 = place
    cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), RED, cv2.FILLED)
    write(canvas, text, (x0 + PADDING, y0 + PADDING), height)


def overlaps(first: Rectangle, second: Rectangle) -> bool:
    """Whether two rectangles share a pixel."""
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def touches(first: Rectangle, second: Rectangle) -> bool:
    """Whether two rectangles share a pixel or an edge."""
    return first[0] <= second[2] and second[0] <= first[2] and first[1] <= second[3] and second[1] <= first[3]


def label_places(boxes: Sequence[Rectangle], sizes: Sequence[tuple[int, int]], canvas_hw: HW) -> list[Rectangle]:
    """A place for the label of every box, inside the canvas and off the other labels as long as there is room.

    Tried in turn: in the upper left corner, or above it where the box is so small that the label would hide what is in it; the
    other corners; along the edges; and then the free place that is nearest.

    Args:
        boxes: within the canvas.
        sizes: width and height of the label of each.
        canvas_hw: size of the canvas.
    """
    placed: list[Rectangle] = []
    for box, (width, height) in zip(boxes, sizes, strict=True):
        corners = chain(_at_box(box, width, height), _anywhere(box, width, height, canvas_hw))
        rectangles = (_inside((x, y, x + width, y + height), canvas_hw) for x, y in corners)
        free = (item for item in rectangles if not any(overlaps(item, other) for other in placed))
        none_left = _inside((box[0], box[1], box[0] + width, box[1] + height), canvas_hw)
        placed.append(next(free, none_left))
    return placed


def _at_box(box: Rectangle, width: int, height: int) -> Iterator[tuple[int, int]]:
    x0, y0, x1, y1 = box
    inside, above = (x0, y0), (x0, y0 - height)
    yield from (above, inside) if y1 - y0 < SMALL_BOX * height else (inside, above)
    yield from ((x1 - width, y0), (x1 - width, y0 - height))
    yield from ((x0, y1 - height), (x1 - width, y1 - height), (x0, y1), (x1 - width, y1))
    yield from ((x0 - width, y) for y in range(y0, y1 - height, height))
    yield from ((x1, y) for y in range(y0, y1 - height, height))


def _anywhere(box: Rectangle, width: int, height: int, canvas_hw: HW) -> Iterator[tuple[int, int]]:
    ys, xs = range(0, canvas_hw[0] - height + 1, height), range(0, canvas_hw[1] - width + 1, width)
    yield from sorted(((x, y) for y in ys for x in xs), key=lambda at: (at[0] - box[0]) ** 2 + (at[1] - box[1]) ** 2)


def _inside(place: Rectangle, canvas_hw: HW) -> Rectangle:
    x0, y0, x1, y1 = place
    x = max(min(x0, canvas_hw[1] - (x1 - x0)), 0)
    y = max(min(y0, canvas_hw[0] - (y1 - y0)), 0)
    return x, y, x + x1 - x0, y + y1 - y0
