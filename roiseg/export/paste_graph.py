"""From the probabilities of ROIs to masks of images inside a graph: pasted, filtered, and each pixel given to one person.

What `roiseg.paste` and `roiseg.overlap` do in windows, a graph does over whole images, by two matrix products for each ROI. The
people of an image lie in slots of it, the first of which is nobody's, so that the arg-max of each pixel needs no scatter into
images: those of onnxruntime aren't safe where several values meet (microsoft/onnxruntime#18048).

Symbols: N images, R ROIs, S = N * K slots, (h, w) cells of the mask, (H, W) pixels of an image.
"""

import json
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx

from roiseg.classes import BACKGROUND, NON_TARGET, TARGET
from roiseg.export.graph_writer import Value
from roiseg.export.region_graph import Regions
from roiseg.onnx_names import METADATA_KEY
from roiseg.types import HW

BANDS = 8
"""Parts of the image's height that are decided one after the other: maps (S, H, W) of floats are the most that a graph holds."""

SURE = 2.0**100
"""Times a margin: anything above 0 is then above 1."""

LEAST_WORTH = 1e-30
"""What a claimed pixel is worth beyond the ROI, where only a filter claims any; too little to change a float32 that isn't 0."""


@dataclass(frozen=True)
class Canvas:
    """The images that masks are pasted into: int64 numbers.

    Attributes:
        count: N.
        height: H.
        width: W.
    """

    count: Value
    height: Value
    width: Value


@dataclass(frozen=True)
class _Slots:
    """Where each ROI lies among the slots of all images.

    Attributes:
        per_image: K, int64.
        of_roi: (R,) int64, the slot of each ROI.
        roi: (S,) int64, one more than the ROI of each slot; 0 for nobody.
    """

    per_image: Value
    of_roi: Value
    roi: Value

    def spread(self, values: Value, shape: tuple[int, ...]) -> Value:
        """Values (R, *shape) of ROIs as (S, *shape); 0 for nobody."""
        nobody = values.writer.constant(np.zeros((1, *shape), dtype=values.dtype))
        return values.writer.concat([nobody, values], 0).pick(self.roi, 0)


def _slots(images: Value, canvas: Canvas) -> _Slots:
    writer = images.writer
    rois = writer.count(images.size(0))
    before = images.unsqueeze(1).same(images.unsqueeze(0)) & (rois.unsqueeze(0) < rois.unsqueeze(1))  # [R, R]
    rank = before.cast(np.int64).reduce("Sum", [1])
    # Nobody's slot, and those up to the highest rank of any image.
    per_image = writer.concat([writer.constant(np.array([-1])), rank], 0).reduce("Max", [0]) + 2
    of_roi = images * per_image + rank + 1
    empty = writer.op("ConstantOfShape", (canvas.count * per_image).reshape(1), value=_ZERO)
    return _Slots(per_image, of_roi, writer.op("ScatterElements", empty, of_roi, rois + 1, axis=0))


_ZERO = onnx.numpy_helper.from_array(np.zeros(1, dtype=np.int64))


def _axis_weights(low: Value, high: Value, cells: int, pixels: Value) -> Value:
    """How much each cell of an axis gives to each pixel of the image: bilinear between cell centres, nothing outside the ROI.

    Args:
        low: (S,) float64, where the ROIs begin on this axis, image frame.
        high: (S,) where they end.
        cells: h or w.
        pixels: H or W.

    Returns:
        (S, H or W, cells) float32; rows sum to 1 where the pixel's centre lies in the ROI, and to 0 elsewhere.
    """
    writer = low.writer
    pixel = writer.count(pixels).cast(np.float64)
    first, last = low.unsqueeze(1), high.unsqueeze(1)
    inside = (pixel >= first - 0.5) & (pixel <= last - 0.5)  # [S, pixels]
    size = writer.op("Max", last - first, float(np.finfo(np.float32).tiny))
    at = ((pixel + 0.5 - first) / size * float(cells) - 0.5).cast(np.float32)
    at = writer.op("Clip", at, writer.number(0, np.float32), writer.number(cells - 1, np.float32)).unsqueeze(2)
    centre = writer.constant(np.arange(cells, dtype=np.float32))
    weight = writer.op("Relu", 1.0 - writer.op("Abs", at - centre))  # [S, pixels, cells]
    return writer.where(inside.unsqueeze(2), weight, 0.0)


def confidence(probabilities: Value, alive: Value) -> Value:
    """`roiseg.placed.confidence` of each ROI; 0 for a box without area.

    Args:
        probabilities: (R, 3, h, w).
        alive: (R,).

    Returns:
        (R,) float32.
    """
    writer = probabilities.writer
    target, other = probabilities.pick(TARGET, 1), probabilities.pick(NON_TARGET, 1)
    won = _margin(probabilities) > 0.0
    total = writer.where(won, target * (1.0 - other), 0.0).reduce("Sum", [1, 2])
    count = writer.op("Max", won.cast(np.float32).reduce("Sum", [1, 2]), 1.0)
    return writer.where(alive, total / count, 0.0)


def _margin(probabilities: Value) -> Value:
    """How far the target is above both other classes: (R, h, w)."""
    others = [probabilities.pick(number, 1) for number in (BACKGROUND, NON_TARGET)]
    return probabilities.pick(TARGET, 1) - probabilities.writer.op("Max", *others)


