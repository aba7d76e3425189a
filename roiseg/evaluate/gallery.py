"""Pictures of single ROIs: crop, annotation, prediction and what is wrong, side by side; and sheets of such tiles.

Symbols: (h, w) cells of the mask; (H, W) size of a panel.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from roiseg.classes import BACKGROUND, NON_TARGET, TARGET, Labels
from roiseg.evaluate.cases import RoiCase
from roiseg.evaluate.overlays import Picture, outline, tint
from roiseg.evaluate.palette import GREEN, Colour
from roiseg.evaluate.sheets import GAP, framed, ground, legend, side_by_side, stacked, text_line, widened
from roiseg.types import HW

PANEL_HW: HW = (176, 132)
"""Room of each of the four pictures, in pixels; people are higher than wide."""

TILE_WIDTH = 4 * PANEL_HW[1] + 3 * GAP
COLUMNS = 2
"""Tiles beside each other on a sheet."""

CAPTIONS = ("crop", "annotation", "prediction", "errors")

BLUE: Colour = (240, 150, 60)
CLASS_COLOURS: Mapping[int, tuple[Colour, str]] = {TARGET: (GREEN, "target"), NON_TARGET: (BLUE, "other people")}

ERROR_COLOURS: Mapping[tuple[int, int], tuple[Colour, str]] = {
    (TARGET, BACKGROUND): ((60, 60, 235), "missed target"),
    (BACKGROUND, TARGET): ((0, 225, 255), "false target"),
    (TARGET, NON_TARGET): ((225, 80, 225), "target taken for another person"),
    (NON_TARGET, TARGET): ((0, 140, 255), "another person taken for the target"),
    (NON_TARGET, BACKGROUND): ((255, 80, 110), "missed other person"),
    (BACKGROUND, NON_TARGET): ((255, 230, 110), "false other person"),
}
"""(annotated, predicted) -> BGR colour and name of the error. What concerns the target is warm, what doesn't is cold."""

MASK_ALPHA = 0.45
ERROR_ALPHA = 0.85
WRONG = "errors (grey: right):"
DARKER = 0.55
"""Share of its brightness that the photograph keeps under the errors."""


def panels(case: RoiCase) -> tuple[Picture, Picture, Picture, Picture]:
    """The four pictures of an ROI, all (H, W, 3) and as large as `PANEL_HW` lets them be in the shape of the crop."""
    height, width = case.crop.shape[:2]
    scale = min(PANEL_HW[0] / height, PANEL_HW[1] / width)
    hw = max(round(height * scale), 1), max(round(width * scale), 1)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    crop = np.asarray(cv2.resize(case.crop, hw[::-1], interpolation=how), dtype=np.uint8)
    labels, predicted = _enlarged(case.labels, hw), _enlarged(case.predicted, hw)
    return crop, draw_labels(crop, labels), draw_labels(crop, predicted), draw_errors(crop, labels, predicted)


def _enlarged(labels: Labels, hw: HW) -> Labels:
    """The mask at the size of a panel; its cells stay to be seen."""
    return np.asarray(cv2.resize(labels, hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)


def draw_labels(crop: Picture, labels: Labels) -> Picture:
    """A crop (H, W, 3) with the target and other people (H, W) laid over it, each in its colour, and outlined."""
    canvas = crop
    for label, (colour, _) in CLASS_COLOURS.items():
        canvas = outline(tint(canvas, labels == label, colour, MASK_ALPHA), labels == label, colour)
    return canvas


def draw_errors(crop: Picture, labels: Labels, predicted: Labels) -> Picture:
    """A crop (H, W, 3) in dark grey with every wrong pixel in the colour of its error; (H, W) annotated and predicted."""
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY).astype(np.float32) * DARKER
    canvas: Picture = np.repeat(grey.round().astype(np.uint8)[:, :, None], 3, axis=2)
    for (annotated, said), (colour, _) in ERROR_COLOURS.items():
        canvas = tint(canvas, (labels == annotated) & (predicted == said), colour, ERROR_ALPHA)
    return canvas


def draw_tile(case: RoiCase) -> Picture:
    """The four pictures of an ROI in a row, (H, W) of `PANEL_HW[0]` and `TILE_WIDTH`."""
    return side_by_side([framed(panel, PANEL_HW) for panel in panels(case)])


def error_shares(case: RoiCase) -> dict[str, float]:
    """Share of the ROI's cells in each kind of error, by its name; kinds that don't occur are left out."""
    found = {}
    for (annotated, said), (_, name) in ERROR_COLOURS.items():
        share = float(((case.labels == annotated) & (case.predicted == said)).mean())
        if share:
            found[name] = share
    return found


def draw_sheet(cases: Sequence[RoiCase], title: str) -> Picture:
    """Tiles of many ROIs below a title, with their ids and IoU above each and the meaning of the colours at the end.

    Args:
        cases: one or more, in the order in which they are shown.
        title: first line.
    """
    tiles = [stacked([text_line(caption(case)), draw_tile(case)]) for case in cases]
    width = max(tile.shape[1] for tile in tiles)
    empty = ground(tiles[0].shape[0], width)
    rows = [[widened(tile, width) for tile in tiles[start : start + COLUMNS]] for start in range(0, len(tiles), COLUMNS)]
    filled = [row + [empty] * (min(COLUMNS, len(tiles)) - len(row)) for row in rows]
    return stacked([text_line(title), *_legends(), *(side_by_side(row, 4 * GAP) for row in filled)])


def caption(case: RoiCase) -> str:
    """A line about an ROI: ids, target IoU, and the IoU of the others where there are any."""
    text = f"annotation {case.annotation_id}, image {case.image_id}: target IoU {case.iou_target:.3f}"
    return text if np.isnan(case.iou_nontarget) else f"{text}, others {case.iou_nontarget:.3f}"


def _legends() -> list[Picture]:
    errors = list(ERROR_COLOURS.values())
    return [
        side_by_side([text_line("from left to right: " + ", ".join(CAPTIONS)), legend(list(CLASS_COLOURS.values()))]),
        side_by_side([text_line(WRONG), legend(errors[:4])]),
        side_by_side([ground(*text_line(WRONG).shape[:2]), legend(errors[4:])]),
    ]


def encode_jpeg(picture: Picture, quality: int) -> bytes:
    """A picture as JPEG, `quality` in [1, 100]. WebP would have two thirds of the bytes and take thirty times as long."""
    ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise OSError(f"OpenCV couldn't encode a picture of {picture.shape}")
    return data.tobytes()
