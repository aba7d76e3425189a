"""How soft the targets are over a run (spec 13.2)."""

import math
from typing import Literal

from pydantic import Field

from roiseg.params import Section


class TemperatureParams(Section):
    """Section `distill.temperature`."""

    start: float = Field(gt=0, le=100)
    end: float = Field(gt=0, le=100)
    curve: Literal["linear", "cosine", "exponential"]


def temperature_at(params: TemperatureParams, progress: float) -> float:
    """The temperature of an epoch.

    Args:
        params: T0 at `start`, T1 at `end`, and the way between: `linear`: T0 + (T1 - T0) e; `cosine`:
            T1 + (T0 - T1)(1 + cos(pi e)) / 2; `exponential`: T0 (T1 / T0)^e. A constant where both ends are the same.
        progress: e, 0 in the first epoch and 1 in the last; a run of a single epoch has 0.
    """
    start, end = params.start, params.end
    match params.curve:
        case "linear":
            return start + (end - start) * progress
        case "cosine":
            return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
        case "exponential":
            return start * math.pow(end / start, progress)
