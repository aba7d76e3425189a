"""Outlines that a head draws against the true ones (spec 11.4).

Symbols: R ROIs, (h, w) cells of the mask; distances in mask pixels.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from roiseg.classes import NON_TARGET, TARGET
from roiseg.dataset import Targets
from roiseg.losses.boundary import outline_distance
from roiseg.losses.region import IGNORE, masked_mean
from roiseg.params import Section

SLACK = 0.01
"""How far probabilities of an edge are kept from 0 and 1, which bounds the cross entropy and its slope there."""

THIN = 1.0
"""Distance of an outline below which a pixel belongs to it."""


class EdgeParams(Section):
    """Section `loss.edge`."""

    weight: float = Field(gt=0)
    form: Literal["bce", "l1"]
    source: Literal["laplacian", "distance"]
    distractors: bool


def laplacian(values: Tensor) -> Tensor:
    """Sum of the differences to the four neighbours; beyond the rim there are none.

    Args:
        values: (..., h, w).

    Returns:
        (..., h, w).
    """
    down, right = values.diff(dim=-2), values.diff(dim=-1)
    rows = F.pad(down, (0, 0, 1, 0)) - F.pad(down, (0, 0, 0, 1))
    return rows + F.pad(right, (1, 0)) - F.pad(right, (0, 1))


def edges(values: Tensor) -> Tensor:
    """How much of an edge a pixel is, from 0 to 1: the size of the Laplacian, at most 1.

    Args:
        values: (..., h, w) from 0 to 1.
    """
    return laplacian(values).abs().clamp(max=1)


def edge_loss(logits: Tensor, target: Targets, params: EdgeParams) -> Tensor:
    """Mean difference of the edges in the probabilities from the true ones.

    The true ones are the pixels beside an outline: by the Laplacian of the mask those with a neighbour across it, by distance those
    whose centre is nearer than a pixel, which closes corners too.

    Args:
        logits: (R, 3, h, w) float.
        target: of the same ROIs; `IGNORE` is left out.
        params: whether cross entropy or absolute difference; which edges are true; whether outlines of other people are edges too.

    Returns:
        Scalar; 0 for no ROIs.
    """
    probabilities = logits.softmax(dim=1)
    regions = {TARGET: target.target, NON_TARGET: target.non_target} if params.distractors else {TARGET: target.target}
    guess = torch.stack([edges(probabilities[:, label]) for label in regions]).amax(dim=0)
    if params.source == "laplacian":
        truths = [edges((region == 0).to(logits.dtype)) for region in regions.values()]
    else:
        truths = [(outline_distance(region, target.boundary) < THIN).to(logits.dtype) for region in regions.values()]
    truth = torch.stack(truths).amax(dim=0)
    if params.form == "l1":
        values = (guess - truth).abs()
    else:
        likely = SLACK + (1 - 2 * SLACK) * guess
        values = -(truth * likely.log() + (1 - truth) * (1 - likely).log())
    return masked_mean(values, target.labels != IGNORE)
