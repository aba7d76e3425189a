"""Length and curvature of the outline that a head draws.

Symbols: R ROIs, (h, w) cells of the mask.
"""

from pydantic import Field
from torch import Tensor

from roiseg.classes import TARGET
from roiseg.losses.region import IGNORE, masked_mean
from roiseg.params import Section


class ActiveContourParams(Section):
    """Section `loss.active_contour`."""

    weight: float = Field(gt=0)
    curvature: float = Field(ge=0)


def active_contour(logits: Tensor, labels: Tensor, curvature: float) -> Tensor:
    """Mean size of the first differences of the target's probability, and of the second ones (spec 11.7).

    |dx p| + |dy p| + curvature * (|dxx p| + |dyy p|), each a mean of its own: a penalty alone, which knows no truth. Differences of
    probabilities are 2 at most in size, so that the original's clamps at 10 never acted.

    Args:
        logits: (R, 3, h, w) float.
        labels: (R, h, w) int64; differences with an `IGNORE` pixel are left out.
        curvature: factor on the second differences.

    Returns:
        Scalar; 0 for no ROIs.
    """
    target, counted = logits.softmax(dim=1)[:, TARGET], labels != IGNORE
    total = target.new_zeros(())
    for dim in (-1, -2):
        first, both = target.diff(dim=dim), _pairs(counted, dim)
        total = total + masked_mean(first.abs(), both)
        if curvature:
            total = total + curvature * masked_mean(first.diff(dim=dim).abs(), _pairs(both, dim))
    return total


def _pairs(counted: Tensor, dim: int) -> Tensor:
    """Whether both pixels of each difference count."""
    size = counted.shape[dim]
    length = max(size - 1, 0)
    return counted.narrow(dim, 0, length) & counted.narrow(dim, size - length, length)
