"""Averaged weights."""

import copy

import torch
from torch import nn


class WeightAverage:
    """A second head whose weights are a running average of the first's (Polyak and Juditsky, 1992; exponential)."""

    def __init__(self, head: nn.Module, decay: float) -> None:
        """Start from the head's weights.

        Args:
            head: the one that learns.
            decay: share of the average that a step keeps; 0 copies the head.
        """
        self.head = copy.deepcopy(head).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, head: nn.Module, step: int) -> None:
        """Take in the weights after a step, counted from 0; the first steps weigh more, for they start from nothing."""
        keep = min(self._decay, (1 + step) / (10 + step)) if self._decay else 0.0
        for weight, learnt in zip(self.head.parameters(), head.parameters(), strict=True):
            weight.lerp_(learnt.to(weight.device), 1 - keep)
        for mine, new in zip(self.head.buffers(), head.buffers(), strict=True):
            mine.copy_(new)
