"""What the backbone costs, counted without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roiseg.sample.topology import ConvSpec
from roiseg.sample.walker import Walker


@dataclass(frozen=True)
class MapShape:
    """A map without its values.

    Attributes:
        channels: Number of channels.
        stride: Network-input pixels per cell.
    """

    channels: int
    stride: int


class Counter:
    """Interpreter that notes every convolution and the stride of its output."""

    def __init__(self) -> None:
        self.convs: list[tuple[ConvSpec, int]] = []

    def channels(self, value: MapShape) -> int:
        """See `Interpreter`."""
        return value.channels

    def conv(self, value: MapShape, spec: ConvSpec) -> MapShape:
        """See `Interpreter`."""
        stride = value.stride * spec.stride
        self.convs.append((spec, stride))
        return MapShape(spec.outputs, stride)

    def add(self, name: str, values: Sequence[MapShape]) -> MapShape:
        """See `Interpreter`; refuses maps that don't fit, which would be a fault in the table."""
        if len(set(values)) != 1:
            raise ValueError(f"{name}: adds maps of different shapes: {values}")
        return values[0]

    def concat(self, name: str, values: Sequence[MapShape]) -> MapShape:
        """See `Interpreter`; refuses maps of different strides, which would be a fault in the table."""
        if len({value.stride for value in values}) != 1:
            raise ValueError(f"{name}: joins maps of different strides: {values}")
        return MapShape(sum(value.channels for value in values), values[0].stride)

    def split(self, name: str, value: MapShape, sizes: Sequence[int]) -> list[MapShape]:
        """See `Interpreter`."""
        del name
        return [MapShape(size, value.stride) for size in sizes]

    def upsample(self, name: str, value: MapShape, factor: int) -> MapShape:
        """See `Interpreter`."""
        del name
        return MapShape(value.channels, value.stride // factor)

    def max_pool(self, name: str, value: MapShape, kernel: int, stride: int) -> MapShape:
        """See `Interpreter`."""
        del name, kernel
        return MapShape(value.channels, value.stride * stride)

    def avg_pool(self, name: str, value: MapShape) -> MapShape:
        """See `Interpreter`."""
        del name
        return value

    def flatten(self, name: str, values: Sequence[MapShape]) -> MapShape:
        """See `Interpreter`."""
        del name
        return MapShape(values[0].channels, 1)


def list_convs(width: float) -> list[ConvSpec]:
    """All convolutions of the network, in the order in which they run.

    Args:
        width: Factor on all channels.

    Returns:
        Their specs.
    """
    counter = Counter()
    Walker(counter, width).run(MapShape(3, 1))
    return [spec for spec, _ in counter.convs]


def feature_shapes(width: float) -> dict[int, MapShape]:
    """Channels and strides of the inner maps, by layer number.

    Args:
        width: Factor on all channels.

    Returns:
        The shapes, among them those of `topology.FEATURES`.
    """
    return Walker(Counter(), width).run(MapShape(3, 1))[0]


def count_gflops(width: float, input_hw: tuple[int, int] = (640, 640)) -> float:
    """Work for one image: two operations for each multiply-add of each convolution.

    Args:
        width: Factor on all channels.
        input_hw: Height and width of the network's input, in pixels.

    Returns:
        10^9 floating point operations; about 190 for YOLOv9-E at width 1.
    """
    counter = Counter()
    Walker(counter, width).run(MapShape(3, 1))
    total = 0.0
    for spec, stride in counter.convs:
        cells = (input_hw[0] // stride) * (input_hw[1] // stride)
        total += 2.0 * spec.kernel**2 * spec.inputs // spec.groups * spec.outputs * cells
    return total / 1e9


def count_parameters(width: float) -> int:
    """Weights and biases, batch norm folded.

    Args:
        width: Factor on all channels.

    Returns:
        Their number.
    """
    return sum(spec.kernel**2 * spec.inputs // spec.groups * spec.outputs + spec.outputs for spec in list_convs(width))
