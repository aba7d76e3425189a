"""From a map to four distributions: directional pooling and 1-D decoders, which keep position (spec 21.6).

Symbols: R boxes, C channels, (h, w) cells, m cells along one axis, n positions along a window.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Upsampling = Literal["linear", "learned"]


def position_weights(cells: int, positions: int) -> Tensor:
    """Share of each cell in each position: linear interpolation, the outermost cells going on to the rim.

    Cell j of m covers [j, j + 1] / m of a window and its value is at (j + 0.5) / m, position k of n lies at k / (n - 1): other
    grids than those of `torch.nn.functional.interpolate`, whichever way its corners are aligned.

    Args:
        cells: m.
        positions: n (> 1).

    Returns:
        (m, n) float32; columns sum to 1.
    """
    places = (torch.arange(positions, dtype=torch.float64) * cells / (positions - 1) - 0.5).clamp(0, cells - 1)
    return (1 - (places[None] - torch.arange(cells, dtype=torch.float64)[:, None]).abs()).clamp(min=0).float()


class EdgeDecoder(nn.Module):
    """One edge: (R, C, m) -> (R, m * stride) logits, a row of convolutions of 3 cells and ReLUs."""

    def __init__(self, in_channels: int, hidden: Sequence[int], stride: int = 1) -> None:
        """Build the decoder.

        Args:
            in_channels: C.
            hidden: channels of the hidden layers; [512] is the published one.
            stride: logits told for each cell; above 1 the last layer is a transposed convolution, whose weights differ within
                a cell.
        """
        super().__init__()
        widths = (in_channels, *hidden)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv1d(before, after, 3, padding=1), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        odd = stride % 2
        self.last = (
            nn.Conv1d(widths[-1], 1, 1)
            if stride == 1
            else nn.ConvTranspose1d(widths[-1], 1, 2 * stride - odd, stride=stride, padding=(stride - odd) // 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, m) -> (R, m * stride)."""
        y: Tensor = self.last(self.hidden(x))
        return y[:, 0]


class EdgeDecoders(nn.Module):
    """Four decoders, one for each edge, and the way from cells to positions."""

    rows: Tensor
    columns: Tensor

    def __init__(
        self, in_channels: int, hidden: Sequence[int], hw: tuple[int, int], positions: int, upsample: Upsampling = "linear"
    ) -> None:
        """Build the decoders.

        Args:
            in_channels: C.
            hidden: see `EdgeDecoder`.
            hw: (h, w) of the map.
            positions: n.
            upsample: `linear` interpolates logits from cells to positions; `learned` tells several for each cell first.
        """
        super().__init__()
        strides = [1 if upsample == "linear" else -(-positions // cells) for cells in hw]
        for name, cells, stride in zip(("rows", "columns"), hw, strides, strict=True):
            self.register_buffer(name, position_weights(cells * stride, positions), persistent=False)
        # Of the order of `roiseg.snapper.windows.EDGES`: left and right lie along the columns of cells.
        self.edges = nn.ModuleList(EdgeDecoder(in_channels, hidden, strides[axis]) for axis in (1, 0, 1, 0))

    def forward(self, of_rows: Tensor, of_columns: Tensor) -> Tensor:
        """Logits.

        Args:
            of_rows: (R, C, h), what is seen along the height.
            of_columns: (R, C, w), what is seen along the width.

        Returns:
            (R, 4, n).
        """
        left, top, right, bottom = self.edges
        across = torch.stack([left(of_columns), right(of_columns)], dim=1) @ self.columns  # [R, 2, n]
        along = torch.stack([top(of_rows), bottom(of_rows)], dim=1) @ self.rows
        return torch.stack([across[:, 0], along[:, 0], across[:, 1], along[:, 1]], dim=1)


def pool_means(x: Tensor) -> tuple[Tensor, Tensor]:
    """Directional pooling as published: (R, C, h, w) -> means over the width (R, C, h) and over the height (R, C, w)."""
    return x.mean(dim=3), x.mean(dim=2)


def pool_means_and_peaks(x: Tensor) -> tuple[Tensor, Tensor]:
    """Directional pooling: (R, C, h, w) -> means and largest values over the width (R, 2C, h) and over the height (R, 2C, w).

    An edge that only a small part of the object reaches is lost in a mean over the whole width.
    """
    return torch.cat([x.mean(dim=3), x.amax(dim=3)], dim=1), torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)
