"""From distributions over positions to edges: the contract of both models.

Symbols: R boxes, n positions along a window, 4 edges in the order of `roiseg.snapper.windows.EDGES`.

Position k of n lies at k / (n - 1) of the window, so that the first and the last are its borders, where edges that lie beyond them
are told to be (spec 21.4).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from roiseg.snapper.params import DecisionParams


@dataclass(frozen=True)
class EdgeOutput:
    """What a model says of R boxes.

    Attributes:
        logits: (R, 4, n) float.
        windows: (R, 5 or 9) float, which the model was given, see `rough_edges`.
    """

    logits: Tensor
    windows: Tensor

    def boxes(self, decision: DecisionParams) -> Tensor:
        """The decided boxes (R, 4) xyxy, unit frame."""
        return place_edges(decide(self.logits, decision).edges, self.windows[:, 1:5])


@dataclass(frozen=True)
class EdgeDecision:
    """Edges and what their distributions look like.

    Attributes:
        edges: (R, 4) window frame, in [0, 1].
        peak: (R, 4) probability within `reach` of the likeliest position, in [0, 1].
        entropy: (R, 4) of the distribution over that of the uniform one, in [0, 1].
    """

    edges: Tensor
    peak: Tensor
    entropy: Tensor


def grid(positions: int, like: Tensor) -> Tensor:
    """Where the n positions lie in the window frame (n,), of the type and device of `like`."""
    return torch.arange(positions, dtype=like.dtype, device=like.device) / (positions - 1)


def decide(logits: Tensor, params: DecisionParams) -> EdgeDecision:
    """Edges of distributions.

    The likeliest position; or the mean of the positions within `reach` of it, weighted by their probability, which tells edges
    between positions.

    Args:
        logits: (R, 4, n); softmaxed over n, whatever loss they learnt by.
        params: sub-section `snapper.decision`.
    """
    probabilities = logits.softmax(dim=-1)
    places = grid(logits.shape[-1], logits)
    best = places[logits.argmax(dim=-1)].unsqueeze(-1)
    near = probabilities * ((places - best).abs() <= params.reach).to(logits.dtype)
    mass = near.sum(dim=-1)
    edges = best.squeeze(-1) if params.rule == "argmax" else (near * places).sum(dim=-1) / mass
    uniform = torch.log(torch.tensor(float(logits.shape[-1]), dtype=logits.dtype, device=logits.device))
    entropy = -(probabilities * logits.log_softmax(dim=-1)).sum(dim=-1) / uniform
    return EdgeDecision(edges, mass, entropy)


MIDDLE = (0.125, 0.125, 0.875, 0.875)
"""A rough box in a window of 4/3 of its size."""


def rough_edges(windows: Tensor) -> Tensor:
    """Rough boxes as they lie in their windows (R, 4), window frame.

    Args:
        windows: (R, 9) of image number, the window's xyxy and the rough box's, unit frame; or (R, 5) without the rough box, which
            then is taken to be in the middle of a window of 4/3 of its size.
    """
    if windows.shape[1] == 5:
        return windows.new_tensor(MIDDLE).expand(len(windows), 4)
    low, size = windows[:, 1:3], windows[:, 3:5] - windows[:, 1:3]
    return (windows[:, 5:9] - torch.cat([low, low], dim=1)) / torch.cat([size, size], dim=1)


def place_edges(edges: Tensor, windows: Tensor) -> Tensor:
    """Edges (R, 4) in the window frame as boxes (R, 4) xyxy of the frame that the windows (R, 4) are in."""
    low, size = windows[:, :2], windows[:, 2:] - windows[:, :2]
    return edges * torch.cat([size, size], dim=1) + torch.cat([low, low], dim=1)
