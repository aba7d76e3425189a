"""`class_specific`: a path for each class, so that no class's gradient is another's, and a word between them at the end.

256 mid channels behind fused inputs make the seed's 5,516,381 parameters, 4,219,866 of them behind the attention.

Symbols: R ROIs, M `mid_channels`, (g, g') the ROI grid, (h, w) cells of the mask.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from roiseg.classes import CLASS_NAMES
from roiseg.heads.composed import ComposedHead, ComposedParams, compose
from roiseg.nn.blocks import UpNormAct, conv, residual, resize
from roiseg.nn.fusion import total
from roiseg.nn.outputs import HeadOutput
from roiseg.nn.style import Style
from roiseg.types import HW, FeatureSpec

DAMPENING = (0.5, 1.0, 1.0)
"""Factor on the attention of background, target and non-target: the background, which is the most, speaks less."""

CLASSES, TALK = len(CLASS_NAMES), 12
"""Classes, and channels of the word between them."""


class ClassSpecificParams(ComposedParams):
    """Section `model` for `head: class_specific`."""

    head: Literal["class_specific"]


class ClassAttention(nn.Module):
    """The mean of a copy for each class, each weighed cell by cell: (R, C, g, g') -> the same."""

    def __init__(self, channels: int, style: Style) -> None:
        """Build the block.

        Args:
            channels: C.
            style: activation.
        """
        super().__init__()
        inner = channels // 4
        self.factors = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, inner, 1), style.make_activation(), nn.Conv2d(inner, 1, 1), nn.Sigmoid())
            for _ in DAMPENING
        )

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, g, g') -> (R, C, g, g')."""
        shares = [factor(x) * damp for factor, damp in zip(self.factors, DAMPENING, strict=True)]
        return x * (total(shares) / len(shares))


class ClassPaths(nn.Module):
    """A logit of each class by a path of its own, and what they say to each other added."""

    def __init__(self, channels: int, style: Style, *, mask_hw: HW) -> None:
        """Build the decoder.

        Args:
            channels: M.
            style: norms and activations.
            mask_hw: (h, w).
        """
        super().__init__()
        half, quarter = channels // 2, channels // 4
        background = nn.Sequential(
            conv(channels, half, style), UpNormAct(half, quarter, kernel=2, style=style), nn.Conv2d(quarter, 1, 1)
        )
        self.paths = nn.ModuleList([background, _person_path(channels, style), _person_path(channels, style)])
        self.talk = nn.Sequential(nn.Conv2d(CLASSES, TALK, 1), style.make_activation(), nn.Conv2d(TALK, CLASSES, 1))
        self._mask_hw = mask_hw

    def forward(self, shared: Tensor) -> HeadOutput:
        """(R, M, g, g') -> logits (R, 3, h, w)."""
        logits = torch.cat([path(shared) for path in self.paths], dim=1)  # [R, 3, 2g, 2g']
        return HeadOutput(resize(logits + self.talk(logits), self._mask_hw), {})


def _person_path(channels: int, style: Style) -> nn.Sequential:
    half, quarter = channels // 2, channels // 4
    return nn.Sequential(
        conv(channels, half, style),
        residual(half, style, 2),
        UpNormAct(half, half, kernel=2, style=style),
        residual(half, style),
        conv(half, quarter, style),
        nn.Conv2d(quarter, 1, 1),
    )


def build_class_specific(params: ClassSpecificParams, specs: Sequence[FeatureSpec]) -> ComposedHead:
    """The head for these layers, with fresh weights.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, style = params.mid_channels, params.blocks
    trunk = nn.Sequential(
        residual(mid, style),
        nn.Conv2d(mid, mid, 1),
        ClassAttention(mid, style),
        residual(mid, style),
        nn.Conv2d(mid, mid, 1),
    )
    return compose(params, specs, trunk, ClassPaths(mid, style.up, mask_hw=params.mask_hw))
