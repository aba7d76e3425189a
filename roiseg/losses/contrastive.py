"""Embeddings of pixels: those of a class together, the classes of an ROI apart.

Symbols: R ROIs, D channels of the embedding, n pixels of its grid, K = 3 classes, S samples of each class.
"""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from roiseg.classes import CLASS_NAMES
from roiseg.losses.region import masked_mean
from roiseg.params import Section
from roiseg.types import HW

EMBEDDING = "embedding"
"""Output of a head that has one: (R, D, h', w')."""


class ContrastiveParams(Section):
    """Section `loss.contrastive`."""

    weight: float = Field(gt=0)
    temperature: float = Field(gt=0)
    samples: int = Field(ge=1)


def labels_at(labels: Tensor, out_hw: HW) -> Tensor:
    """Labels (R, h, w) read at the cell centres of a coarser or finer grid."""
    rows, columns = (
        ((torch.arange(out, device=labels.device) + 0.5) * size / out).long()
        for out, size in zip(out_hw, labels.shape[1:], strict=True)
    )
    return labels[:, rows[:, None], columns]


def sampled(labels: Tensor, label: int, samples: int) -> tuple[Tensor, Tensor]:
    """Pixels of a class, at equal steps of their order: no chance, so that a run is what it was.

    Args:
        labels: (R, n) int64.
        label: the class.
        samples: S at most, of each ROI.

    Returns:
        (R, S) numbers of pixels, and (R, S) bool of those that are there: an ROI with fewer pixels of the class gives each once.
    """
    inside = labels == label
    count = inside.sum(1, keepdim=True)
    number, taken = torch.arange(samples, device=labels.device)[None], count.clamp(max=samples)
    ranks = (2 * number + 1) * count // (2 * taken).clamp(min=1)
    places = torch.searchsorted(inside.cumsum(1), ranks + 1)
    return places.clamp(max=labels.shape[1] - 1), number < taken


def contrastive(embedding: Tensor, labels: Tensor, params: ContrastiveParams) -> Tensor:
    """InfoNCE of pixels against the centres of the classes in their ROI (van den Oord et al. 2018, equation 4; spec 11.6).

    -log(exp(e . c[y] / t) / sum over the classes there of exp(e . c[k] / t)), where e is the direction of a pixel's embedding and
    c[k] that of the mean of class k in the same ROI: it draws pixels to their centre, and the centres of an ROI apart.

    Args:
        embedding: (R, D, h', w') float.
        labels: (R, h, w) int64; `IGNORE` is never drawn.
        params: temperature t, and pixels of each class and ROI.

    Returns:
        Scalar mean over the sampled pixels of ROIs with two classes or more; 0 where there is none.
    """
    flat_labels = labels_at(labels, (embedding.shape[2], embedding.shape[3])).flatten(1)
    found = [sampled(flat_labels, label, params.samples) for label in range(len(CLASS_NAMES))]
    places, there = torch.stack([item[0] for item in found], 1), torch.stack([item[1] for item in found], 1)  # (R, K, S)
    roi = torch.arange(len(labels), device=labels.device)[:, None, None]
    pixels = F.normalize(embedding.flatten(2).movedim(1, 2)[roi, places], dim=-1)  # (R, K, S, D)
    centres = F.normalize((pixels * there[..., None]).sum(2), dim=-1)  # (R, K, D)
    scores = pixels @ centres.movedim(1, 2)[:, None] / params.temperature  # (R, K, S, K)
    present = there.any(dim=2)
    scores = scores.masked_fill(~present[:, None, None], torch.finfo(scores.dtype).min)
    values = scores.logsumexp(-1) - scores.diagonal(dim1=1, dim2=3).movedim(-1, 1)  # (R, K, S)
    counted = there & (present.sum(1) > 1)[:, None, None]
    return masked_mean(torch.where(counted, values, 0.0), counted)
