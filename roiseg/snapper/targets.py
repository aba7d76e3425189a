"""What distributions over positions should look like (spec 21.5).

Symbols: R boxes, n positions along a window.
"""

import torch
from torch import Tensor

from roiseg.snapper.edges import grid
from roiseg.snapper.params import SnapLossParams


def edge_targets(targets: Tensor, positions: int, params: SnapLossParams) -> Tensor:
    """Distributions that say where the true edges are.

    Args:
        targets: (R, 4) window frame, in [0, 1].
        positions: n.
        params: sub-section `snapper.loss`.

    Returns:
        (R, 4, n): 1 at the nearest position and 0 elsewhere; or a Gaussian around the true place, which lies between positions. For
        `softmax` it sums to 1 over n, for `bce` it is 1 at the nearest position.
    """
    if params.target == "onehot":
        nearest = (targets * (positions - 1)).round().long()
        return torch.nn.functional.one_hot(nearest, positions).to(targets.dtype)
    exponent = -(((grid(positions, targets) - targets.unsqueeze(-1)) / params.sigma) ** 2) / 2
    if params.form == "softmax":
        return exponent.softmax(dim=-1)  # never 0 / 0, however narrow
    return (exponent - exponent.amax(dim=-1, keepdim=True)).exp()
