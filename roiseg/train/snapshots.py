"""Averaging of what a run has learnt at different times."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from roiseg.train.checkpoint import load_checkpoint


def mean_of(checkpoints: Sequence[Path]) -> dict[str, Tensor]:
    """Mean of the weights of some checkpoints (Izmailov et al., 2018, section 3.1, with a snapshot for each cycle).

    Whole numbers, such as counters of norms, are the last one's.

    Args:
        checkpoints: of one model, at least one; read one after the other.

    Raises:
        CheckpointError: one can't be read.
    """
    sums: dict[str, Tensor] = {}
    for path in checkpoints:
        for name, value in load_checkpoint(path).model.items():
            whole = not value.is_floating_point()
            sums[name] = value if whole or name not in sums else sums[name] + value.double()
    return {
        name: (value / len(checkpoints)).to(torch.float32) if value.is_floating_point() else value for name, value in sums.items()
    }
