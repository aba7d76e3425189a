"""Value types that several rooms share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, NewType

ImageId = NewType("ImageId", int)
"""COCO `images[].id`."""

AnnotationId = NewType("AnnotationId", int)
"""COCO `annotations[].id`."""

HW = tuple[int, int]
"""A size as (height, width)."""


@dataclass(frozen=True)
class FeatureSpec:
    """What a head must know of one cached tensor; read from the store, never typed by hand.

    Attributes:
        name: name of the layer in the store, such as `layer_34`.
        channels: number of channels (> 0).
        stride_hw: network-input pixels per cell, (vertical, horizontal).
    """

    name: str
    channels: int
    stride_hw: tuple[float, float]

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"FeatureSpec {self.name!r}: channels is {self.channels}, expected at least 1")


Provider = Literal["auto", "cuda", "tensorrt", "cpu"]
"""Where onnxruntime runs; `auto` is a CUDA device where there is one, else the processor."""

Precision = Literal["float32", "tf32", "float16"]
"""Arithmetic of the convolutions."""

MAX_ROIS = 64
"""ROIs in one pass of a head, which bounds memory in an image of 289 people."""

StoredType = Literal["float16", "int8"]
"""Types that features are stored in."""

INT8_MAX = 127
"""Largest magnitude of a stored int8 value; -128 isn't used."""


@dataclass(frozen=True)
class CutLayer:
    """One output of a cut graph, and one array of a store.

    Attributes:
        name: name of the layer in params and store.
        tensor: name of the tensor in the detector.
        channels: C.
        hw: (H, W) in cells, at the size of the network input.
    """

    name: str
    tensor: str
    channels: int
    hw: HW


View = Literal["plain", "mirrored"]
"""Which way round the detector saw an image: as it is, or flipped left to right."""

PLAIN: View = "plain"
MIRRORED: View = "mirrored"
IMAGE = "image"
"""Name of the network-input image among the arrays of a store; heads may read it like a layer, with stride 1."""
TEACHER = "teacher"
"""Name of a people net's logits (N, 1, h, w), more than 0 where there is a person, in a store of their own; heads read them like a
layer, and any stride will do."""


class Window(NamedTuple):
    """A part of a map in cells: rows top to bottom - 1, columns left to right - 1."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class StoredArray:
    """One array of a store: a value of this shape for every image.

    Attributes:
        name: path in the store, such as `layer_34`, `mirrored/layer_34` or `image`.
        channels: C.
        hw: (H, W) in cells.
        dtype: `float16`, `int8` or `uint8`.
        origin: digest of all that decides its values, or empty where nobody asks.
        attributes: kept with the array.
    """

    name: str
    channels: int
    hw: HW
    dtype: str
    origin: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, *self.hw)


def array_name(layer: str, view: View) -> str:
    """Path of a layer in a store; the image of the mirrored view is the image, flipped, and not stored again."""
    return layer if view == PLAIN or layer == IMAGE else f"{view}/{layer}"
