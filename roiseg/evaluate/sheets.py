"""Sheets: pictures side by side on a dark ground, with lines of text, a bar for heat and a legend.

Pictures are (H, W, 3) uint8, BGR, and drawn in full before they come here: nothing is scaled any more.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from roiseg.evaluate.labels import DIGIT_PX, SHEET_PX, text_size, write
from roiseg.evaluate.overlays import Picture, draw_heat
from roiseg.evaluate.palette import Colour
from roiseg.types import HW

GROUND = 32
"""Grey level between the pictures."""
GAP = 4
MARGIN = 8
LINE_PX = DIGIT_PX + 2 * MARGIN
"""Height of a line of text."""
BAR_PX = 12
BAR_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
WIDEST_STEP = "0.25"


def shown(picture: Picture) -> Picture:
    """A photograph at its size on a sheet: `SHEET_PX` high."""
    height, width = picture.shape[:2]
    size = max(round(width * SHEET_PX / height), 1), SHEET_PX
    how = cv2.INTER_AREA if height > SHEET_PX else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=how), dtype=np.uint8)


def ground(height: int, width: int) -> Picture:
    """An empty piece of sheet."""
    return np.full((height, width, 3), GROUND, dtype=np.uint8)


def widened(picture: Picture, width: int) -> Picture:
    """A picture with ground to its right, at least `width` wide."""
    missing = max(width - picture.shape[1], 0)
    return np.concatenate([picture, ground(picture.shape[0], missing)], axis=1)


def framed(picture: Picture, room_hw: HW) -> Picture:
    """A picture in the middle of a room of ground, which it must fit into."""
    height, width = picture.shape[:2]
    top, left = (room_hw[0] - height) // 2, (room_hw[1] - width) // 2
    canvas = ground(*room_hw)
    canvas[top : top + height, left : left + width] = picture
    return canvas


def text_line(text: str) -> Picture:
    """A line of text, as wide as it is."""
    line = ground(LINE_PX, text_size(text, DIGIT_PX)[0] + 2 * MARGIN)
    write(line, text, (MARGIN, MARGIN), DIGIT_PX)
    return line


def legend(entries: Sequence[tuple[Colour, str]]) -> Picture:
    """A line with a patch of colour before each text."""
    parts = []
    for colour, text in entries:
        patch = ground(LINE_PX, MARGIN + DIGIT_PX)
        patch[MARGIN:-MARGIN, MARGIN:] = colour
        parts += [patch, text_line(text)]
    return side_by_side(parts, 0)


def with_bar(heat: Picture) -> Picture:
    """A heat map with the scale of its colours beside it."""
    height = heat.shape[0]
    values = np.linspace(1, 0, height, dtype=np.float32)[:, None].repeat(BAR_PX, axis=1)
    texts = ground(height, text_size(WIDEST_STEP, DIGIT_PX)[0] + 2 * GAP)
    for step in BAR_STEPS:
        middle = round((1 - step) * (height - 1))
        write(texts, f"{step:g}", (GAP, min(max(middle - DIGIT_PX // 2, 1), height - DIGIT_PX - 1)), DIGIT_PX)
    return side_by_side([heat, draw_heat(values), texts], GAP)


def side_by_side(pictures: Sequence[Picture], gap: int = GAP) -> Picture:
    """Pictures of one height in a row."""
    gaps = [ground(pictures[0].shape[0], gap)] * len(pictures)
    parts = [part for pair in zip(gaps, pictures, strict=True) for part in pair]
    return np.concatenate(parts[1:], axis=1)


def stacked(parts: Sequence[Picture]) -> Picture:
    """Pictures and lines below each other, flush left, on one ground."""
    width = max(part.shape[1] for part in parts)
    gap = ground(GAP, width)
    return np.concatenate([piece for part in parts for piece in (widened(part, width), gap)], axis=0)


def table(rows: Sequence[Sequence[Picture]], captions: Sequence[str]) -> list[Picture]:
    """Pictures in columns under a caption each, as parts of `stacked`.

    Args:
        rows: pictures; those of a row have one height.
        captions: one for each column.
    """
    lines = [text_line(caption) for caption in captions]
    columns = [[line, *(row[number] for row in rows)] for number, line in enumerate(lines)]
    widths = [max(part.shape[1] for part in column) for column in columns]
    return [side_by_side([widened(part, width) for part, width in zip(row, widths, strict=True)]) for row in [lines, *rows]]
