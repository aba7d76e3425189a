"""Learning rates by closed forms of the step, written apart from roiseg.train.schedule."""

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import nn

from roiseg.train.params import TrainParams


def closed_form(params: TrainParams, step: int, steps: int, history: Sequence[float]) -> float:
    """The rate of a step of a run that starts with fresh weights, before the factors of parameter groups.

    Loshchilov and Hutter (2017, SGDR, equation 5) for both cosines; cycles are a geometric series, the plateau is PyTorch's.

    Args:
        params: section `train`.
        step: counted from 0 over the whole run.
        steps: of an epoch.
        history: the judged figure of each past epoch.
    """
    return _planned(params, step, steps, history) * _after_a_switch(params, step, steps)


def _planned(params: TrainParams, step: int, steps: int, history: Sequence[float]) -> float:
    peak, low, total = params.lr, min(params.min_lr, params.lr), params.epochs * steps
    rise = min(round(params.warmup_epochs * steps), total)
    epoch, risen = step // steps, min(1.0, (step + 1) / rise) if rise else 1.0
    match params.scheduler:
        case "cosine":
            turn = Fraction(step - rise, max(total - 1 - rise, 1))
            return peak * risen if step < rise else _cosine(peak, low, turn)
        case "cosine_restarts":
            rate = _cosine(peak, low, _share_of_cycle(Fraction(step, steps), params.restart_epochs, params.restart_factor))
        case "step":
            rate = peak * math.prod(params.decay_factor for milestone in params.step_epochs if milestone * steps <= step)
        case "exponential":
            rate = peak * math.exp(epoch * math.log(params.decay_factor))
        case "plateau":
            rate = peak * _plateau(params, history)
        case _:
            rate = peak
    return risen * max(rate, low)


def _after_a_switch(params: TrainParams, step: int, steps: int) -> float:
    """A straight line from the factor up to 1 after the end of each phase (spec 14.6)."""
    ends = [phase.until * steps for phase in params.phases if phase.until * steps <= step]
    rise = round(params.phase_warmup_epochs * steps)
    passed = min((step - ends[-1]) / rise, 1.0) if ends and rise else 1.0
    return params.phase_warmup_factor * (1 - passed) + passed


def _cosine(peak: float, low: float, turn: Fraction) -> float:
    return low + (peak - low) * math.cos(math.pi / 2 * float(turn)) ** 2


def _share_of_cycle(epoch: Fraction, first: int, factor: int) -> Fraction:
    """How much of its cycle has passed; cycle i begins after first * (factor ** i - 1) / (factor - 1) epochs."""
    if factor == 1:
        return Fraction(epoch % first) / first
    cycle = int(math.log(epoch / first * (factor - 1) + 1, factor) + 1e-9)
    return (epoch - Fraction(first * (factor**cycle - 1), factor - 1)) / Fraction(first * factor**cycle)


def _plateau(params: TrainParams, history: Sequence[float]) -> float:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    mode, factor, patience = params.early_stop.mode, params.decay_factor, params.plateau_epochs
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience, eps=0.0)
    for figure in history:
        reference.step(figure)
    return float(optimizer.param_groups[0]["lr"])
