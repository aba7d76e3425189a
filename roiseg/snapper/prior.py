"""Where edges are before anything is seen: near those of the rough box.

Symbols: R boxes, n positions along a window.
"""

import math

import torch
from torch import Tensor, nn

from roiseg.snapper.edges import grid, rough_edges

SPREAD = 0.06
"""Standard deviation to begin with, as a share of the window: a little more than the paper's jitter has at a buffer of 1.35."""


class RoughPrior(nn.Module):
    """A Gaussian about each edge of the rough box; where and how wide it is, is learnt for each edge.

    Windows are cut at the border of the image, so that a model can't know without this where in them the rough box is, and does
    worse than the rough box wherever it sees nothing.
    """

    def __init__(self, positions: int) -> None:
        """Begin at the rough box.

        Args:
            positions: n.
        """
        super().__init__()
        self._positions = positions
        self.offset = nn.Parameter(torch.zeros(4))
        self.log_spread = nn.Parameter(torch.full((4,), math.log(SPREAD)))

    def forward(self, windows: Tensor) -> Tensor:
        """Logits (R, 4, n) of windows (R, 5 or 9), see `rough_edges`."""
        middle = (rough_edges(windows) + self.offset)[:, :, None]
        apart = (grid(self._positions, windows) - middle) / self.log_spread.exp()[None, :, None]
        return -0.5 * apart * apart
