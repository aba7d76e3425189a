"""Learning rates as pure functions of the step and of the figures of past epochs, so that nothing has to be restored to know them.

Steps are counted from 0 over the whole run, epochs from 0 too; `epoch = step // steps_per_epoch`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from roiseg.train.params import TrainParams

PLATEAU_THRESHOLD = 1e-4
"""Relative gain that counts as better, as in PyTorch's ReduceLROnPlateau."""

Mode = Literal["max", "min"]


def warmup_cosine(step: int, *, total: int, warmup: int, peak: float, low: float) -> float:
    """Linear warm-up, then half a cosine down to `low` (SGDR, equation 5, one cycle); past the end it stays there.

    Args:
        step: 0 <= step, counted over the whole run.
        total: steps of the run.
        warmup: steps of the warm-up (0 for none); the first one already learns.
        peak: rate at the end of the warm-up.
        low: rate of the last step.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(total - warmup - 1, 1)
    return low + (peak - low) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def cycle_of(epoch: float, first: int, factor: int) -> tuple[float, float]:
    """Beginning and length, in epochs, of the cycle that `epoch` falls into; 10 and 2 begin at 0, 10, 30, 70, 150."""
    start, length = 0.0, float(first)
    while epoch >= start + length:
        start, length = start + length, length * factor
    return start, length


def plateau_cuts(values: Sequence[float], patience: int, mode: Mode) -> int:
    """How often a rate has been cut after epochs with these figures: each time `patience` epochs in a row brought nothing better.

    Args:
        values: the figure of each past epoch.
        patience: epochs without a gain that are let pass.
        mode: whether more or less is better.
    """
    sign = 1.0 if mode == "max" else -1.0
    best, bad, cuts = -math.inf, 0, 0
    for value in values:
        if sign * value > best + abs(best if math.isfinite(best) else 0.0) * PLATEAU_THRESHOLD:
            best, bad = sign * value, 0
        else:
            bad += 1
        if bad > patience:
            cuts, bad = cuts + 1, 0
    return cuts


def stops_early(values: Sequence[float], patience: int | None, mode: Mode) -> bool:
    """Whether the last `patience` epochs brought nothing better than the ones before.

    Args:
        values: the figure of each past epoch.
        patience: None never stops.
        mode: whether more or less is better.
    """
    if patience is None or len(values) <= patience:
        return False
    better = max if mode == "max" else min
    best = better(values)
    return len(values) - 1 - list(values).index(best) >= patience


@dataclass(frozen=True)
class Extension:
    """Where a run takes over from a kept one.

    Attributes:
        step: its first step.
        rate: learning rate of the step before.
    """

    step: int
    rate: float


@dataclass(frozen=True)
class Schedule:
    """The learning rate of a run, before the factors of parameter groups.

    Attributes:
        params: section `train`.
        steps_per_epoch: optimiser steps of an epoch.
        epochs: of the whole run, those of a kept one that it goes on from among them.
        extension: None for a run that starts with fresh weights.
    """

    params: TrainParams
    steps_per_epoch: int
    epochs: int
    extension: Extension | None = None

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.epochs * self.steps_per_epoch

    @property
    def _warmup(self) -> int:
        return min(round(self.params.warmup_epochs * self.steps_per_epoch), self.total)

    @property
    def _low(self) -> float:
        return min(self.params.min_lr, self.params.lr)

    def rate(self, step: int, history: Sequence[float] = ()) -> float:
        """The rate of a step.

        Args:
            step: counted over the whole run.
            history: the judged figure of each past epoch, which `plateau` looks at.
        """
        if self.extension is None:
            return self._planned(step, history)
        return self._extended(step, history, self.extension)

    def _extended(self, step: int, history: Sequence[float], extension: Extension) -> float:
        """The rate after `extension.step`: no jump there, and the end of the curve at the new end.

        * `stretch`: the curve of a run of the new length. What lies between it and the rate so far is taken up in equal parts over
          the warm-up, one epoch at least; where the plan is as it was, nothing lies between.
        * `restart`: the curve anew over what is left, from the rate so far up to the peak instead of from 0.
        * `hold`: the rate so far, and in place of a warm-up an equally long straight way down to `min_lr` at the end.
        """
        first, left = extension.step, max(self.total - extension.step, 1)
        bridge = min(max(self._warmup, self.steps_per_epoch), left)
        match self.params.extend_policy:
            case "hold":
                down = (step - (self.total - bridge) + 1) / bridge
                return extension.rate + (min(self._low, extension.rate) - extension.rate) * min(max(down, 0.0), 1.0)
            case "stretch":
                planned = self._planned(step, history)
                gap = extension.rate - self._planned(first - 1, history[: (first - 1) // self.steps_per_epoch])
            case "restart":
                anew = replace(
                    self,
                    params=self.params.model_copy(update={"warmup_epochs": 0.0}),
                    epochs=left // self.steps_per_epoch,
                    extension=None,
                )
                planned = anew.rate(step - first, history[first // self.steps_per_epoch :])
                gap = extension.rate - self.params.lr
        if not gap:
            return planned
        return max(planned + gap * max(1 - (step - first + 1) / bridge, 0.0), self._low)

    def _planned(self, step: int, history: Sequence[float]) -> float:
        params, low, warmup = self.params, self._low, self._warmup
        if params.scheduler == "cosine":
            return warmup_cosine(step, total=self.total, warmup=warmup, peak=params.lr, low=low)
        rising = min((step + 1) / warmup, 1.0) if warmup else 1.0
        return rising * max(params.lr * self._share(step, low / params.lr, history), low)

    def _share(self, step: int, low: float, history: Sequence[float]) -> float:
        """Rate over the peak rate; at least `low` where the curve is drawn down to it."""
        params, epoch = self.params, step / self.steps_per_epoch
        match params.scheduler:
            case "cosine_restarts":
                start, length = cycle_of(epoch, params.restart_epochs, params.restart_factor)
                return low + (1 - low) * (1 + math.cos(math.pi * (epoch - start) / length)) / 2
            case "step":
                return float(params.decay_factor ** sum(epoch >= milestone for milestone in params.step_epochs))
            case "exponential":
                return float(params.decay_factor ** int(epoch))
            case "plateau":
                return float(params.decay_factor ** plateau_cuts(history, params.plateau_epochs, params.early_stop.mode))
            case _:
                return 1.0

    def ends_cycle(self, epoch: int) -> bool:
        """Whether the rate restarts after this epoch, counted from 1: what was learnt until there is worth a snapshot."""
        if self.params.scheduler != "cosine_restarts":
            return False
        began = 0
        if self.extension is not None:
            first = self.extension.step // self.steps_per_epoch
            if epoch > first and self.params.extend_policy == "hold":
                return False
            began = first if epoch > first and self.params.extend_policy == "restart" else 0
        start, _ = cycle_of(epoch - began, self.params.restart_epochs, self.params.restart_factor)
        return start == epoch - began


def phase_warmup(steps_since: int, steps: int, factor: float) -> float:
    """Factor on the rate after a switch of phases: `factor` at first, 1 after `steps`, a straight line between (spec 14.6)."""
    return 1.0 if steps_since >= steps else factor + (1 - factor) * steps_since / steps
