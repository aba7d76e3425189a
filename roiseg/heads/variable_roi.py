"""`variable_roi`: layers of different ROI grids fused, residual blocks, decoded at twice the grid.

Layers of 256, 512 and 1024 channels on grids of 56, 28 and 28, adaptive fusion, smoothing and 256 mid channels make the seed's
7,516,166 parameters; grids of 56, 42 and 28 its 9,877,766, with the image beside the last layer 9,964,006, beside all 10,005,350.

Symbols: M `mid_channels`.
"""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from roiseg.classes import CLASS_NAMES
from roiseg.heads.composed import ComposedHead, ComposedParams, compose
from roiseg.nn.blocks import UpNormAct, conv, residual
from roiseg.nn.decoders import PlainDecoder
from roiseg.types import FeatureSpec


class VariableRoiParams(ComposedParams):
    """Section `model` for `head: variable_roi`."""

    head: Literal["variable_roi"]


def build_variable_roi(params: VariableRoiParams, specs: Sequence[FeatureSpec]) -> ComposedHead:
    """The head for these layers, with fresh weights.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, style, up = params.mid_channels, params.blocks, params.blocks.up
    decoder = PlainDecoder(
        UpNormAct(mid, mid, kernel=2, style=up),
        residual(mid, up),
        conv(mid, mid // 2, up),
        nn.Conv2d(mid // 2, len(CLASS_NAMES), 1),
        mask_hw=params.mask_hw,
    )
    return compose(params, specs, residual(mid, style, 2), decoder)
