"""Boxes on validation pictures: rough green, true white, snapped red.

Symbols: (H, W) size of an image on the sheet.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from roiseg.evaluate.overlays import Picture
from roiseg.evaluate.palette import GREEN, RED, Colour
from roiseg.evaluate.pictures import FixedPicture
from roiseg.evaluate.sheets import legend, shown, side_by_side, stacked, text_line
from roiseg.geometry import Floats
from roiseg.snapper.results import SnapResults

WHITE: Colour = (255, 255, 255)


def draw_rectangles(picture: Picture, boxes: Floats, colour: Colour, thickness: int) -> Picture:
    """A copy of a picture with boxes (R, 4) xyxy in its pixels."""
    canvas = picture.copy()
    for x0, y0, x1, y1 in boxes.round().astype(np.int64).tolist():
        cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, thickness)
    return canvas


def draw_snapped(picture: FixedPicture, results: SnapResults) -> Picture:
    """One image at its size on the sheet with its boxes, the true ones below the others.

    Args:
        picture: the image.
        results: of any images, this one among them.
    """
    pixels = shown(picture.pixels)
    height, width = picture.pixels.shape[:2]
    scale = np.tile([pixels.shape[1] / width, pixels.shape[0] / height], 2)
    here = results.rows == picture.row
    for boxes, colour, thickness in ((results.truth, WHITE, 3), (results.rough, GREEN, 1), (results.snapped, RED, 1)):
        pixels = draw_rectangles(pixels, boxes[here] * scale, colour, thickness)
    return pixels


def snap_sheet(fixed: Sequence[FixedPicture], results: SnapResults, title: str) -> Picture:
    """The fixed images with their boxes, under a title.

    Args:
        fixed: one or more, see `load_fixed`.
        results: of those images.
        title: such as epoch and score.
    """
    key = legend([(GREEN, "rough"), (WHITE, "true"), (RED, "snapped")])
    return stacked([text_line(title), side_by_side([draw_snapped(picture, results) for picture in fixed]), key])
