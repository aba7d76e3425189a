"""Convolutions whose weights are made for each ROI (CondInst, section 3.2).

Symbols: R ROIs, C channels in, F channels between, K channels out, (h, w) cells.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class DynamicFilters(nn.Module):
    """A few 1x1 convolutions with ReLU between them, by weights from outside: (R, C, h, w) and (R, P) -> (R, K, h, w)."""

    def __init__(self, widths: Sequence[int]) -> None:
        """Build the block, which has no weights of its own.

        Args:
            widths: C, F as often as there are layers between, K.
        """
        super().__init__()
        self._steps = tuple(pairwise(widths))

    @property
    def parameters_per_roi(self) -> int:
        """P."""
        return sum(before * after + after for before, after in self._steps)

    def forward(self, x: Tensor, made: Tensor) -> Tensor:
        """(R, C, h, w) and (R, P), for each layer its weights and then its biases -> (R, K, h, w)."""
        height, width = x.shape[2], x.shape[3]
        cells, start = x.flatten(2), 0  # [R, C, h * w]
        for number, (before, after) in enumerate(self._steps, start=1):
            weights = torch.unflatten(made[:, start : start + before * after], 1, (after, before))
            start += before * after
            cells = torch.matmul(weights, cells) + made[:, start : start + after, None]
            start += after
            if number < len(self._steps):
                cells = cells.relu()
        return torch.unflatten(cells, 2, (height, width))


def box_coordinates(height: int, width: int, like: Tensor) -> Tensor:
    """(R, 2, h, w) of x and y of the cells' centres; -1 and 1 are the sides of the box.

    Args:
        height: h.
        width: w.
        like: (R, ...) of the dtype, device and number wanted.
    """
    axes = [(torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) * (2 / count) - 1 for count in (height, width)]
    y, x = axes[0].view(height, 1).expand(height, width), axes[1].view(1, width).expand(height, width)
    return torch.stack([x, y]).expand(like.shape[0], 2, height, width)
