"""What a net for people against background learns by: cross entropy and Dice of its one logit (spec 10.1, 13.1).

Symbols: B images, (h, w) pixels of the mask.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from roiseg.errors import AnnotationError, TrainingError
from roiseg.losses.part import Part, Parts, total_of
from roiseg.params import Section

BCE, DICE = "bce", "dice"
"""Names of the parts."""

DICE_SMOOTH = 1.0
"""Added above and below the fraction of Dice, in pixels: an image without people asks for none of them."""

_FORMS = ("measured", "sqrt")


def _weight_or_form(value: object) -> object:
    """One message instead of one for each member of the union."""
    if value in _FORMS or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf):
        return value
    raise ValueError("expected 'measured' (background pixels over those of people), 'sqrt' (the root of that), or a number above 0")


PosWeight = Annotated[float | Literal["measured", "sqrt"], BeforeValidator(_weight_or_form)]
"""Weight of a person's pixel in the cross entropy, where a pixel of background has 1."""


class PersonLossParams(Section):
    """Section `unet.loss`."""

    bce: float = Field(ge=0)
    dice: float = Field(ge=0)
    pos_weight: PosWeight

    @model_validator(mode="after")
    def _something_is_learnt(self) -> "PersonLossParams":
        if self.bce == self.dice == 0:
            raise ValueError("bce and dice are both 0, which leaves nothing to learn; expected one of them above 0")
        return self


def pos_weight_of(choice: float | Literal["measured", "sqrt"], person: int, background: int) -> float:
    """The weight of a person's pixel.

    Args:
        choice: a number, which counts as it is; `measured`: background over person, so that both weigh the same in all; `sqrt`: the
            root of that, the original's (spec 13.4: 2.27 on COCO).
        person: pixels of people in the training images.
        background: all their other pixels.

    Raises:
        AnnotationError: there are no pixels of one kind, and the weight is to be measured.
    """
    if not isinstance(choice, str):
        return float(choice)
    if person < 1 or background < 1:
        raise AnnotationError(
            f"loss.pos_weight is {choice!r}, but the training images have {person} pixels of people and {background} of "
            "background; expected some of each: check the annotations, or set pos_weight to a number"
        )
    ratio = background / person
    return ratio if choice == "measured" else math.sqrt(ratio)


def binary_cross_entropy(logits: Tensor, truth: Tensor, pos_weight: float) -> Tensor:
    """Mean over pixels of -(pos_weight * t * log p + (1 - t) * log(1 - p)), from logits.

    Args:
        logits: (B, 1, h, w) float.
        truth: (B, 1, h, w) float of 0 and 1, t.
        pos_weight: of a person's pixel.

    Returns:
        Scalar; 0 for no images.
    """
    weight = torch.tensor(pos_weight, dtype=logits.dtype, device=logits.device)
    return mean(F.binary_cross_entropy_with_logits(logits, truth, reduction="none", pos_weight=weight))


def binary_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice of the sigmoid, each image on its own (V-Net, equation 2, with the sums unsquared).

    Args:
        logits: (B, 1, h, w) float.
        truth: (B, 1, h, w) float of 0 and 1.

    Returns:
        Scalar mean over images; 0 for no images.
    """
    guess, people = logits.sigmoid().flatten(1), truth.flatten(1)
    shared, total = (guess * people).sum(1), guess.sum(1) + people.sum(1)
    return mean(1 - (2 * shared + DICE_SMOOTH) / (total + DICE_SMOOTH))


def mean(values: Tensor) -> Tensor:
    """Mean of all values; 0, with a gradient of 0, where there are none."""
    return values.sum() / max(values.numel(), 1)


def check_same_size(logits: Tensor, other: Tensor, what: str) -> None:
    """Refuse what broadcasting would let pass.

    Args:
        logits: (B, 1, h, w) of the net.
        other: what they are compared with.
        what: its name, for the message.

    Raises:
        TrainingError: the sizes differ.
    """
    if logits.shape != other.shape:
        raise TrainingError(
            f"{what}: size {tuple(other.shape)}, the net's logits have {tuple(logits.shape)}; expected (images, 1, height, width), "
            "the same for both: masks are painted, and maps resampled, at the net's input size"
        )


class PersonLoss:
    """`loss(logits, truth) -> dict` of scalars with `total` and its parts."""

    def __init__(self, bce: float, dice: float, pos_weight: float) -> None:
        """Fix coefficients.

        Args:
            bce: coefficient of the cross entropy; a part with 0 isn't computed.
            dice: coefficient of Dice.
            pos_weight: of `pos_weight_of`.
        """
        self._bce, self._dice, self._pos_weight = bce, dice, pos_weight

    def parts(self, logits: Tensor, truth: Tensor) -> Parts:
        """`bce` and `dice` with their coefficients, those that aren't 0.

        Args:
            logits: (B, 1, h, w) float32.
            truth: (B, 1, h, w) float of 0 and 1.

        Raises:
            TrainingError: see `check_same_size`.
        """
        check_same_size(logits, truth, "masks")
        parts: Parts = {}
        if self._bce:
            parts[BCE] = Part(binary_cross_entropy(logits, truth, self._pos_weight), self._bce)
        if self._dice:
            parts[DICE] = Part(binary_dice(logits, truth), self._dice)
        return parts

    def __call__(self, logits: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Losses of a batch of images, in float32 also under autocast.

        Args:
            logits: (B, 1, h, w) float.
            truth: (B, 1, h, w) float of 0 and 1.

        Returns:
            `total`, the parts before their coefficients, and these as `weight_bce` and `weight_dice`.

        Raises:
            TrainingError: see `check_same_size`.
        """
        with torch.autocast(logits.device.type, enabled=False):
            return named(self.parts(logits.float(), truth.float()))


def named(parts: Parts) -> dict[str, Tensor]:
    """What a loss returns: `total`, each part detached, and the coefficients as `weight_*`.

    Args:
        parts: at least one with a coefficient.
    """
    return {
        "total": total_of(parts),
        **{name: part.value.detach() for name, part in parts.items()},
        **{f"weight_{name}": torch.tensor(part.weight) for name, part in parts.items() if part.weight is not None},
    }
