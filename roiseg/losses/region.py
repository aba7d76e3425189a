"""Losses on regions of a mask.

Symbols: R ROIs, K = 3 classes, (h, w) cells of the mask.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = 255
"""Label of pixels that no loss looks at."""


def weighted_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor, pixel_weights: Tensor) -> Tensor:
    """Cross entropy, weighted by class and by pixel.

    sum(w[y] * m * -log p[y]) / sum(w[y] * m): a weighted mean, so that weights move attention between pixels and leave the scale
    of the loss, and with it the learning rate, alone.

    Args:
        logits: (R, K, h, w) float.
        labels: (R, h, w) int64; `IGNORE` is left out.
        class_weights: (K,) float, w.
        pixel_weights: (R, h, w) float, m.

    Returns:
        Scalar; 0 for no ROIs.
    """
    counted = labels != IGNORE
    safe = torch.where(counted, labels, 0)
    weights = class_weights[safe] * pixel_weights * counted
    nll = F.cross_entropy(logits, safe, reduction="none")
    return (weights * nll).sum() / weights.sum().clamp(min=1e-6)


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
    counted = (labels != IGNORE).to(logits.dtype)
    probabilities = logits.softmax(dim=1)
    losses = []
    for label in classes:
        truth = (labels == label).to(logits.dtype)
        guess = probabilities[:, label] * counted
        shared = (guess * truth).flatten(1).sum(1)
        total = guess.flatten(1).sum(1) + truth.flatten(1).sum(1)
        losses.append(1 - (2 * shared + smooth) / (total + smooth))
    stacked = torch.stack(losses)
    return stacked.sum() / max(stacked.numel(), 1)
