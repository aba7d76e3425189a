"""Optimisers, and which weights they treat alike."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from roiseg.errors import TrainingError
from roiseg.params import nearest
from roiseg.train.params import TrainParams


def parameter_groups(
    head: nn.Module, weight_decay: float, factors: Mapping[str, float], key: str = "train.lr_factors"
) -> list[dict[str, Any]]:
    """Weights by how they are treated: matrices decay, biases and norms don't, for pulling those to 0 regularises nothing.

    Args:
        head: whose weights; those that want no gradient are left out.
        weight_decay: of the matrices.
        factors: beginning of a name -> factor on the learning rate; the longest beginning that fits counts.
        key: of `factors`, for messages.

    Returns:
        Groups for an optimiser, in the order of the weights, each with its `factor`; empty ones are left out.

    Raises:
        TrainingError: a beginning that no weight's name has.
    """
    learning = [(name, weight) for name, weight in head.named_parameters() if weight.requires_grad]
    names = [name for name, _ in learning]
    for start in factors:
        if not any(name.startswith(start) for name in names):
            parts = {name.split(".")[0] for name in names}
            raise TrainingError(f"{key}: no weight of the model is called {start!r}...; {nearest(start, parts)}")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for factor in dict.fromkeys([1.0, *factors.values()]):
        groups[factor, True], groups[factor, False] = [], []
    for name, weight in learning:
        fitting = [start for start in factors if name.startswith(start)]
        factor = factors[max(fitting, key=len)] if fitting else 1.0
        groups[factor, weight.ndim > 1].append(weight)
    return [
        {"params": weights, "weight_decay": weight_decay if decays else 0.0, "factor": factor}
        for (factor, decays), weights in groups.items()
        if weights
    ]


def make_optimizer(head: nn.Module, params: TrainParams) -> torch.optim.Optimizer:
    """The optimiser of section `train`.

    Adam's weight decay is an L2 term in the gradient, AdamW's is apart from it (Loshchilov and Hutter, 2019).

    Args:
        head: whose weights.
        params: section `train`.

    Raises:
        TrainingError: see `parameter_groups`.
    """
    groups = parameter_groups(head, params.weight_decay, params.lr_factors, params.key("lr_factors"))
    match params.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=params.lr)
        case "adam":
            return torch.optim.Adam(groups, lr=params.lr)
        case "sgd":
            return torch.optim.SGD(groups, lr=params.lr, momentum=params.momentum, nesterov=params.momentum > 0)
