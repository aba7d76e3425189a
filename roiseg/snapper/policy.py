"""Which edges of a rough box are moved, and which a person should look at.

Symbols: R boxes.
"""

from dataclasses import dataclass

import numpy as np

from roiseg.classes import Bools
from roiseg.errors import ParamsError
from roiseg.geometry import Floats

LEAST_PX = 1.0
"""Pixels that a snapped box is wide and high at least, unless its rough box was smaller."""


@dataclass(frozen=True)
class Decided:
    """What becomes of R boxes.

    Attributes:
        boxes_image: (R, 4) xyxy, image frame.
        kept: (R, 4), edges that stay where the rough box has them.
        review: (R, 4), edges that a person should look at; every kept one is among them.
    """

    boxes_image: Floats
    kept: Bools
    review: Bools


@dataclass(frozen=True)
class Policy:
    """How sure is sure enough.

    Attributes:
        keep_below: edges that are less sure stay those of the rough box.
        review_below: edges that are less sure are marked for review.
    """

    keep_below: float
    review_below: float

    def __post_init__(self) -> None:
        if not 0 <= self.keep_below <= self.review_below <= 1:
            raise ParamsError(
                f"keep_below is {self.keep_below:g} and review_below {self.review_below:g}, expected 0 <= keep_below <= "
                "review_below <= 1: an edge that is too unsure to be moved is one to be looked at; correct them"
            )

    def decide(self, rough: Floats, proposed: Floats, confidences: Floats) -> Decided:
        """Choose between rough and proposed edges, each on its own.

        Left and right, or top and bottom, that would cross or come nearer to each other than `LEAST_PX` contradict each other: both
        stay, and are marked.

        Args:
            rough: (R, 4) xyxy, image frame, each with an area.
            proposed: (R, 4) of the same frame, what the model says.
            confidences: (R, 4) in [0, 1].
        """
        kept = confidences < self.keep_below
        boxes = np.where(kept, rough, proposed)
        sides = boxes[:, 2:] - boxes[:, :2]
        crossed = sides < np.minimum(rough[:, 2:] - rough[:, :2], LEAST_PX)
        kept = kept | np.concatenate([crossed, crossed], axis=1)
        return Decided(np.where(kept, rough, proposed), kept, kept | (confidences < self.review_below))
