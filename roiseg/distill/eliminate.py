"""Distillation that steps back when the student has outgrown its teacher (spec 13.4)."""

import math
from collections.abc import Mapping

from pydantic import Field

from roiseg.distill.loss import DistillLossParams
from roiseg.errors import ParamsError, TrainingError
from roiseg.params import Section

_SHARE, _OVER = "eliminate_share", "eliminate_over"


class EliminateParams(Section):
    """Section `distill.eliminate`."""

    threshold: float = Field(ge=0)
    amplification: float = Field(ge=0)
    min_alpha: float = Field(ge=0, le=1)


def check_eliminate(loss: DistillLossParams, params: EliminateParams | None) -> None:
    """Hold the elimination against what the loss would have left.

    Raises:
        ParamsError: there is no teacher to step back, or nothing else to learn from.
    """
    if params is None:
        return
    if not loss.reads_teacher:
        raise ParamsError(
            "distill.eliminate is set, but distill.loss.kl and mse are 0: there is no distillation to eliminate; "
            "set one of them above 0, or distill.eliminate to null"
        )
    if not loss.reads_truth:
        raise ParamsError(
            "distill.eliminate is set, but distill.loss.bce and dice are 0: nothing would be left to learn from; "
            "set one of them above 0, or distill.eliminate to null"
        )


class Elimination:
    """Share of the teacher's coefficients that is in force, after each epoch's validation.

    gap = student / teacher - 1, of the same figure on the same images. Up to 0 the share is 1; above it exp(-amplification * gap),
    but at least `min_alpha`; it follows the student back, too. Once gap > `threshold` the share is 0 for good.
    """

    def __init__(self, params: EliminateParams) -> None:
        """Begin with the whole share.

        Args:
            params: section `distill.eliminate`.
        """
        self._params = params
        self._share, self._over = 1.0, False

    @property
    def share(self) -> float:
        """What is left of the coefficients, 0 to 1."""
        return self._share

    @property
    def over(self) -> bool:
        """Whether distillation has ended for good."""
        return self._over

    def judged(self, student: float, teacher: float) -> None:
        """Take in an epoch's validation.

        Args:
            student: its figure, higher is better.
            teacher: the same figure of the teacher, above 0.

        Raises:
            TrainingError: the teacher's figure is none that a ratio can be taken to.
        """
        if not (teacher > 0 and math.isfinite(teacher)):
            raise TrainingError(
                f"distill.eliminate: the teacher's validation figure is {teacher}, expected a number above 0; "
                "train a better teacher, or set distill.eliminate to null"
            )
        gap = student / teacher - 1
        self._over = self._over or gap > self._params.threshold
        if self._over:
            self._share = 0.0
        elif gap > 0:
            self._share = max(math.exp(-self._params.amplification * gap), self._params.min_alpha)
        else:
            self._share = 1.0

    def state(self) -> dict[str, float]:
        """What a run that goes on must know."""
        return {_SHARE: self._share, _OVER: float(self._over)}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from what `state` gave; from the beginning where it is empty."""
        self._share, self._over = float(state.get(_SHARE, 1.0)), bool(state.get(_OVER, 0.0))
