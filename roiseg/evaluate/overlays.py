"""Pictures of people and their masks: arrays in, image out.

All pictures are (H, W, 3) uint8 in OpenCV's BGR order. What is drawn is in pixels of the canvas, the picture that is drawn on: a
photograph is brought to the size at which it will be seen before, so that lines and numbers keep theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from roiseg.classes import Bools, Floats32
from roiseg.evaluate.labels import Rectangle, digit_px, draw_label, label_places, label_size, touches
from roiseg.evaluate.palette import RED, Colour, instance_colour
from roiseg.files import write_bytes
from roiseg.geometry import Floats

Picture = NDArray[np.uint8]

MASK_ALPHA = 0.5


@dataclass(frozen=True)
class Person:
    """What is drawn of one person.

    Attributes:
        mask: (H, W) of the canvas.
        box_canvas: (4,) xyxy in pixels of the canvas.
        number: what is written at the box, from 1; decides the colour.
    """

    mask: Bools
    box_canvas: Floats
    number: int


def tint(picture: Picture, where: Bools, colour: Colour, alpha: float) -> Picture:
    """A copy of the picture with a colour laid over some of it.

    Args:
        picture: (H, W, 3).
        where: (H, W).
        colour: BGR.
        alpha: share of the colour in [0, 1].
    """
    canvas = picture.copy()
    mixed = canvas[where].astype(np.float32) * (1 - alpha) + np.array(colour, dtype=np.float32) * alpha
    canvas[where] = mixed.round().astype(np.uint8)
    return canvas


def draw_masks(picture: Picture, people: Sequence[Person]) -> Picture:
    """A copy of the picture with every mask laid over it and outlined, each in its colour."""
    canvas = picture.copy()
    for person in people:
        canvas = tint(canvas, person.mask, instance_colour(person.number), MASK_ALPHA)
    for person in people:
        canvas = outline(canvas, person.mask, instance_colour(person.number))
    return canvas


def outline(picture: Picture, where: Bools, colour: Colour) -> Picture:
    """A copy of the picture with an opaque line along the outer edge of a region, within it."""
    canvas = picture.copy()
    found, _ = cv2.findContours(where.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, found, -1, colour, 1, cv2.LINE_8)
    return canvas


def draw_boxes(picture: Picture, people: Sequence[Person]) -> Picture:
    """A copy of the picture with a red box around everybody, and their numbers on top, none over another."""
    canvas = picture.copy()
    image_hw = (canvas.shape[0], canvas.shape[1])
    digits = digit_px(image_hw)
    boxes = [_rectangle(person.box_canvas, canvas) for person in people]
    texts = [str(person.number) for person in people]
    places = label_places(boxes, [label_size(text, digits) for text in texts], image_hw)
    thickness = max(digits // 6, 1)
    for x0, y0, x1, y1 in boxes:
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), RED, thickness)
    for box, place in zip(boxes, places, strict=True):
        if not touches(box, place):
            cv2.line(canvas, place[:2], box[:2], RED, thickness)
    for text, place in zip(texts, places, strict=True):
        draw_label(canvas, text, place, digits)
    return canvas


def _rectangle(box: Floats, canvas: Picture) -> Rectangle:
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = (round(float(item)) for item in box)
    left, top = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return left, top, max(min(x1, width), left + 1), max(min(y1, height), top + 1)


def draw_heat(values: Floats32) -> Picture:
    """Probabilities (H, W) in [0, 1] as heat: black, red, yellow, white."""
    levels = (values.clip(0, 1) * 255).round().astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_HOT), dtype=np.uint8)


def write_png(path: Path, picture: Picture) -> None:
    """Save a picture; whole or not at all."""
    ok, data = cv2.imencode(".png", picture)
    if not ok:
        raise OSError(f"{path}: OpenCV couldn't encode a picture of {picture.shape}")
    write_bytes(path, data.tobytes())
