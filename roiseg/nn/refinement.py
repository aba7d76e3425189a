"""Parts that mend mask logits.

Symbols: R ROIs, C channels of the shared features, (g, g') their grid, (h, w) cells of the mask.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roiseg.classes import CLASS_NAMES
from roiseg.nn.blocks import Resize, UpNormAct, conv, residual
from roiseg.nn.style import Style
from roiseg.types import HW

CLASSES = len(CLASS_NAMES)

START_WEIGHT, XAVIER_GAIN = 0.01, 0.1
"""Of `BoundaryRefinement`: it begins as all but an identity."""

EPS = 1e-6
"""Added to squares and spans, so that a flat map has a finite gradient."""


class BoundaryRefinement(nn.Module):
    """Adds to the logits, where the probabilities change from cell to cell: (R, 3, h, w) -> the same."""

    def __init__(self, channels: int, style: Style) -> None:
        """Build the block.

        Args:
            channels: between its convolutions.
            style: norms and activations.
        """
        super().__init__()
        self.change = nn.Sequential(
            conv(CLASSES, channels, style), conv(channels, channels, style), nn.Conv2d(channels, CLASSES, 1)
        )
        self.weight = nn.Parameter(torch.tensor(START_WEIGHT))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight, gain=XAVIER_GAIN)

    def forward(self, logits: Tensor) -> Tensor:
        """(R, 3, h, w) -> (R, 3, h, w)."""
        refined: Tensor = logits + self.weight * self.change(logits) * probability_edges(logits)
        return refined


def probability_edges(logits: Tensor) -> Tensor:
    """How fast the class probabilities change: central differences, mean of the classes, from 0 to 1 in each ROI.

    Args:
        logits: (R, 3, h, w).

    Returns:
        (R, 1, h, w).
    """
    around = F.pad(logits.softmax(dim=1), (1, 1, 1, 1), mode="replicate")
    down = (around[:, :, 2:, 1:-1] - around[:, :, :-2, 1:-1]) / 2
    right = (around[:, :, 1:-1, 2:] - around[:, :, 1:-1, :-2]) / 2
    slope = (down.square() + right.square() + EPS**2).sqrt().mean(dim=1, keepdim=True)
    low, high = slope.amin(dim=(2, 3), keepdim=True), slope.amax(dim=(2, 3), keepdim=True)
    return (slope - low) / (high - low + EPS)


class SubPixels(nn.Module):
    """Four values of a cell as four cells: (R, 4K, g, g') -> (R, K, 2g, 2g').

    `torch.nn.PixelShuffle` does the same, but its gradient of no ROIs has another shape than its input.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(R, 4K, g, g') -> (R, K, 2g, 2g')."""
        apart: Tensor = torch.unflatten(x, 1, (x.shape[1] // 4, 2, 2))  # [R, K, 2, 2, g, g']
        return apart.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


def make_upsampling(kind: Literal["progressive", "subpixel"], channels: int, mask_hw: HW, style: Style) -> nn.Module:
    """Logits straight from the shared features, at more than the grid's resolution: (R, C, g, g') -> (R, 3, h, w).

    Args:
        kind: `progressive`: two transposed convolutions to four times the grid; `subpixel`: a convolution to four values a cell,
            which become four cells (Real-time single image super-resolution, section 3).
        channels: C.
        mask_hw: (h, w).
        style: norms and activations.
    """
    if kind == "subpixel":
        return nn.Sequential(nn.Conv2d(channels, CLASSES * 4, 3, padding=1), SubPixels(), Resize(mask_hw))
    half, quarter = channels // 2, channels // 4
    return nn.Sequential(
        UpNormAct(channels, half, kernel=4, style=style),
        residual(half, style),
        UpNormAct(half, quarter, kernel=4, style=style),
        residual(quarter, style),
        nn.Conv2d(quarter, CLASSES, 1),
        Resize(mask_hw),
    )
