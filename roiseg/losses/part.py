"""What a loss is the sum of."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Part(NamedTuple):
    """A named part of a loss.

    Attributes:
        value: scalar, before its coefficient.
        weight: the coefficient; None for a figure that is only logged.
    """

    value: Tensor
    weight: float | None


Parts = dict[str, Part]


def total_of(parts: Mapping[str, Part]) -> Tensor:
    """Sum of the parts that have a coefficient, at least one, in their order."""
    first, *others = [part.weight * part.value for part in parts.values() if part.weight is not None]
    for value in others:
        first = first + value
    return first
