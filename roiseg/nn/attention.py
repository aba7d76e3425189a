"""Attention within an ROI: factors from 0 to 1 on its channels or cells.

Symbols: R ROIs, C channels, (h, w) cells.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from roiseg.nn.style import Style

REDUCTION, FEWEST = 8, 8
"""Channels over those of the bottleneck of channel attention, and the least that it has."""

Attention = Literal["se", "spatial", "cbam"]


class ChannelAttention(nn.Module):
    """A factor for each channel, from the mean over its cells (Squeeze-and-excitation, section 3): (R, C, h, w) -> the same."""

    def __init__(self, channels: int, style: Style) -> None:
        """Build the block.

        Args:
            channels: C.
            style: activation.
        """
        super().__init__()
        inner = max(channels // REDUCTION, FEWEST)
        self.squeeze = nn.Conv2d(channels, inner, 1, bias=False)
        self.act = style.make_activation()
        self.excite = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, C, h, w)."""
        mean = x.mean(dim=(2, 3), keepdim=True)  # [R, C, 1, 1]
        factors: Tensor = self.excite(self.act(self.squeeze(mean))).sigmoid()
        return x * factors


class SpatialAttention(nn.Module):
    """A factor for each cell, from mean and maximum over its channels (CBAM, section 3.2): (R, C, h, w) -> the same."""

    def __init__(self, kernel: Literal[3, 5, 7]) -> None:
        """Build the block.

        Args:
            kernel: side of the kernel.
        """
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, C, h, w)."""
        seen = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)  # [R, 2, h, w]
        factors: Tensor = self.conv(seen).sigmoid()
        return x * factors


def make_attention(kind: Attention | None, channels: int, style: Style) -> nn.Module:
    """Channel attention (`se`), `spatial`, first one then the other (`cbam`, CBAM, figure 1), or an identity."""
    blocks: list[nn.Module] = []
    if kind in ("se", "cbam"):
        blocks.append(ChannelAttention(channels, style))
    if kind in ("spatial", "cbam"):
        blocks.append(SpatialAttention(7))
    return nn.Sequential(*blocks)


class AttentionGate(nn.Module):
    """A factor for each cell of a skip, from the skip and from what comes up (Attention U-Net, equation 1)."""

    def __init__(self, channels: int, style: Style) -> None:
        """Build the block.

        Args:
            channels: C of the skip and of what comes up.
            style: activation.
        """
        super().__init__()
        inner = max(channels // 2, 1)
        self.gate, self.skip = nn.Conv2d(channels, inner, 1), nn.Conv2d(channels, inner, 1)
        self.act = style.make_activation()
        self.factor = nn.Conv2d(inner, 1, 1)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """The skip, (R, C, h, w), weighed by what comes up, (R, C, h, w) -> (R, C, h, w)."""
        factors: Tensor = self.factor(self.act(self.gate(gate) + self.skip(skip))).sigmoid()
        return skip * factors


class CellAttention(nn.Module):
    """Every cell looks at every other of its ROI, with one head (Attention is all you need, eq. 1): (R, C, h, w) -> the same."""

    def __init__(self, channels: int) -> None:
        """Build the block.

        Args:
            channels: C.
        """
        super().__init__()
        self.project, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, C, h, w)."""
        cells = x.flatten(2).transpose(1, 2).unsqueeze(1)  # [R, 1, h * w, C]
        query, key, value = self.project(cells).chunk(3, dim=3)
        found = nn.functional.scaled_dot_product_attention(query, key, value)
        told: Tensor = self.out(found).squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + told
