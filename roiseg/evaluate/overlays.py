"""Pictures of people and their masks: arrays in, image out.

All pictures are (H, W, 3) uint8 in OpenCV's BGR order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from roiseg.files import write_bytes
from roiseg.geometry import Floats
from roiseg.masks import Bools

Picture = NDArray[np.uint8]

COLUMN_HEIGHT = 360
"""Height in pixels of each picture of a sheet."""

ALPHA = 0.5
RED = (40, 40, 230)
# tab20 of matplotlib, its ten saturated colours first
COLOURS = np.array(
    [
        (180, 119, 31), (14, 127, 255), (44, 160, 44), (189, 103, 148), (207, 190, 23),
        (194, 119, 227), (34, 189, 188), (75, 86, 140), (232, 199, 174), (120, 187, 255),
        (138, 223, 152), (213, 176, 197), (229, 218, 158), (210, 182, 247), (141, 219, 219),
    ],
    dtype=np.uint8,
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    """What is drawn of one person.

    Attributes:
        mask: (H, W) in the image frame.
        box_image: (4,) xyxy, image frame.
        number: what is written at the box, from 1.
    """

    mask: Bools
    box_image: Floats
    number: int


def colour(number: int) -> NDArray[np.uint8]:
    """Colour (3,) of instance `number`; repeats after 15."""
    return np.asarray(COLOURS[(number - 1) % len(COLOURS)])


def draw_masks(picture: Picture, people: Sequence[Person]) -> Picture:
    """A copy of the picture with every mask laid over it and outlined, each in its colour."""
    canvas = picture.copy()
    for person in people:
        tint = colour(person.number)
        mixed = canvas[person.mask].astype(np.float32) * (1 - ALPHA) + tint.astype(np.float32) * ALPHA
        canvas[person.mask] = mixed.round().astype(np.uint8)
    for person in people:
        outlines, _ = cv2.findContours(person.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, colour(person.number).tolist(), 1, cv2.LINE_8)
    return canvas


def draw_boxes(picture: Picture, people: Sequence[Person]) -> Picture:
    """A copy of the picture with a red box around everybody, and their numbers."""
    canvas = picture.copy()
    height, width = canvas.shape[:2]
    scale = max(height, width) / 900
    for person in people:
        x0, y0, x1, y1 = (round(float(item)) for item in person.box_image)
        cv2.rectangle(canvas, (x0, y0), (min(x1, width) - 1, min(y1, height) - 1), RED, max(round(2 * scale), 1))
        _label(canvas, str(person.number), (max(x0, 0), max(y0, 0)), scale)
    return canvas


def _label(canvas: Picture, text: str, corner: tuple[int, int], scale: float) -> None:
    size = 0.7 * max(scale, 0.5)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    x, y = corner
    cv2.rectangle(canvas, (x, y), (x + width + 4, y + height + 6), RED, cv2.FILLED)
    cv2.putText(canvas, text, (x + 2, y + height + 2), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)


def sheet(rows: Sequence[Sequence[Picture]], titles: Sequence[str]) -> Picture:
    """Pictures in rows under a line of text each.

    Args:
        rows: pictures; those of one column have the same size.
        titles: a text per row.
    """
    drawn = []
    for pictures, title in zip(rows, titles, strict=True):
        scaled = [_to_height(picture) for picture in pictures]
        line = np.concatenate(scaled, axis=1)
        head = np.full((26, line.shape[1], 3), 32, dtype=np.uint8)
        cv2.putText(head, title, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        drawn += [head, line]
    return np.concatenate(drawn, axis=0)


def _to_height(picture: Picture) -> Picture:
    width = max(round(picture.shape[1] * COLUMN_HEIGHT / picture.shape[0]), 1)
    scaled = cv2.resize(picture, (width, COLUMN_HEIGHT), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.copyMakeBorder(scaled, 0, 4, 2, 2, cv2.BORDER_CONSTANT, value=(32, 32, 32)), dtype=np.uint8)


def write_png(path: Path, picture: Picture) -> None:
    """Save a picture; whole or not at all."""
    ok, data = cv2.imencode(".png", picture)
    if not ok:
        raise OSError(f"{path}: OpenCV couldn't encode a picture of {picture.shape}")
    write_bytes(path, data.tobytes())
