"""What a student learns by: a larger net's logits, the truth, and a detector's maps (spec 13.1).

Symbols: B images, (h, w) pixels of the mask, T the temperature.
"""

from collections.abc import Mapping

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from roiseg.errors import TrainingError
from roiseg.losses.part import Part, Parts
from roiseg.params import Section
from roiseg.unet.person_loss import PersonLoss, PosWeight, check_same_size, mean, named

KL, MSE, FEATURE = "kl", "mse", "feature"
"""Names of the parts that `PersonLoss` doesn't have."""


class DistillLossParams(Section):
    """Section `distill.loss`: coefficients, where 0 leaves a part out."""

    kl: float = Field(ge=0)
    mse: float = Field(ge=0)
    bce: float = Field(ge=0)
    dice: float = Field(ge=0)
    feature: float = Field(ge=0)
    pos_weight: PosWeight

    @model_validator(mode="after")
    def _masks_are_learnt(self) -> "DistillLossParams":
        if not any((self.kl, self.mse, self.bce, self.dice)):
            raise ValueError(
                "kl, mse, bce and dice are all 0: features alone teach no mask; expected at least one of the four above 0"
            )
        return self

    @property
    def reads_teacher(self) -> bool:
        """Whether the teacher's logits are wanted."""
        return self.kl > 0 or self.mse > 0

    @property
    def reads_truth(self) -> bool:
        """Whether masks are wanted."""
        return self.bce > 0 or self.dice > 0


def bernoulli_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence of the student's pixels from the teacher's, both softened, times T^2.

    Mean of p ln(p/q) + (1-p) ln((1-p)/(1-q)), p = sigmoid(teacher / T), q = sigmoid(student / T). T^2 keeps the
    gradient's size whatever the temperature (Hinton et al. 2015, section 2). All logarithms are those of sigmoids, taken from the
    logits: right for logits of any size, where clamped probabilities have no gradient.

    Args:
        student: (B, 1, h, w) float logits.
        teacher: the same; it gets no gradient.
        temperature: T > 0.

    Returns:
        Scalar, at least 0 but for rounding; 0 for no images.
    """
    theirs, mine = teacher.detach() / temperature, student / temperature
    person = theirs.sigmoid() * (F.logsigmoid(theirs) - F.logsigmoid(mine))
    background = (-theirs).sigmoid() * (F.logsigmoid(-theirs) - F.logsigmoid(-mine))
    return mean(person + background) * temperature**2


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of squared differences of logits.

    Args:
        student: (B, 1, h, w) float logits.
        teacher: the same; it gets no gradient.

    Returns:
        Scalar; 0 for no images.
    """
    return mean((student - teacher.detach()).square())


class DistillLoss:
    """`loss(student, truth, ...) -> dict` of scalars with `total` and its parts."""

    def __init__(self, params: DistillLossParams, pos_weight: float) -> None:
        """Fix coefficients.

        Args:
            params: section `distill.loss`.
            pos_weight: of `pos_weight_of`.
        """
        self._params = params
        self._person = PersonLoss(params.bce, params.dice, pos_weight)

    def __call__(
        self,
        student: Tensor,
        truth: Tensor,
        teacher: Tensor | None,
        aligned: Mapping[str, Tensor],
        *,
        temperature: float,
        share: float = 1.0,
    ) -> dict[str, Tensor]:
        """Losses of a batch of images, in float32 also under autocast.

        Args:
            student: (B, 1, h, w) float logits.
            truth: (B, 1, h, w) float of 0 and 1.
            teacher: logits of the same size; not read where `kl` and `mse` are 0.
            aligned: what `roiseg.distill.features.FeatureAlignment` gave; not read where `feature` is 0.
            temperature: T > 0.
            share: what is left of the coefficients of `kl` and `mse`, see `roiseg.distill.eliminate`. At 0 the two are still
                measured. `feature` keeps its own: its teacher is the detector, which the student hasn't caught up with by finding
                people.

        Returns:
            `total`, the parts before their coefficients, what `aligned` says of each layer, `weight_temperature`, and the
            coefficients in force as `weight_*`.

        Raises:
            TrainingError: something is to be learnt from that isn't given, or is of another size.
        """
        with torch.autocast(student.device.type, enabled=False):
            logits = student.float()
            parts = self._of_teacher(logits, teacher, temperature, share)
            parts |= self._person.parts(logits, truth.float())
            details: dict[str, Tensor] = {}
            if self._params.feature:
                if FEATURE not in aligned:
                    raise TrainingError(
                        f"distill.loss.feature is {self._params.feature}, but the step has no aligned features; expected some: "
                        "set distill.features, or distill.loss.feature to 0"
                    )
                parts[FEATURE] = Part(aligned[FEATURE].float(), self._params.feature)
                details = {name: value.detach() for name, value in aligned.items() if name != FEATURE}
            return named(parts) | details | {"weight_temperature": torch.tensor(float(temperature))}

    def _of_teacher(self, logits: Tensor, teacher: Tensor | None, temperature: float, share: float) -> Parts:
        params = self._params
        parts: Parts = {}
        if not params.reads_teacher:
            return parts
        if teacher is None:
            raise TrainingError(
                f"distill.loss has kl {params.kl} and mse {params.mse}, but the step has no logits of a teacher; expected some: "
                "run `dvc repro` for the stage `teacher`, or set both to 0"
            )
        check_same_size(logits, teacher, "teacher's logits")
        with torch.set_grad_enabled(torch.is_grad_enabled() and share > 0):
            if params.kl:
                parts[KL] = Part(bernoulli_kl(logits, teacher.float(), temperature), params.kl * share)
            if params.mse:
                parts[MSE] = Part(logit_mse(logits, teacher.float()), params.mse * share)
        return parts
