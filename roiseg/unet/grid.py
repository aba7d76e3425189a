"""Maps of one picture on grids of different sizes."""

from functools import lru_cache

import torch
from torch import Tensor

from roiseg.types import HW


@lru_cache(maxsize=64)
def axis_weights(cells: int, wanted: int) -> Tensor:
    """Share of each old cell in each new one along an axis.

    To fewer cells it is the overlap of the two, so that every old cell counts by its area, also where the sizes don't divide; to
    more it is linear interpolation between cell centres, the outermost cells going on to the rim.

    Args:
        cells: of the axis as it is.
        wanted: cells that it shall have.

    Returns:
        (wanted, cells) float32, rows that sum to 1; not to be changed.
    """
    if wanted <= cells:
        low = torch.arange(wanted, dtype=torch.float64)[:, None] * cells / wanted
        old = torch.arange(cells, dtype=torch.float64)[None]
        overlap = torch.minimum(low + cells / wanted, old + 1) - torch.maximum(low, old)
        weights = overlap.clamp(min=0) * wanted / cells
    else:
        centres = ((torch.arange(wanted, dtype=torch.float64) + 0.5) * cells / wanted - 0.5).clamp(0, cells - 1)
        weights = (1 - (centres[:, None] - torch.arange(cells, dtype=torch.float64)[None]).abs()).clamp(min=0)
    return weights.float()


def to_grid(x: Tensor, hw: HW) -> Tensor:
    """A map on another grid: averages over areas along an axis that gets coarser, linear interpolation along one that gets finer.

    Two products of matrices: exact for sizes that don't divide, which adaptive pooling isn't, and with gradients that are the same
    every time on CUDA, too.

    Args:
        x: (N, C, H, W) float.
        hw: (h, w).

    Returns:
        (N, C, h, w); x itself where it has that size.
    """
    height, width = x.shape[2:]
    if width != hw[1]:
        x = x @ axis_weights(width, hw[1]).to(x).T
    if height != hw[0]:
        x = axis_weights(height, hw[0]).to(x) @ x
    return x
