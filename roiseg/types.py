"""Value types that several rooms share."""

from dataclasses import dataclass
from typing import Literal, NewType

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


StoredType = Literal["float16", "int8"]
"""Types that features are stored in."""


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
