"""`coarse`: one residual block, decoded at twice the ROI grid: the first stage of the seed's cascade.

256 mid channels behind fused inputs make the seed's 1,675,011 parameters; with a cascade behind it and the inputs of `multiscale`
4,891,020.

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


class CoarseParams(ComposedParams):
    """Section `model` for `head: coarse`."""

    head: Literal["coarse"]


def build_coarse(params: CoarseParams, specs: Sequence[FeatureSpec]) -> ComposedHead:
    """The head for these layers, with fresh weights.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, style, up = params.mid_channels, params.blocks, params.blocks.up
    decoder = PlainDecoder(
        UpNormAct(mid, mid // 2, kernel=2, style=up),
        residual(mid // 2, up),
        nn.Conv2d(mid // 2, len(CLASS_NAMES), 1),
        mask_hw=params.mask_hw,
    )
    return compose(params, specs, nn.Sequential(conv(mid, mid, style, kernel=1), residual(mid, style)), decoder)
