"""`baseline`: residual blocks on the ROI grid, decoded at two and at four times its resolution.

One layer of 1024 channels and 256 mid channels make the seed's 5,791,555 parameters.

Symbols: R ROIs, M `mid_channels`, (g, g') the ROI grid, (h, w) cells of the mask.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from roiseg.classes import CLASS_NAMES
from roiseg.heads.composed import ComposedHead, ComposedParams, compose
from roiseg.nn.blocks import UpNormAct, conv, residual, resize
from roiseg.nn.outputs import HeadOutput
from roiseg.nn.style import Style
from roiseg.types import HW, FeatureSpec


class BaselineParams(ComposedParams):
    """Section `model` for `head: baseline`."""

    head: Literal["baseline"]


class BaselineDecoder(nn.Module):
    """Features at twice the grid and details from four times the grid, joined at mask size."""

    def __init__(self, channels: int, style: Style, *, mask_hw: HW) -> None:
        """Build the decoder.

        Args:
            channels: M.
            style: norms and activations.
            mask_hw: (h, w).
        """
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.up = nn.Sequential(UpNormAct(channels, channels, kernel=4, style=style), residual(channels, style))
        self.fine = nn.Sequential(
            UpNormAct(channels, half, kernel=4, style=style),
            conv(half, half, style),
            conv(half, half, style),
            conv(half, quarter, style),
        )
        # Without an activation between them the two would be one linear map.
        self.logits = nn.Sequential(
            nn.Conv2d(channels + quarter, half, 1), style.make_activation(), nn.Conv2d(half, len(CLASS_NAMES), 1)
        )
        self._mask_hw = mask_hw

    def forward(self, shared: Tensor) -> HeadOutput:
        """(R, M, g, g') -> logits (R, 3, h, w)."""
        x = self.up(shared)  # [R, M, 2g, 2g']
        joined = torch.cat([resize(part, self._mask_hw) for part in (x, self.fine(x))], dim=1)
        return HeadOutput(self.logits(joined), {})


def build_baseline(params: BaselineParams, specs: Sequence[FeatureSpec]) -> ComposedHead:
    """The head for these layers, with fresh weights.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, style = params.mid_channels, params.blocks
    decoder = BaselineDecoder(mid, style.up, mask_hw=params.mask_hw)
    return compose(params, specs, residual(mid, style, 2), decoder)
