"""Images to network inputs inside a graph, to the bit as `roiseg.network_input` does it.

Symbols: N images, (H, W) pixels of an image, (h, w) pixels of the network input.
"""

from dataclasses import dataclass

import numpy as np

from roiseg.export.graph_writer import Value
from roiseg.network_input import LETTERBOX_GREY, InputRule
from roiseg.types import HW

WEIGHT_BITS = 11
"""OpenCV's bilinear resize of bytes weights its pixels by whole numbers that sum to 2**11 along each axis."""


@dataclass(frozen=True)
class Axis:
    """How one axis of the images fills the same axis of the network input; all are float64 numbers.

    Attributes:
        size: H or W.
        network: h or w, a Python int.
        content: network pixels that the image fills.
        offset: network pixels before it.
    """

    size: Value
    network: int
    content: Value
    offset: Value

    @property
    def scale(self) -> Value:
        """From the image frame to the unit frame; each step rounds as those of `geometry.Resize`."""
        return self.content / self.size / float(self.network)

    @property
    def shift(self) -> Value:
        """Added after `scale`."""
        return self.offset / float(self.network)


def image_axes(size_hw: tuple[Value, Value], network_hw: HW, mode: str) -> tuple[Axis, Axis]:
    """Rows and columns of images, as `geometry.Resize` lays them out.

    Args:
        size_hw: H and W, int64 numbers.
        network_hw: (h, w).
        mode: `stretch` or `letterbox`.
    """
    sizes = [size.cast(np.float64) for size in size_hw]
    writer = sizes[0].writer
    if mode == "stretch":
        contents = [writer.number(network, np.float64) for network in network_hw]
    else:
        ratios = [float(network) / size for network, size in zip(network_hw, sizes, strict=True)]
        least = writer.op("Min", *ratios)
        contents = [writer.op("Max", writer.op("Round", size * least), 1.0) for size in sizes]
    offsets = [writer.op("Floor", (float(network) - content) / 2.0) for network, content in zip(network_hw, contents, strict=True)]
    first, second = (Axis(*item) for item in zip(sizes, network_hw, contents, offsets, strict=True))
    return first, second


@dataclass(frozen=True)
class _Taps:
    """What each network pixel of an axis reads: two pixels of the image and their whole-number weights, int32."""

    low: Value
    high: Value
    low_weight: Value
    high_weight: Value
    inside: Value


def _taps(axis: Axis, *, settle: bool) -> _Taps:
    """OpenCV 5's way (`resizeGeneric_`): the place in float64, its share in float32, the weights rounded half to even.

    Args:
        axis: rows or columns.
        settle: whether a place beyond the first or last pixel reads that pixel alone, as OpenCV has it for columns; for rows it
            reads it twice, with both weights.
    """
    writer = axis.size.writer
    at = writer.constant(np.arange(axis.network, dtype=np.float64)) - axis.offset
    place = ((at + 0.5) * (1.0 / (axis.content / axis.size)) - 0.5).cast(np.float32)
    low = writer.op("Floor", place)
    share = place - low
    last = (axis.size - 1.0).cast(np.float32)
    if settle:
        share = writer.where((low >= 0.0) & (low < last), share, 0.0)
    first = writer.number(0, np.float32)
    ends = [writer.op("Clip", item, first, last).cast(np.int64) for item in (low, low + 1.0)]
    weights = [writer.op("Round", item * float(2**WEIGHT_BITS)).cast(np.int32) for item in (1.0 - share, share)]
    return _Taps(ends[0], ends[1], weights[0], weights[1], (at >= 0.0) & (at < axis.content))


def network_pixels(images: Value, axes: tuple[Axis, Axis], rule: InputRule) -> Value:
    """Images at the size of the network input.

    Args:
        images: (N, H, W, 3) uint8, BGR.
        axes: of the images.
        rule: how they become network inputs.

    Returns:
        (N, 3, h, w) float32 of whole numbers 0 to 255, BGR.
    """
    writer = images.writer
    rows, columns = (_taps(axis, settle=settle) for axis, settle in zip(axes, (False, True), strict=True))
    halves = []
    for row, weight in ((rows.low, rows.low_weight), (rows.high, rows.high_weight)):
        line = images.pick(row, 1)
        left, right = (line.pick(column, 2).cast(np.int32) for column in (columns.low, columns.high))  # [N, h, w, 3]
        across = left * columns.low_weight.unsqueeze(1) + right * columns.high_weight.unsqueeze(1)
        # OpenCV drops 4 bits before the second axis, and 16 behind it.
        halves.append(across / 2**4 * weight.unsqueeze(1, 2) / 2**16)
    pixels = ((halves[0] + halves[1] + 2) / 2**2).cast(np.float32)
    if rule.resize == "letterbox":
        inside = rows.inside.unsqueeze(1, 2) & columns.inside.unsqueeze(1)  # [h, w, 1]
        pixels = writer.where(inside, pixels, LETTERBOX_GREY)
    return writer.op("Transpose", pixels, perm=[0, 3, 1, 2])
