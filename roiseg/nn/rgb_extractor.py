"""Features of an ROI from its pixels alone, on the ROI's own grid.

Symbols: R ROIs, M `channels`, (g, g') the ROI grid.
"""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from roiseg.nn.blocks import conv, residual
from roiseg.nn.style import Style

Steps = Literal[3, 4]


class RgbExtractor(nn.Module):
    """3x3 convolutions of ever more channels without a stride: (R, 3, g, g') in [0, 1] -> (R, M, g, g').

    | steps | channels | residual block after | 1x1 at the end | parameters, M = 256, norms of two values a channel |
    |---|---|---|---|---|
    | 3 | M/4, M/2, M | each step | yes | 1,988,992 |
    | 4 | M/4, M/2, 3M/4, M | each but the first | no | 2,882,496 |
    """

    def __init__(self, channels: int, *, steps: Steps, style: Style) -> None:
        """Build the net.

        Args:
            channels: M, a multiple of 4.
            steps: how many convolutions widen it.
            style: norms and activations.
        """
        super().__init__()
        quarter = channels // 4
        shares = (1, 2, 4) if steps == 3 else (1, 2, 3, 4)
        parts: list[nn.Module] = []
        for before, after in pairwise([3, *(quarter * share for share in shares)]):
            blocks = 0 if steps == 4 and before == 3 else 1
            parts += [conv(before, after, style), residual(after, style, blocks)]
        if steps == 3:
            parts.append(conv(channels, channels, style, kernel=1))
        self.steps = nn.Sequential(*parts)

    def forward(self, pixels: Tensor) -> Tensor:
        """(R, 3, g, g') -> (R, M, g, g')."""
        found: Tensor = self.steps(pixels)
        return found
