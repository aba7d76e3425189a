"""Losses on regions of a mask.

Symbols: R ROIs, K = 3 classes, (h, w) cells of the mask.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from roiseg.params import Section

IGNORE = 255
"""Label of pixels that no loss looks at."""

ClassLabel = Literal[0, 1, 2]


class TverskyParams(Section):
    """Section `loss.tversky`."""

    weight: float = Field(gt=0)
    alpha: float = Field(ge=0)
    beta: float = Field(ge=0)
    classes: tuple[ClassLabel, ...] = Field(min_length=1)


def cross_entropy_map(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each pixel, -log p[y].

    Args:
        logits: (R, K, h, w) float.
        labels: (R, h, w) int64; what `IGNORE` gives is of no meaning.

    Returns:
        (R, h, w), at least 0.
    """
    return F.cross_entropy(logits, torch.where(labels != IGNORE, labels, 0), reduction="none")


def weighted_mean(values: Tensor, labels: Tensor, class_weights: Tensor, pixel_weights: Tensor) -> Tensor:
    """Mean of the values of pixels, weighted by class and by pixel.

    sum(w[y] * m * value) / sum(w[y] * m), so that weights move attention between pixels and leave the scale of the loss, and with
    it the learning rate, alone.

    Args:
        values: (R, h, w) float.
        labels: (R, h, w) int64, y; `IGNORE` is left out.
        class_weights: (K,) float, w.
        pixel_weights: (R, h, w) float, m.

    Returns:
        Scalar; 0 for no ROIs.
    """
    counted = labels != IGNORE
    weights = class_weights[torch.where(counted, labels, 0)] * pixel_weights * counted
    return (weights * values).sum() / weights.sum().clamp(min=1e-6)


def masked_mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the values of some pixels.

    Args:
        values: float.
        counted: bool of the same shape.

    Returns:
        Scalar; 0 where no pixel counts.
    """
    return (values * counted).sum() / counted.sum().clamp(min=1)


def dice(logits: Tensor, labels: Tensor, classes: Sequence[int], smooth: float) -> Tensor:
    """1 - Dice of softmax probabilities, each ROI on its own (V-Net, equation 2, with the sums unsquared).

    Args:
        logits: (R, K, h, w) float.
        labels: (R, h, w) int64; `IGNORE` is left out.
        classes: classes to average over.
        smooth: added above and below, so that an ROI without the class asks for none of it.

    Returns:
        Scalar mean over ROIs and classes; 0 for no ROIs.
    """
    losses = []
    for guess, truth in _regions(logits, labels, classes):
        shared, total = (guess * truth).sum(1), guess.sum(1) + truth.sum(1)
        losses.append(1 - (2 * shared + smooth) / (total + smooth))
    return _mean(losses)


def tversky(logits: Tensor, labels: Tensor, params: TverskyParams, smooth: float) -> Tensor:
    """1 - Tversky index of softmax probabilities, each ROI on its own (Salehi et al. 2017, equation 3).

    shared / (shared + alpha * false positives + beta * false negatives); alpha = beta = 0.5 is Dice with twice the smoothing.

    Args:
        logits: (R, K, h, w) float.
        labels: (R, h, w) int64; `IGNORE` is left out.
        params: alpha, beta, and the classes to average over.
        smooth: added above and below.

    Returns:
        Scalar mean over ROIs and classes; 0 for no ROIs.
    """
    losses = []
    for guess, truth in _regions(logits, labels, params.classes):
        shared, wrong, missed = (guess * truth).sum(1), (guess * (1 - truth)).sum(1), ((1 - guess) * truth).sum(1)
        losses.append(1 - (shared + smooth) / (shared + params.alpha * wrong + params.beta * missed + smooth))
    return _mean(losses)


def _regions(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """What is said and what is true of each class, both (R, h * w) and 0 where no pixel counts."""
    counted = (labels != IGNORE).to(logits.dtype)
    probabilities = logits.softmax(dim=1)
    for label in classes:
        yield (probabilities[:, label] * counted).flatten(1), (labels == label).to(logits.dtype).flatten(1)


def _mean(losses: list[Tensor]) -> Tensor:
    stacked = torch.stack(losses)
    return stacked.sum() / max(stacked.numel(), 1)