def image_masks(
    probabilities: Value, regions: Regions, canvas: Canvas, mask_hw: HW, smoothing: onnx.ModelProto | None
) -> tuple[Value, Value]:
    """Masks of images, which don't overlap within an image.

    Args:
        probabilities: (R, 3, h, w) float32.
        regions: where they lie.
        canvas: the images.
        mask_hw: (h, w).
        smoothing: a filter as `roiseg.export.filter_onnx.filter_graph` makes it, for the claims of each person; or None.

    Returns:
        (R, H, W) uint8 of 0 and 1, and (R,) float32 confidences.
    """
    writer = probabilities.writer
    height, width = mask_hw
    slots = _slots(regions.images, canvas)
    scores = confidence(probabilities, regions.alive)
    boxes = slots.spread(regions.boxes_image, (4,))
    rows = _axis_weights(boxes.pick(1, 1), boxes.pick(3, 1), height, canvas.height)  # [S, H, h]
    columns = _axis_weights(boxes.pick(0, 1), boxes.pick(2, 1), width, canvas.width)  # [S, W, w]
    columns = writer.op("Transpose", columns, perm=[0, 2, 1])
    alive = regions.alive.unsqueeze(1, 2)  # what a head says of a box without area may be no number
    claim = writer.where(alive, _margin(probabilities), 0.0)
    worth = slots.spread(writer.where(alive, probabilities.pick(TARGET, 1) * scores.unsqueeze(1, 2), 0.0), mask_hw)
    # A filter sees claims as `roiseg.placed.Pasted` has them, which are 0 outside the ROI.
    claim = slots.spread(claim * SURE if smoothing is None else writer.where(alive, claim * 0.5 + 0.5, 0.0), mask_hw)
    claim, worth = (writer.op("MatMul", cells, columns) for cells in (claim, worth))  # [S, h, W]
    limits = [canvas.height * band / BANDS for band in range(BANDS + 1)]
    bands = list(enumerate(pairwise(limits)))
    if smoothing is None:
        offers = [_contest(_between(rows, *ends), claim, worth) for _, ends in bands]
    else:
        offers = [_Filter(smoothing, f"filter{band}").contest(rows, ends, claim, worth, canvas) for band, ends in bands]
    winner = writer.concat([_first_best(offer, slots, canvas) for offer in offers], 2)
    numbers = writer.count(slots.per_image).unsqueeze(1, 2)  # [K, 1, 1]
    shape = writer.concat([writer.constant(np.array([-1])), canvas.height.reshape(1), canvas.width.reshape(1)], 0)
    won = writer.op("Reshape", winner.same(numbers), shape)  # [S, H, W]
    return won.pick(slots.of_roi, 0).cast(np.uint8), scores


def _between(rows: Value, first: Value, end: Value) -> Value:
    """Some rows, the second axis of values of three."""
    axis = rows.writer.constant(np.array([1]))
    return rows.writer.op("Slice", rows, first.reshape(1), end.reshape(1), axis)


def _contest(rows: Value, claim: Value, worth: Value) -> Value:
    """What each person offers for each pixel, not above 0 where nothing is claimed.

    Args:
        rows: (S, some of H, h).
        claim: (S, h, W) margins times `SURE`, which puts those above 0 above everything that a pixel is worth.
        worth: (S, h, W).

    Returns:
        (S, some of H, W).
    """
    writer = rows.writer
    return writer.op("Min", writer.op("MatMul", rows, claim), writer.op("MatMul", rows, worth))


@dataclass(frozen=True)
class _Filter:
    """A filter between claim and worth.

    Attributes:
        model: its graph.
        name: what the names of its parts begin with.
    """

    model: onnx.ModelProto
    name: str

    def contest(self, rows: Value, ends: tuple[Value, Value], claim: Value, worth: Value, canvas: Canvas) -> Value:
        """`_contest` for the rows of the image between both ends; the filter sees as far beyond them as it looks."""
        writer, reach = rows.writer, _reach_px(self.model)
        seen = writer.op("Max", ends[0] - reach, 0), writer.op("Min", ends[1] + reach, canvas.height)
        maps = writer.op("MatMul", _between(rows, *seen), claim).unsqueeze(1)
        smooth = writer.op("Squeeze", writer.inline(self.model, self.name, {"input": maps})["output"], [1])
        claimed = (_between(smooth, ends[0] - seen[0], ends[1] - seen[0]) > 0.5).cast(np.float32)
        return (writer.op("MatMul", _between(rows, *ends), worth) + LEAST_WORTH) * claimed


def _reach_px(smoothing: onnx.ModelProto) -> int:
    """How many pixels away a filter sees, as it says itself."""
    told = next(item.value for item in smoothing.metadata_props if item.key == METADATA_KEY)
    return int(json.loads(told)["reach_px"])


def _first_best(offers: Value, slots: _Slots, canvas: Canvas) -> Value:
    """The slot (N, 1, some of H, W) int64 of the highest offer (S, some of H, W) for each pixel of each image; 0 is nobody."""
    writer = offers.writer
    shape = [canvas.count.reshape(1), slots.per_image.reshape(1), offers.size(1).reshape(1), canvas.width.reshape(1)]
    # An image of fewer rows than `BANDS` has bands without any: without `allowzero`, a size of 0 would stand for "as it was".
    stacked = writer.op("Reshape", offers, writer.concat(shape, 0), allowzero=1)
    return writer.op("ArgMax", stacked, dtype=np.int64, axis=1, keepdims=1)
