"""How far a net's map is from a detector's, and where that matters (spec 13.1).

Symbols: B images, C channels, (h, w) cells.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from roiseg.unet.person_loss import mean

FeatureForm = Literal["mse", "cosine"]

STILL = 1e-4
"""Least variance that a loss is divided by: that of a map without anything in it is 0."""


def cell_errors(guess: Tensor, truth: Tensor, form: FeatureForm) -> Tensor:
    """Error of each cell.

    Args:
        guess: (B, C, h, w) float, the student's map.
        truth: (B, C, h, w) float, the detector's.
        form: `mse`: mean of squared differences over the channels; `cosine`: 1 - cosine of the angle between the two, which asks
            for the direction alone, from 0 to 2 (1 where one of them is 0 in all channels).

    Returns:
        (B, h, w).
    """
    if form == "mse":
        return (guess - truth).square().mean(dim=1)
    return 1 - F.cosine_similarity(guess, truth, dim=1, eps=1e-6)


def attention(truth: Tensor) -> Tensor:
    """Weight of each cell: the mean of the squared channels of the detector's map, over its mean in the image.

    Zagoruyko & Komodakis 2017, section 3.1, F_sum^2; brought to a mean of 1 instead of a norm of 1, so that it moves the loss
    between the cells of an image and leaves its scale alone.

    Args:
        truth: (B, C, h, w) float.

    Returns:
        (B, h, w), at least 0, without a gradient; 1 all over in an image whose map is 0.
    """
    strength = truth.detach().square().mean(dim=1)
    average = strength.mean(dim=(1, 2), keepdim=True)
    return torch.where(average > 0, strength / average.clamp(min=torch.finfo(strength.dtype).tiny), 1.0)


def variance(truth: Tensor) -> Tensor:
    """Variance of a channel over the cells of all images, mean over the channels.

    It is the `mse` of a guess that knows the mean of each channel and nothing else.

    Args:
        truth: (B, C, h, w) float.

    Returns:
        Scalar, at least `STILL`; that for no images.
    """
    if truth.shape[0] == 0:
        return torch.full((), STILL, dtype=truth.dtype, device=truth.device)
    return truth.var(dim=(0, 2, 3), correction=0).mean().clamp(min=STILL)


def feature_loss(errors: Tensor, weights: Tensor | None, clamp: tuple[float, float] | None) -> Tensor:
    """Mean of the errors of cells.

    Args:
        errors: (B, h, w).
        weights: (B, h, w) with a mean of 1 in each image; None weighs all cells alike.
        clamp: bounds of a cell's error. A cell beyond them has no gradient, the others keep theirs; if the mean were bounded
            instead, as in the original's losses, one step beyond it would end the learning of all.

    Returns:
        Scalar; 0 for no images.
    """
    if clamp is not None:
        errors = errors.clamp(*clamp)
    return mean(errors if weights is None else errors * weights)
