"""Shapes of the stored maps that a model is built for."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from roiseg.errors import StoreMismatchError
from roiseg.types import HW, FeatureSpec


@dataclass(frozen=True)
class MapShape:
    """Of one layer.

    Attributes:
        channels: C.
        hw: (H, W) in cells.
    """

    channels: int
    hw: HW

    @classmethod
    def of(cls, spec: FeatureSpec, image_hw: HW) -> "MapShape":
        """Of a layer, given the size of the network input."""
        height, width = (round(size / stride) for size, stride in zip(image_hw, spec.stride_hw, strict=True))
        return cls(spec.channels, (height, width))


def check_maps(features: Mapping[str, Tensor], shapes: Mapping[str, MapShape]) -> None:
    """See that maps have the shapes that a model was built for: at another scale it would answer, and badly.

    Args:
        features: layer -> (B, C, H, W).
        shapes: layer -> shape.

    Raises:
        StoreMismatchError: names the first that differs.
    """
    for name, shape in shapes.items():
        found, wanted = tuple(features[name].shape[1:]), (shape.channels, *shape.hw)
        if found != wanted:
            raise StoreMismatchError(
                f"layer {name!r}: the Snapper was built for maps of {list(wanted)} and is given {list(found)}; build it for the "
                "size of the network input of the store (extractor.input_hw)"
            )
