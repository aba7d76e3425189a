"""U-shaped nets on an ROI grid (U-Net, figure 1), as branches of the hierarchical heads.

Symbols: R ROIs, C channels in, K classes, b `base_channels`, (h, w) cells, of which each side must have at least 2 ** halvings.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roiseg.nn.attention import AttentionGate
from roiseg.nn.blocks import conv, residual, resize
from roiseg.nn.style import Style

SHALLOW_LEVELS = 2
"""Halvings of the grid in `ShallowUNet`."""


class _Merge(nn.Module):
    """What comes up beside the skip, which a gate may weigh: (R, C, h, w) twice -> (R, 2C, h, w)."""

    def __init__(self, channels: int, style: Style, *, gated: bool) -> None:
        super().__init__()
        self.gate = AttentionGate(channels, style) if gated else None

    def forward(self, up: Tensor, skip: Tensor) -> Tensor:
        up = resize(up, (skip.shape[2], skip.shape[3]))
        return torch.cat([up, skip if self.gate is None else self.gate(skip, up)], dim=1)


class ShallowUNet(nn.Module):
    """Two halvings, pairs of convolutions of b, 2b and 4b channels: (R, C, h, w) -> (R, K, h, w) logits."""

    def __init__(self, channels: int, base_channels: int, *, classes: int, style: Style, gated: bool) -> None:
        """Build the net.

        Args:
            channels: C.
            base_channels: b.
            classes: K.
            style: norms and activations.
            gated: whether attention gates weigh the skips.
        """
        super().__init__()
        widths = [base_channels << level for level in range(SHALLOW_LEVELS + 1)]
        self.down = nn.ModuleList(_pair(before, after, style) for before, after in zip([channels, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[-2::-1])
        self.merge = nn.ModuleList(_Merge(width, style.up, gated=gated) for width in widths[-2::-1])
        self.decode = nn.ModuleList(_pair(2 * width, width, style.up) for width in widths[-2::-1])
        self.logits = nn.Conv2d(base_channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, K, h, w)."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for skip, up, merge, decode in zip(skips[-2::-1], self.up, self.merge, self.decode, strict=True):
            x = decode(merge(up(x), skip))
        logits: Tensor = self.logits(x)
        return logits


def _pair(before: int, after: int, style: Style) -> nn.Sequential:
    return nn.Sequential(conv(before, after, style), conv(after, after, style))


class Bottleneck(nn.Module):
    """A convolution whose result is weighed, cell by cell and channel by channel, by a branch that looks farther."""

    def __init__(self, channels: int, *, style: Style, dropout: float) -> None:
        """Build the block.

        Args:
            channels: C.
            style: norms and activations.
            dropout: share of channels that training drops within residual blocks.
        """
        super().__init__()
        self.look = nn.Sequential(
            residual(channels, style, 2, dropout), conv(channels, channels, style), nn.Conv2d(channels, channels, 1)
        )
        self.value = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, C, h, w)."""
        y: Tensor = self.value(x) * self.look(x).sigmoid()
        return y


class EnhancedUNet(nn.Module):
    """Residual blocks on `depth` grids, each half the one above, and attention on the last: (R, C, h, w) -> (R, 2, h, w) logits."""

    def __init__(self, channels: int, base_channels: int, depth: int, *, style: Style, dropout: float, gated: bool) -> None:
        """Build the net.

        Args:
            channels: C.
            base_channels: b.
            depth: grids; the channels double from each to the next.
            style: norms and activations.
            dropout: share of channels that training drops within residual blocks.
            gated: whether attention gates weigh the skips.
        """
        super().__init__()
        base, up = base_channels, style.up
        widths = [base << level for level in range(depth)]
        first = nn.Sequential(conv(channels, base, style), residual(base, style, 2, dropout))
        deeper = [
            nn.Sequential(residual(before, style, 2, dropout), conv(before, after, style)) for before, after in pairwise(widths)
        ]
        self.down = nn.ModuleList([first, *deeper])
        self.bottom = Bottleneck(widths[-1], style=style, dropout=dropout)
        upwards = widths[-2::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in upwards)
        self.merge = nn.ModuleList(_Merge(width, up, gated=gated) for width in upwards)
        self.decode = nn.ModuleList(nn.Sequential(conv(2 * width, width, up), residual(width, up, 2, dropout)) for width in upwards)
        self.logits = nn.Sequential(conv(base, base // 2, up), nn.Conv2d(base // 2, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, 2, h, w)."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        x = self.bottom(x)
        for skip, up, merge, decode in zip(skips[-2::-1], self.up, self.merge, self.decode, strict=True):
            x = decode(merge(up(x), skip))
        logits: Tensor = self.logits(x)
        return logits
