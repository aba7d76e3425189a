"""Pixel weights that change over a run."""

import math
from typing import Literal

from pydantic import Field

from roiseg.params import Section

Curve = Literal["linear", "cosine"]


class AdaptiveParams(Section):
    """Section `loss.adaptive`: pixel weights at the end of a run; at its beginning they are those of section `loss`."""

    curve: Curve
    end_boundary_weight: float = Field(ge=1, le=100)
    end_instance_sep_weight: float = Field(ge=1, le=100)


def between(start: float, end: float, share: float, curve: Curve) -> float:
    """A value on the way from `start` to `end`.

    The original's weights were parameters that no gradient reached, and stayed as they were (spec 11.5, flaw vi).

    Args:
        start: at share 0.
        end: at share 1.
        share: of the way that is done, from 0 to 1.
        curve: a straight line, or half a cosine, which leaves and arrives without a kink.
    """
    part = share if curve == "linear" else (1 - math.cos(math.pi * share)) / 2
    return start * (1 - part) + end * part
