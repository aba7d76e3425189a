"""What a snapper makes of rough boxes, to look at: whole images, and sheets of single boxes.

A snapped edge that is right is a red line with a white core: the true box is the finest and comes last. It has a dark rim below
everything, or it would be lost on snow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from roiseg.evaluate.overlays import Picture
from roiseg.evaluate.palette import Colour
from roiseg.evaluate.pictures import FixedPicture
from roiseg.evaluate.sheets import GAP, framed, legend, side_by_side, stacked, text_line, widened
from roiseg.geometry import Floats, paired_box_iou
from roiseg.snapper.drawing import ROUGH, SNAPPED, TRUTH, draw_edges
from roiseg.snapper.results import SnapResults
from roiseg.types import HW

TILE_HW: HW = (224, 224)
"""Room of a box on a sheet, in pixels."""

AROUND = 0.15
"""What is shown around a box and its window, as a share of their sides."""

COLUMNS = 4
SHOWN = 12
"""Boxes on a sheet."""

IMAGE_PX = 480
"""Height of a whole image."""

BESIDE = 2
"""Whole images beside each other."""

RIM: Colour = (0, 0, 0)
ROUGH_PX, SNAPPED_PX, TRUTH_PX, RIM_PX = 2, 3, 1, 3
"""Thickness of lines."""

LEGEND = ((TRUTH, "truth"), (ROUGH, "rough"), (SNAPPED, "snapped (dashed: less sure than review_below)"))


@dataclass(frozen=True)
class Shown:
    """Results with what pictures need beside them.

    Attributes:
        results: N boxes.
        confidence: (N, 4).
        review_below: an edge less sure than this is dashed.
    """

    results: SnapResults
    confidence: Floats
    review_below: float

    @property
    def gain(self) -> Floats:
        """(N,) IoU of the snapped box less that of the rough one."""
        found = self.results
        return paired_box_iou(found.snapped, found.truth) - paired_box_iou(found.rough, found.truth)


def draw_boxes(pixels: Picture, shown: Shown, places: Sequence[int], view: Floats) -> Picture:
    """A copy of a part of an image with some of its boxes.

    Args:
        pixels: (H, W, 3), the part at the size in which it is seen.
        shown: the boxes.
        places: which of them are drawn.
        view: (4,) xyxy of the part, image frame.
    """
    canvas = pixels.copy()
    scale = np.array([canvas.shape[1], canvas.shape[0]]) / (view[2:] - view[:2])
    truth, rough, snapped = (
        (boxes[places] - np.tile(view[:2], 2)) * np.tile(scale, 2)
        for boxes in (shown.results.truth, shown.results.rough, shown.results.snapped)
    )
    weak = (shown.confidence[places] < shown.review_below).tolist()
    for box in truth:
        draw_edges(canvas, box, RIM, RIM_PX)
    for box in rough:
        draw_edges(canvas, box, ROUGH, ROUGH_PX)
    for box, dashed in zip(snapped, weak, strict=True):
        draw_edges(canvas, box, SNAPPED, SNAPPED_PX, dashed)
    for box in truth:
        draw_edges(canvas, box, TRUTH, TRUTH_PX)
    return canvas


def draw_images(pictures: Sequence[FixedPicture], shown: Shown) -> Picture:
    """Whole images with all their boxes, and what the colours mean.

    Args:
        pictures: one or more.
        shown: the boxes of a split.
    """
    drawn = []
    for picture in pictures:
        height, width = picture.pixels.shape[:2]
        seen = _resized(picture.pixels, (IMAGE_PX, max(round(width * IMAGE_PX / height), 1)))
        places = np.flatnonzero(shown.results.rows == picture.row)
        drawn.append(draw_boxes(seen, shown, places.tolist(), np.array([0.0, 0.0, width, height])))
    rows = [side_by_side(drawn[start : start + BESIDE]) for start in range(0, len(drawn), BESIDE)]
    return stacked([legend(LEGEND), *rows])


def draw_tile(pixels: Picture, shown: Shown, place: int, image_id: int) -> Picture:
    """One box with what is around it, below its ids, overlaps and confidences.

    Args:
        pixels: (H, W, 3) of its image, at any size.
        shown: the boxes of a split.
        place: which of them.
        image_id: for the text.
    """
    found = shown.results
    image_hw = (int(found.image_hw[place, 0]), int(found.image_hw[place, 1]))
    view = view_around(
        np.stack([values[place] for values in (found.truth, found.windows, found.snapped)]), image_hw, pixels.shape[:2]
    )
    scale = np.tile([pixels.shape[1] / image_hw[1], pixels.shape[0] / image_hw[0]], 2)
    x0, y0, x1, y1 = (view * scale).round().astype(np.int64).tolist()
    enlarge = min(TILE_HW[0] / (y1 - y0), TILE_HW[1] / (x1 - x0))
    part = _resized(pixels[y0:y1, x0:x1], (max(round((y1 - y0) * enlarge), 1), max(round((x1 - x0) * enlarge), 1)))
    drawn = draw_boxes(part, shown, [place], view)
    rough, snapped = (float(paired_box_iou(boxes[place], found.truth[place])) for boxes in (found.rough, found.snapped))
    lines = [
        f"{found.annotation_ids[place]} in {image_id}",
        f"IoU {rough:.3f} to {snapped:.3f}",
        "sure " + " ".join(f"{value:.2f}" for value in shown.confidence[place].tolist()),
    ]
    return stacked([*(text_line(line) for line in lines), framed(drawn, TILE_HW)])


def view_around(boxes: Floats, image_hw: HW, pixels_hw: HW) -> Floats:
    """The part of an image that shows boxes (K, 4) xyxy, image frame, and some more: (4,) xyxy, image frame.

    It ends with pixels of a picture of the image of `pixels_hw`, and has one at least.
    """
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    margin = (high - low) * AROUND
    size, cells = np.array(image_hw[::-1], dtype=np.float64), np.array(pixels_hw[::-1])
    first = np.clip(np.floor((low - margin) / size * cells), 0, cells - 1)
    last = np.clip(np.ceil((high + margin) / size * cells), first + 1, cells)
    return np.asarray(np.concatenate([first, last]) / np.tile(cells, 2) * np.tile(size, 2))


def _resized(pixels: Picture, hw: HW) -> Picture:
    how = cv2.INTER_AREA if pixels.shape[0] > hw[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, hw[::-1], interpolation=how), dtype=np.uint8)


def choose(shown: Shown) -> dict[str, NDArray[np.int64]]:
    """Boxes that are worth a look, at most `SHOWN` of each kind, the most telling first; of equals, the first in the index.

    Returns:
        `best` and `worst`: what gained most and least in IoU over the rough box. `least_sure`: by the mean confidence of the edges.
    """
    keys = {"best": -shown.gain, "worst": shown.gain, "least_sure": shown.confidence.mean(axis=1)}
    return {name: np.argsort(values.round(9), kind="stable")[:SHOWN] for name, values in keys.items()}


TITLES: Mapping[str, str] = {
    "best": "gained most over the rough box",
    "worst": "gained least over the rough box, or lost",
    "least_sure": "least sure",
}


def draw_sheet(name: str, shown: Shown, places: NDArray[np.int64], picture: Callable[[int], tuple[int, Picture]]) -> Picture:
    """A sheet of boxes.

    Args:
        name: of `TITLES`.
        shown: the boxes of a split.
        places: which of them; one or more.
        picture: from a row to the id of its image and its pixels at any size.
    """
    tiles = []
    for place in places.tolist():
        image_id, pixels = picture(int(shown.results.rows[place]))
        tiles.append(draw_tile(pixels, shown, place, image_id))
    width = max(tile.shape[1] for tile in tiles)
    wide = [widened(tile, width) for tile in tiles]
    rows = [side_by_side(wide[start : start + COLUMNS], 2 * GAP) for start in range(0, len(wide), COLUMNS)]
    heading = f"{name}: {TITLES[name]} (annotation in image, IoU of rough and snapped box, confidence of left, top, right, bottom)"
    return stacked([text_line(heading), legend(LEGEND), *rows])
