"""The network of the sample backbone: layers 0 to 42 of YOLOv9-E in its inference form, at any width.

The layers are those of the public definition `yolov9-e-converted` (Wang et al., "YOLOv9", arXiv:2402.13616): the
auxiliary branch is gone, a RepConvN is one 3x3 convolution. `Walker` goes through the table with an
interpreter: one counts, one runs in torch, one writes ONNX. What they do therefore can't drift apart.

Legend: N batch, C channels, H, W height and width of a map; stride: network-input pixels per cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

T = TypeVar("T")

FEATURES: Final[dict[int, str]] = {
    3: "/model.3/Concat_output_0",
    5: "/model.5/Concat_output_0",
    19: "/model.19/Concat_output_0",
    22: "/model.22/Concat_output_0",
    34: "/model.34/Concat_output_0",
}
"""Tensor names of the maps that heads may use, by layer: concatenations inside ELAN blocks, and that of the neck."""
FEATURE_STRIDES: Final[dict[int, int]] = {3: 4, 5: 8, 19: 4, 22: 8, 34: 8}

CLASSES: Final = 80
BOX_BINS: Final = 16

Layer = tuple[int, tuple[int, ...], str, tuple[int, ...]]
"""Number, numbers of the inputs (0 is the image), kind, arguments (channels at full width, or a factor)."""

TABLE: Final[tuple[Layer, ...]] = (
    (1, (0,), "conv", (64,)),
    (2, (1,), "conv", (128,)),
    (3, (2,), "elan", (256, 128, 64)),
    (4, (3,), "adown", (256,)),
    (5, (4,), "elan", (512, 256, 128)),
    (6, (5,), "adown", (512,)),
    (7, (6,), "elan", (1024, 512, 256)),
    (8, (7,), "adown", (1024,)),
    (9, (8,), "elan", (1024, 512, 256)),
    (10, (1,), "cblinear", (64,)),
    (11, (3,), "cblinear", (64, 128)),
    (12, (5,), "cblinear", (64, 128, 256)),
    (13, (7,), "cblinear", (64, 128, 256, 512)),
    (14, (9,), "cblinear", (64, 128, 256, 512, 1024)),
    (15, (0,), "conv", (64,)),
    (16, (10, 11, 12, 13, 14, 15), "cbfuse", (0,)),
    (17, (16,), "conv", (128,)),
    (18, (11, 12, 13, 14, 17), "cbfuse", (1,)),
    (19, (18,), "elan", (256, 128, 64)),
    (20, (19,), "adown", (256,)),
    (21, (12, 13, 14, 20), "cbfuse", (2,)),
    (22, (21,), "elan", (512, 256, 128)),
    (23, (22,), "adown", (512,)),
    (24, (13, 14, 23), "cbfuse", (3,)),
    (25, (24,), "elan", (1024, 512, 256)),
    (26, (25,), "adown", (1024,)),
    (27, (14, 26), "cbfuse", (4,)),
    (28, (27,), "elan", (1024, 512, 256)),
    (29, (28,), "spp", (512, 256)),
    (30, (29,), "upsample", (2,)),
    (31, (30, 25), "concat", ()),
    (32, (31,), "elan", (512, 512, 256)),
    (33, (32,), "upsample", (2,)),
    (34, (33, 22), "concat", ()),
    (35, (34,), "elan", (256, 256, 128)),
    (36, (35,), "adown", (256,)),
    (37, (36, 32), "concat", ()),
    (38, (37,), "elan", (512, 512, 256)),
    (39, (38,), "adown", (512,)),
    (40, (39, 29), "concat", ()),
    (41, (40,), "elan", (512, 1024, 512)),
    (42, (35, 38, 41), "detect", ()),
)


@dataclass(frozen=True)
class ConvSpec:
    """One convolution; padding keeps the size, so the output has 1 / stride of the input's height and width.

    Attributes:
        name: Name of the module, such as `model.3.cv1`.
        inputs: Input channels.
        outputs: Output channels.
        kernel: Height and width of the kernel.
        stride: Step.
        groups: Number of groups.
        normed: Followed by batch norm (folded in ONNX) and SiLU; if not, it has a bias and no activation.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    groups: int
    normed: bool


class Interpreter(Protocol[T]):
    """What `Walker` asks of whoever runs, counts or writes the network."""

    def channels(self, value: T) -> int:
        """Channels of a map."""

    def conv(self, value: T, spec: ConvSpec) -> T:
        """A convolution and, where `spec.normed`, its activation."""

    def add(self, name: str, values: Sequence[T]) -> T:
        """Sum of maps of one size."""

    def concat(self, name: str, values: Sequence[T]) -> T:
        """Maps one after the other along the channels."""

    def split(self, name: str, value: T, sizes: Sequence[int]) -> list[T]:
        """The reverse of `concat`."""

    def upsample(self, name: str, value: T, factor: int) -> T:
        """Nearest-neighbour enlargement."""

    def max_pool(self, name: str, value: T, kernel: int, stride: int) -> T:
        """Maximum over kernel x kernel, padded by kernel // 2."""

    def avg_pool(self, name: str, value: T) -> T:
        """Mean over 2x2 at stride 1, without padding: one row and one column less."""

    def flatten(self, name: str, values: Sequence[T]) -> T:
        """Maps (N, C, H, W) to one tensor (N, C, sum of H * W)."""


def scaled(channels: int, width: float) -> int:
    """Channels at a width: a multiple of 4, at least 4.

    Args:
        channels: Channels of the full network.
        width: Factor, above 0, at most 1.

    Returns:
        The number of channels.
    """
    return max(4, 4 * round(channels * width / 4))
