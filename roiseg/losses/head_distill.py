"""What a head learns from a larger one: its softened answers, class by class, in place of part of the truth (spec 13.4).

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.

Symbols: R ROIs, K = 3 classes, (h, w) cells of the mask, T the temperature.
"""

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from roiseg.losses.hierarchical import BG_FG, TARGET_NON_TARGET, at_size
from roiseg.losses.part import Part, Parts
from roiseg.nn.outputs import HeadOutput
from roiseg.params import Section

BRANCHES = frozenset({BG_FG, TARGET_NON_TARGET})
"""Outputs that both heads must give where `branches` isn't 0."""

Share = Annotated[float, Field(ge=0)]


class HeadDistillParams(Section):
    """Section `loss.distill`.

    Attributes:
        alpha: share of the total that is the teacher's; all other terms keep the rest.
        temperature: T.
        branches: coefficient of either decision of a head that decides in two steps.
        classes: how much a pixel counts that the teacher takes for background, target, non-target.
    """

    alpha: float = Field(ge=0, le=1)
    temperature: float = Field(gt=0)
    branches: float = Field(ge=0)
    classes: tuple[Share, Share, Share]

    @model_validator(mode="after")
    def _something_is_taught(self) -> "HeadDistillParams":
        if not self.alpha and not self.branches:
            raise ValueError(
                "alpha and branches are both 0, so that the teacher teaches nothing; raise one, or set distill to null"
            )
        if not sum(self.classes):
            raise ValueError(f"classes is {self.classes}, so that no pixel counts; expected at least one above 0")
        return self


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence of the student's classes from the teacher's at each pixel, both softened, times T^2.

    sum over c of p[c] * ln(p[c] / q[c]), p = softmax(teacher / T), q = softmax(student / T). T^2 keeps the gradient's size whatever
    the temperature.

    Args:
        student: (R, K, h, w) float logits.
        teacher: the same; it gets no gradient.
        temperature: T > 0.

    Returns:
        (R, h, w), at least 0 but for rounding.
    """
    theirs, mine = (torch.log_softmax(logits / temperature, dim=1) for logits in (teacher.detach(), student))
    return (theirs.exp() * (theirs - mine)).sum(dim=1) * temperature**2


class HeadDistillation:
    """Terms that pull a head's answers to those of its teacher."""

    def __init__(self, params: HeadDistillParams) -> None:
        """Fix coefficients.

        Args:
            params: section `loss.distill`.
        """
        self._params = params

    def __call__(self, output: HeadOutput, teacher: HeadOutput, counted: Tensor) -> Parts:
        """Parts of a batch.

        Args:
            output: of the student, (R, 3, h, w) float32 logits.
            teacher: of the same ROIs; brought to the student's mask size where it has another.
            counted: (R, h, w) bool.

        Returns:
            `distill`, and where branches count `distill_bg_fg` and `distill_target_non_target`: means over pixels, each weighted by
            the classes that the teacher sees there, the last one over what it takes for people. 0 for no ROIs.
        """
        hw = output.mask_logits.shape[2:]
        theirs = at_size(teacher.mask_logits, hw).detach()
        classes = torch.tensor(self._params.classes, dtype=theirs.dtype, device=theirs.device)
        seen = theirs.softmax(dim=1)
        weights = torch.einsum("rkhw,k->rhw", seen, classes) * counted
        parts = {"distill": Part(self._mean(output.mask_logits, theirs, weights), self._params.alpha)}
        if self._params.branches:
            people = weights * (1 - seen[:, 0])
            for name, where in ((BG_FG, weights), (TARGET_NON_TARGET, people)):
                value = self._mean(at_size(output.aux[name], hw), at_size(teacher.aux[name], hw), where)
                parts[f"distill_{name}"] = Part(value, self._params.branches)
        return parts

    def _mean(self, student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
        values = softened_kl(student, teacher, self._params.temperature)
        return (weights * values).sum() / weights.sum().clamp(min=1e-6)
