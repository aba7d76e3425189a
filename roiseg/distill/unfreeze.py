"""Which parts of a net learn in which epoch (spec 13.3).

A net has a decoder, a stem, and `BLOCKS` blocks of its encoder, counted from the deepest. Epochs are counted from 1. What isn't a
part of the net itself, such as a feature alignment, always learns.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from torch import nn

from roiseg.errors import ParamsError, TrainingError
from roiseg.params import Section

BLOCKS = 7
"""Blocks of an EfficientNet's encoder."""

DECODER, STEM = "decoder", "stem"
BLOCK_NAMES = tuple(f"block_{number}" for number in range(1, BLOCKS + 1))
"""Parts of the encoder behind its stem, the deepest first."""

ENCODER = (STEM, *BLOCK_NAMES)
PARTS = (DECODER, *ENCODER)


class UnfreezeParams(Section):
    """Section `distill.unfreeze`: the encoder is frozen at first, then one block after the other joins, the deepest first."""

    start: int = Field(ge=0)
    every: int = Field(ge=1)
    lr_scale: float = Field(gt=0, le=100)


class StagedParams(Section):
    """Section `distill.staged`: the encoder learns alone at first, then all does."""

    encoder_only_epochs: int = Field(ge=1)
    encoder_lr_scale: float = Field(gt=0, le=100)
    full_lr_scale: float = Field(gt=0, le=100)


def blocks_open(params: UnfreezeParams, epoch: int) -> int:
    """Blocks of the encoder that learn, 0 to `BLOCKS`.

    Args:
        params: `start` epochs have none, then one more joins `every` so many epochs.
        epoch: counted from 1.
    """
    since = epoch - 1 - params.start
    return 0 if since < 0 else min(since // params.every + 1, BLOCKS)


@dataclass(frozen=True)
class LearningPlan:
    """What learns when.

    Attributes:
        freeze_encoder: the encoder doesn't learn, or not at first.
        unfreeze: blocks join one by one; None for never.
        staged: the decoder joins later; None for from the beginning.
    """

    freeze_encoder: bool
    unfreeze: UnfreezeParams | None = None
    staged: StagedParams | None = None

    def __post_init__(self) -> None:
        """Refuse plans that contradict each other.

        Raises:
            ParamsError: both at once, or one that the encoder's freezing doesn't fit.
        """
        if self.unfreeze is not None and self.staged is not None:
            raise ParamsError(
                "distill.unfreeze and distill.staged are both set: the one begins with a frozen encoder, the other with an encoder "
                "that learns alone; expected one of them, set the other to null"
            )
        if self.unfreeze is not None and not self.freeze_encoder:
            raise ParamsError(
                "distill.unfreeze is set and distill.model.freeze_encoder is false: an encoder that learns from the beginning has "
                "nothing to unfreeze; set freeze_encoder to true, or distill.unfreeze to null"
            )
        if self.staged is not None and self.freeze_encoder:
            raise ParamsError(
                "distill.staged is set and distill.model.freeze_encoder is true: the encoder is to learn alone, and not at all; "
                "set freeze_encoder to false, or distill.staged to null"
            )

    def groups_at(self, epoch: int) -> dict[str, float]:
        """Parts that learn, each with its factor on the learning rate; a part never leaves, nor changes its factor.

        Args:
            epoch: counted from 1; 0 for what a run is built with.
        """
        if self.staged is not None and epoch <= self.staged.encoder_only_epochs:
            return dict.fromkeys(ENCODER, 1.0)
        if not self.freeze_encoder:
            return dict.fromkeys(PARTS, 1.0)
        groups = {DECODER: 1.0}
        if self.unfreeze is not None:
            groups |= dict.fromkeys(BLOCK_NAMES[: blocks_open(self.unfreeze, epoch)], self.unfreeze.lr_scale)
        return groups

    def rate_scale(self, epoch: int) -> float:
        """Factor on the learning rate of everything; other than 1 only in stages.

        It is no factor of groups, for those are fixed when a group joins, and the encoder is in both stages.

        Args:
            epoch: counted from 1.
        """
        if self.staged is None:
            return 1.0
        return self.staged.encoder_lr_scale if epoch <= self.staged.encoder_only_epochs else self.staged.full_lr_scale

    def joining(self, epoch: int) -> dict[str, float]:
        """Parts that learn in this epoch and didn't in the one before, with their factors.

        Also in the first epoch, where a block unfreezes at once: what a run is built with learns at the whole rate.

        Args:
            epoch: counted from 1; before it, in epoch 0, is what a run is built with.
        """
        before = self.groups_at(epoch - 1)
        return {name: factor for name, factor in self.groups_at(epoch).items() if name not in before}


Parts = Mapping[str, Sequence[nn.Parameter]]
"""Part -> its weights, all of `PARTS`."""


def set_learning(plan: LearningPlan, parts: Parts, epoch: int) -> None:
    """Let those weights want a gradient that learn in an epoch, and no others of the net.

    Args:
        plan: what learns when.
        parts: weights of the net.
        epoch: counted from 1; 0 for what a run is built with.

    Raises:
        TrainingError: other parts than `PARTS`.
    """
    if set(parts) != set(PARTS):
        raise TrainingError(
            f"parts of a net: {', '.join(sorted(parts))}; expected {', '.join(sorted(PARTS))}: an EfficientNet's encoder"
        )
    learning = plan.groups_at(epoch)
    for name, weights in parts.items():
        for weight in weights:
            weight.requires_grad_(name in learning)


def joining_groups(plan: LearningPlan, parts: Parts, epoch: int, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for the optimiser of what joins in an epoch; their weights want a gradient from now on.

    Groups are added to the optimiser that there is, which keeps Adam's moments of all others; the original made a new one.

    Args:
        plan: what learns when.
        parts: weights of the net.
        epoch: counted from 1; the groups of what a run is built with are those of `roiseg.train.optimizer`.
        weight_decay: of matrices; biases and norms have none.

    Returns:
        `params`, `factor` and `weight_decay` of each, in an order that is the same every time; empty ones are left out.

    Raises:
        TrainingError: see `set_learning`.
    """
    joining = plan.joining(epoch)
    if not joining:
        return []
    set_learning(plan, parts, epoch)
    groups = [
        {"params": _of_kind(parts[name], decays=decays), "factor": factor, "weight_decay": weight_decay if decays else 0.0}
        for name, factor in joining.items()
        for decays in (True, False)
    ]
    return [group for group in groups if group["params"]]


def _of_kind(weights: Iterable[nn.Parameter], *, decays: bool) -> list[nn.Parameter]:
    return [weight for weight in weights if (weight.ndim > 1) == decays]
