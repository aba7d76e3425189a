"""Losses of heads that decide in two steps: background or person, and of persons target or another one (spec 11.8).

Symbols: R ROIs, (h, w) cells of the mask.
"""

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from roiseg.classes import BACKGROUND, NON_TARGET, TARGET
from roiseg.dataset import Targets
from roiseg.losses.part import Part, Parts
from roiseg.losses.region import IGNORE, masked_mean, weighted_mean
from roiseg.nn.outputs import HeadOutput
from roiseg.params import Section

BG_FG, TARGET_NON_TARGET = "bg_fg", "target_non_target"
"""Outputs of such a head: (R, 2, h', w') logits each."""

NAMES = ("bg", "fg", "target", "non_target")
"""Classes of the two steps, whose weights are logged as `weight_hier_*`."""

Four = tuple[float, float, float, float]


class HierarchicalParams(Section):
    """Section `loss.hierarchical`."""

    bg: float = Field(ge=0)
    fg: float = Field(ge=0)
    target: float = Field(gt=0)
    consistency: float = Field(ge=0)
    dynamic: bool
    clamp: tuple[float, float]
    ema: float = Field(ge=0, lt=1)

    @field_validator("clamp")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("expected two numbers above 0, the lower one first")
        return value


def balanced(first: int, second: int) -> tuple[float, float]:
    """Weights of two classes by their pixels: total / (2 * pixels), where a class without pixels has one.

    Args:
        first: pixels of one.
        second: pixels of the other.
    """
    total = first + second
    return total / (2 * max(first, 1)), total / (2 * max(second, 1))


class ClassBalance:
    """Weights of the four classes: fixed, or after the pixels of each batch, within bounds and as a running average."""

    def __init__(self, params: HierarchicalParams) -> None:
        """Begin with no batch seen."""
        self._params = params
        self.state: dict[str, float] = {}

    def weights(self, counts: tuple[int, int, int]) -> Four:
        """The weights for a batch.

        A batch without pixels, or without those of people, says nothing of them and leaves their average as it is. Each process of
        a run counts its own share of a batch: common counts would have them wait for each other once more a step.

        Args:
            counts: pixels of background, target and non-target.
        """
        params = self._params
        if not params.dynamic:
            return (1.0, params.target, 1.0, 1.0)
        people = counts[TARGET] + counts[NON_TARGET]
        if counts[BACKGROUND] + people:
            background, foreground = balanced(counts[BACKGROUND], people)
            self._see("bg", background)
            self._see("fg", foreground * params.target)
        if people:
            for name, weight in zip(NAMES[2:], balanced(counts[TARGET], counts[NON_TARGET]), strict=True):
                self._see(name, weight)
        first, second, third, fourth = (self.state.get(name, 1.0) for name in NAMES)
        return first, second, third, fourth

    def _see(self, name: str, weight: float) -> None:
        low, high = self._params.clamp
        bounded, ema = min(max(weight, low), high), self._params.ema
        self.state[name] = ema * self.state.get(name, bounded) + (1 - ema) * bounded


class HierarchicalLoss:
    """Cross entropy of either step, and the agreement of the first one with the mask."""

    def __init__(self, params: HierarchicalParams) -> None:
        """Begin with no batch seen."""
        self._params = params
        self.balance = ClassBalance(params)

    def __call__(self, output: HeadOutput, target: Targets) -> Parts:
        """Parts of a batch.

        Args:
            output: `mask_logits` (R, 3, h, w), and the logits of both steps, brought to mask size where they have another.
            target: of the same ROIs; `IGNORE` is left out.

        Returns:
            `bg_fg`, a mean weighted by class; `target_non_target`, a sum over people's pixels over their number; `consistency`, the
            mean square of what the first step and the mask differ by in the probability of a person, which is 0 where logits are
            combined by `logprob`; and the class weights in force.
        """
        params, labels = self._params, target.labels
        first, second = (at_size(output.aux[name], labels.shape[1:]) for name in (BG_FG, TARGET_NON_TARGET))
        counted, people = labels != IGNORE, (labels == TARGET) | (labels == NON_TARGET)
        weights = self.balance.weights(_counts(labels))
        of_first, of_second = (torch.tensor(part, device=labels.device) for part in (weights[:2], weights[2:]))
        entropy = F.cross_entropy(first, people.long(), reduction="none")
        bg_fg = weighted_mean(entropy, torch.where(counted, people.long(), IGNORE), of_first, torch.ones_like(entropy))
        other = (labels == NON_TARGET).long()
        entropy = F.cross_entropy(second, other, reduction="none") * of_second[other]
        agreement = first.softmax(dim=1)[:, 1] - (1 - output.mask_logits.softmax(dim=1)[:, BACKGROUND])
        return {
            "bg_fg": Part(bg_fg, params.bg),
            "target_non_target": Part(masked_mean(entropy, people), params.fg),
            "consistency": Part(masked_mean(agreement.square(), counted), params.consistency),
            **{f"weight_hier_{name}": Part(torch.tensor(value), None) for name, value in zip(NAMES, weights, strict=True)},
        }

    def state(self) -> dict[str, float]:
        """Running averages; empty where weights are fixed."""
        return dict(self.balance.state)

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from what `state` gave."""
        self.balance.state = dict(state)


def _counts(labels: Tensor) -> tuple[int, int, int]:
    first, second, third = torch.stack([(labels == label).sum() for label in (BACKGROUND, TARGET, NON_TARGET)]).tolist()
    return first, second, third


def at_size(logits: Tensor, out_hw: Sequence[int]) -> Tensor:
    """Logits at another size, bilinear between cell centres.

    Args:
        logits: (R, C, h', w').
        out_hw: (h, w).
    """
    if tuple(logits.shape[2:]) == tuple(out_hw):
        return logits
    return F.interpolate(logits, tuple(out_hw), mode="bilinear", align_corners=False)
