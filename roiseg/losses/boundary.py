"""Pixel weights from distances to boundaries and between people.

Symbols: R ROIs, (h, w) cells of the mask; distances in mask pixels.
"""

import torch
from torch import Tensor


def boundary_weight_map(distance: Tensor, width: float, weight: float) -> Tensor:
    """Weight `weight` on the boundary, falling linearly to 1 at `width` pixels from it (spec 11.5).

    Args:
        distance: (R, h, w) to the nearest border between two labels.
        width: width of the band (> 0).
        weight: factor on the border itself.

    Returns:
        (R, h, w), 1 beyond the band: 1 + (weight - 1) * (1 - d / width).
    """
    return 1 + (weight - 1) * (1 - distance / width).clamp(min=0)


def separation_weight_map(target: Tensor, non_target: Tensor, near_px: float, weight: float) -> Tensor:
    """Weight `weight` where the target and another person are both near, else 1 (spec 11.5).

    Args:
        target: (R, h, w) distance to the nearest target pixel.
        non_target: (R, h, w) distance to the nearest pixel of another person.
        near_px: what counts as near.
        weight: factor.
    """
    between = (target < near_px) & (non_target < near_px)
    return torch.where(between, weight, 1.0)
