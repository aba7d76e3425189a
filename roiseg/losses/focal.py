"""Attention to the pixels that a head is unsure of."""

from collections.abc import Sequence

import torch
from torch import Tensor

_CERTAIN = 1e-6
"""What is left of 1 - p at least: below a power of 1 its slope has no bound at 0."""


def focal_map(entropy: Tensor, labels: Tensor, gamma: float, classes: Sequence[int]) -> Tensor:
    """Cross entropy times (1 - p[y])^gamma, pixel by pixel (Lin et al. 2017, equation 4).

    It stays a map, so that weights of classes and pixels act on it as on plain cross entropy; the original's was a mean already
    (spec 11.5, flaw iv).

    Args:
        entropy: (R, h, w) float, -log p[y].
        labels: (R, h, w) int64, y.
        gamma: 0 gives the cross entropy itself.
        classes: labels whose pixels it acts on; the others keep their cross entropy.

    Returns:
        (R, h, w).
    """
    doubt = (-torch.expm1(-entropy)).clamp(min=_CERTAIN) ** gamma
    chosen = torch.stack([labels == label for label in classes]).any(dim=0)
    return torch.where(chosen, doubt * entropy, entropy)
