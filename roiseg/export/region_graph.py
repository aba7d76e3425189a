"""From person boxes, or the detector's own output, to regions of interest inside a graph.

Every number is float64 and every step that of `roiseg.geometry`, since a box that ends in the middle of a pixel gains or loses a
row by the last bit.

Symbols: R ROIs, (H, W) pixels of an image.
"""

from dataclasses import dataclass

import numpy as np

from roiseg.export.graph_writer import GraphWriter, Value
from roiseg.export.preprocess_graph import Axis


@dataclass(frozen=True)
class Regions:
    """Regions of interest.

    Attributes:
        images: (R,) int64 numbers of their images.
        boxes: (R, 5) float32 of image number and xyxy in the unit frame, as heads take them.
        boxes_image: (R, 4) float64 xyxy, image frame; not cut to the image where padding goes beyond a letterboxed one.
        alive: (R,) whether any of the person's box lies in the image.
    """

    images: Value
    boxes: Value
    boxes_image: Value
    alive: Value


class Frames:
    """The ways between image and unit frame, for boxes (R, 4) xyxy."""

    def __init__(self, axes: tuple[Axis, Axis]) -> None:
        """Read the axes once.

        Args:
            axes: rows and columns.
        """
        rows, columns = axes
        self.writer: GraphWriter = rows.size.writer
        order = (columns, rows, columns, rows)
        self._scale = self._corners([axis.scale for axis in order])
        self._shift = self._corners([axis.shift for axis in order])
        self._limit = self._corners([axis.size for axis in order])
        self.network = self.writer.constant(np.array([float(axis.network) for axis in order]))

    def _corners(self, numbers: list[Value]) -> Value:
        return self.writer.concat([number.reshape(1) for number in numbers], 0)

    def to_unit(self, boxes_image: Value) -> Value:
        """`Resize.boxes_to_unit`."""
        return boxes_image * self._scale + self._shift

    def to_image(self, boxes: Value) -> Value:
        """`Resize.boxes_to_image`."""
        return (boxes - self._shift) / self._scale

    def clip(self, boxes_image: Value) -> Value:
        """`clip_boxes` to the image."""
        return self.writer.op("Min", self.writer.op("Max", boxes_image, 0.0), self._limit)


def person_regions(images: Value, boxes_image: Value, frames: Frames, padding: float) -> Regions:
    """The ROIs of person boxes.

    Args:
        images: (R,) int64 numbers of their images.
        boxes_image: (R, 4) float64 xyxy, image frame.
        frames: of the images.
        padding: share of a box's width and height that is added on each side.
    """
    writer = frames.writer
    clipped = frames.clip(boxes_image)
    unit = frames.to_unit(clipped)
    low, high = unit.pick((0, 1), 1), unit.pick((2, 3), 1)
    margin = (high - low) * padding
    padded = writer.concat([low - margin, high + margin], 1)
    rois = writer.op("Min", writer.op("Max", padded, 0.0), 1.0)
    numbered = writer.concat([images.unsqueeze(1).cast(np.float32), rois.cast(np.float32)], 1)
    return Regions(images, numbered, frames.to_image(rois), has_area(clipped))


def has_area(boxes: Value) -> Value:
    """Whether boxes (R, 4) xyxy hold anything: (R,)."""
    longer = boxes.pick((2, 3), 1) > boxes.pick((0, 1), 1)  # [R, 2]
    return longer.pick(0, 1) & longer.pick(1, 1)


@dataclass(frozen=True)
class FoundBoxes:
    """The detector's own boxes, image by image, best score first.

    Attributes:
        images: (R,) int64 numbers of their images.
        boxes_image: (R, 4) float64 xyxy, image frame, clipped to the image.
        scores: (R,) float32.
    """

    images: Value
    boxes_image: Value
    scores: Value

    def picked(self, places: Value) -> "FoundBoxes":
        """Those at some places (r,)."""
        return FoundBoxes(self.images.pick(places, 0), self.boxes_image.pick(places, 0), self.scores.pick(places, 0))


def found_boxes(raw: Value, frames: Frames, person_class: int, min_score: float) -> FoundBoxes:
    """The people among detections, by the rule of `roiseg.extractor.detections.read_detections`.

    Args:
        raw: (n, 7) of batch number, class, score, x0, y0, x1, y1 in network pixels.
        frames: of the images.
        person_class: the class that counts.
        min_score: the score that counts.
    """
    writer = frames.writer
    raw = raw.cast(np.float32)
    kept = writer.nonzero(raw.pick(1, 1).same(float(person_class)) & (raw.pick(2, 1) >= min_score))
    raw = raw.pick(kept, 0)
    boxes_image = frames.clip(frames.to_image(raw.pick((3, 4, 5, 6), 1).cast(np.float64) / frames.network))
    found = FoundBoxes(raw.pick(0, 1).cast(np.int64), boxes_image, raw.pick(2, 1))
    found = found.picked(writer.nonzero(has_area(frames.to_unit(boxes_image))))
    found = found.picked(writer.descending(found.scores))
    return found.picked(writer.descending(found.images * -1))
