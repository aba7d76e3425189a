"""Distances to borders between labels, and pixel weights from them.

Symbols: R ROIs, K = 3 classes, (h, w) cells of the mask; distances in mask pixels.
"""

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from roiseg.classes import CLASS_NAMES
from roiseg.losses.region import IGNORE, cross_entropy_map, masked_mean
from roiseg.params import Section


class BoundaryCeParams(Section):
    """Section `loss.boundary_ce`."""

    weight: float = Field(gt=0)
    width: int = Field(ge=3)
    factor: float = Field(gt=1, le=100)

    @field_validator("width")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("expected an odd number, for the band has as many pixels on either side of a border")
        return value


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


def outline_distance(region: Tensor, boundary: Tensor) -> Tensor:
    """Distance to the outline of one label's region, within it and outside.

    Within the region the nearest border between any two labels is the region's own.

    Args:
        region: (R, h, w) distance to the nearest pixel of the region, centre to centre.
        boundary: (R, h, w) distance to the nearest border between two labels, half a pixel from the centres beside it.

    Returns:
        (R, h, w), at least 0.5; far where the region is empty or all there is.
    """
    return torch.where(region == 0, boundary, region - 0.5)


def boundary_band(labels: Tensor, width: int) -> Tensor:
    """Where the dilation of a label and its erosion differ (spec 11.4).

    Args:
        labels: (R, h, w) int64; `IGNORE` belongs to no label and to each, so that there is no border between it and a label.
        width: side of the square that dilates and erodes, odd.

    Returns:
        (R, h, w) bool: (width - 1) / 2 pixels on either side of each border.
    """
    found = torch.zeros_like(labels, dtype=torch.bool)
    for label in range(len(CLASS_NAMES)):
        inside = labels == label
        found |= _dilated(inside, width) & _dilated(~inside & (labels != IGNORE), width)
    return found


def _dilated(region: Tensor, width: int) -> Tensor:
    return F.max_pool2d(region.float()[:, None], width, stride=1, padding=width // 2)[:, 0] > 0


def boundary_cross_entropy(logits: Tensor, labels: Tensor, params: BoundaryCeParams) -> Tensor:
    """Mean of the cross entropy, `factor` times in the band around borders (spec 11.4).

    Args:
        logits: (R, K, h, w) float.
        labels: (R, h, w) int64; `IGNORE` is left out.
        params: width of the band, and the factor.

    Returns:
        Scalar; 0 for no ROIs.
    """
    weights = torch.where(boundary_band(labels, params.width), params.factor, 1.0)
    return masked_mean(weights * cross_entropy_map(logits, labels), labels != IGNORE)
