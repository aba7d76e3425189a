"""`multiscale`: several layers fused, residual blocks, decoded at four times the ROI grid and sampled down again.

Layers of 256, 512 and 1024 channels and 256 mid channels make the seed's 4,620,934 parameters with adaptive fusion, 4,818,307 with
concat and 4,620,931 with sum.

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


class MultiscaleParams(ComposedParams):
    """Section `model` for `head: multiscale`."""

    head: Literal["multiscale"]


def build_multiscale(params: MultiscaleParams, specs: Sequence[FeatureSpec]) -> ComposedHead:
    """The head for these layers, with fresh weights.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, style, up = params.mid_channels, params.blocks, params.blocks.up
    half, quarter = mid // 2, mid // 4
    decoder = PlainDecoder(
        UpNormAct(mid, mid, kernel=2, style=up),
        residual(mid, up),
        UpNormAct(mid, half, kernel=2, style=up),
        conv(half, half, up),
        conv(half, quarter, up, stride=2),
        nn.Conv2d(quarter, len(CLASS_NAMES), 1),
        mask_hw=params.mask_hw,
    )
    return compose(params, specs, residual(mid, style, 2), decoder)
