"""What a loss takes for true: the labels of the data set, or less than they say.

Symbols: R ROIs, (h, w) cells of the mask.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from roiseg.classes import BACKGROUND, NON_TARGET
from roiseg.dataset import Targets
from roiseg.losses.boundary import outline_distance
from roiseg.losses.region import IGNORE
from roiseg.masks import FAR

NonTarget = Literal["own", "background"]
"""Whether pixels of other people are a class of their own, or background."""


def without_others(target: Targets) -> Targets:
    """The targets as they would be if nobody but the target were annotated.

    Every distance follows from those that are there: the nearest border of any kind is the target's own.

    Args:
        target: of R ROIs.
    """
    frames = target.frames  # what lies in the ROI is 0 or 1, and so stays
    outline = outline_distance(target.target, target.boundary)
    return replace(
        target,
        labels=torch.where(target.labels == NON_TARGET, BACKGROUND, target.labels),
        boundary=torch.where(target.target < FAR, outline, FAR),
        non_target=torch.full_like(target.non_target, FAR),
        frames=None if frames is None else torch.where(frames == NON_TARGET, BACKGROUND, frames),
    )


def without_borders(target: Targets, ignore_px: float) -> Targets:
    """The targets with `IGNORE` for pixels nearer than `ignore_px` to a border between two labels; distances and frames stay."""
    return replace(target, labels=torch.where(target.boundary < ignore_px, IGNORE, target.labels))


def truth_of(target: Targets, non_target: NonTarget, ignore_px: float) -> Targets:
    """What is learnt of the targets.

    Args:
        target: of R ROIs, as the data set gives them.
        non_target: `background` drops class 2 first, so that borders with other people are none.
        ignore_px: see `without_borders`; 0 ignores nothing.
    """
    known = target if non_target == "own" else without_others(target)
    return without_borders(known, ignore_px) if ignore_px else known


def classes_of(classes: Sequence[int], non_target: NonTarget) -> tuple[int, ...]:
    """Those of some classes that `truth_of` may leave pixels of."""
    return tuple(label for label in classes if non_target == "own" or label != NON_TARGET)
