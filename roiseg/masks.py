"""Segmentations, ROI targets and distances.

A pixel of the target and of another person is target.

Symbols: (H, W) image size, (h, w) mask size.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from roiseg.classes import CLASS_NAMES, NON_TARGET, TARGET, Bools, Floats32, Labels
from roiseg.geometry import Floats, Resize
from roiseg.types import HW

FAR = float(np.float32(1e4))
"""Distance in mask pixels that stands for "there is none of it in this ROI"."""


@dataclass(frozen=True)
class Segmentation:
    """Outline of one person, in exactly one of two forms.

    Attributes:
        polygons: each (P, 2) of x, y in the unit frame, P >= 3; None where the outline is an RLE.
        rle: COCO's compressed run lengths, `{"size": [H, W], "counts": text}`, in the image frame; None for polygons.
        resize: the way from the image frame to the unit frame.
    """

    polygons: tuple[Floats, ...] | None
    rle: dict[str, Any] | None
    resize: Resize

    def __post_init__(self) -> None:
        if (self.polygons is None) == (self.rle is None):
            raise ValueError("Segmentation: give polygons or an RLE, not both and not neither")

    def to_json(self) -> str:
        """Text for a table cell; `from_json` reads it back."""
        if self.rle is not None:
            return json.dumps(self.rle, separators=(",", ":"))
        return json.dumps([polygon.round(7).tolist() for polygon in self.polygons or ()], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, resize: Resize) -> "Segmentation":
        """Read what `to_json` wrote."""
        value = json.loads(text)
        if isinstance(value, dict):
            return cls(None, value, resize)
        return cls(tuple(np.array(polygon, dtype=np.float64) for polygon in value), None, resize)

    @classmethod
    def from_coco(cls, value: Any, resize: Resize) -> "Segmentation":  # noqa: ANN401 - COCO holds lists or dicts
        """A COCO `segmentation` of the image frame: a list of flat polygons, or an RLE (compressed or not)."""
        if isinstance(value, dict):
            return cls(None, compressed_rle(value), resize)
        points = (np.array(flat, dtype=np.float64).reshape(-1, 2) for flat in value)
        return cls(tuple(resize.points_to_unit(item) for item in points), None, resize)

    def rasterise(self, box: Floats, out_hw: HW) -> Bools:
        """The part inside a box, sampled at the centres of a grid.

        Args:
            box: (4,) xyxy, unit frame, of positive area.
            out_hw: rows and columns of the grid.

        Returns:
            (h, w), true where the centre of the cell belongs to the person.
        """
        if self.polygons is not None:
            return _fill_polygons(self.polygons, box, out_hw)
        whole = np.asarray(coco_mask.decode(self.rle), dtype=bool)
        grid = box.reshape(2, 2)
        steps = [(np.arange(count) + 0.5) / count for count in out_hw]
        corner, size = grid[0], grid[1] - grid[0]
        xs = self.resize.points_to_image(np.stack([corner[0] + steps[1] * size[0], np.zeros(out_hw[1])], axis=1))[:, 0]
        ys = self.resize.points_to_image(np.stack([np.zeros(out_hw[0]), corner[1] + steps[0] * size[1]], axis=1))[:, 1]
        rows, columns = np.floor(ys).astype(np.int64), np.floor(xs).astype(np.int64)
        inside = ((rows >= 0) & (rows < whole.shape[0]))[:, None] & ((columns >= 0) & (columns < whole.shape[1]))[None]
        picked = whole[np.ix_(rows.clip(0, whole.shape[0] - 1), columns.clip(0, whole.shape[1] - 1))]
        return np.asarray(picked & inside)


def compressed_rle(value: dict[str, Any]) -> dict[str, Any]:
    """COCO's RLE with its counts as ASCII text, whichever of the three spellings came in."""
    counts = value["counts"]
    size = [int(item) for item in value["size"]]
    if isinstance(counts, list):
        counts = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)["counts"]
    return {"size": size, "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def rle_runs(counts: str) -> list[int] | None:
    """Run lengths of a compressed COCO RLE, or None where the text isn't one.

    pycocotools leaves memory unset where the runs end before the image does, so they are checked before it sees them. The
    text holds little-endian groups of 5 bits in characters from "0" on, bit 5 marks that more follow; from the fourth run
    on it is the difference to the run two before (`rleFrString` in maskApi.c).
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return None if shift else runs


def _fill_polygons(polygons: Sequence[Floats], box: Floats, out_hw: HW) -> Bools:
    height, width = out_hw
    scale = np.array([width, height]) / (box[2:] - box[:2])
    flat = [((polygon - box[:2]) * scale).ravel() for polygon in polygons]
    runs = coco_mask.merge(coco_mask.frPyObjects(flat, height, width))
    return np.asarray(coco_mask.decode(runs), dtype=bool)


def roi_labels(box: Floats, target: Segmentation, others: Iterable[Segmentation], out_hw: HW) -> Labels:
    """The three-class target of one ROI, rasterised straight at mask size.

    Args:
        box: (4,) xyxy, unit frame.
        target: the person the ROI belongs to.
        others: every other person that may reach into the box, however small.
        out_hw: mask size.

    Returns:
        (h, w) of 0, 1, 2.
    """
    labels = np.zeros(out_hw, dtype=np.uint8)
    for other in others:
        labels[other.rasterise(box, out_hw)] = NON_TARGET
    labels[target.rasterise(box, out_hw)] = TARGET
    return labels


def frame_labels(people: Sequence[Segmentation], numbers: Sequence[int], out_hw: HW) -> Labels:
    """The three-class target of each of some people over the whole unit frame; memory grows with `numbers`, not with `people`.

    Args:
        people: everybody in the image.
        numbers: r positions in it of those that are targets; the same one may come several times.
        out_hw: rows and columns of the grid that is laid over the frame.

    Returns:
        (r, H, W) of 0, 1, 2.
    """
    frame, wanted = np.array([0.0, 0.0, 1.0, 1.0]), set(numbers)
    anybody = np.zeros(out_hw, dtype=bool)
    own: dict[int, Bools] = {}
    for number, person in enumerate(people):
        found = person.rasterise(frame, out_hw)
        anybody |= found
        if number in wanted:
            own[number] = found
    labels = np.repeat((anybody * np.uint8(NON_TARGET))[None], len(numbers), axis=0)
    for place, number in enumerate(numbers):
        labels[place][own[number]] = TARGET
    return labels


@dataclass(frozen=True)
class LabelDistances:
    """Euclidean distances in mask pixels for each pixel centre of a label map (h, w); `FAR` where there is nothing.

    Attributes:
        boundary: to the nearest border between two labels, which runs half a pixel from the centres beside it.
        target: to the nearest target pixel (0 on the target).
        non_target: to the nearest non-target pixel (0 on it).
    """

    boundary: Floats32
    target: Floats32
    non_target: Floats32


def label_distances(labels: Labels) -> LabelDistances:
    """Distances that the boundary-aware losses weight pixels by.

    Args:
        labels: (h, w) of 0, 1, 2.
    """
    boundary = np.zeros(labels.shape, dtype=np.float32)
    for label in range(len(CLASS_NAMES)):
        boundary += _distance_to_zero(labels == label)
    boundary = np.minimum(np.where(boundary < FAR, boundary - 0.5, FAR), FAR).astype(np.float32)
    return LabelDistances(boundary, _distance_to_zero(labels != TARGET), _distance_to_zero(labels != NON_TARGET))


def _distance_to_zero(nonzero: Bools) -> Floats32:
    """Pixels to the nearest False, centre to centre, with every bit settled: `FAR` where there is none.

    OpenCV's last bit depends on where its arrays lie in memory; the squares of the distances are whole numbers.
    """
    if nonzero.all():
        return np.full(nonzero.shape, FAR, dtype=np.float32)
    distance = cv2.distanceTransform(nonzero.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.round(distance.astype(np.float64) ** 2)).astype(np.float32)


def encode_mask(mask: Bools) -> dict[str, Any]:
    """Compressed COCO RLE of a full-size mask (H, W), with text counts."""
    return compressed_rle(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))
