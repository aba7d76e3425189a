"""What a U-net of people against background is: sub-sections `unet.model` and `distill.model`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from roiseg.errors import ParamsError
from roiseg.params import NOTHING_KEPT, Section

STRIDE = 32
"""Pixels of the input per cell of the encoder's deepest map, of which the input must hold whole ones."""

Encoder = Literal[
    "timm-efficientnet-b0",
    "timm-efficientnet-b1",
    "timm-efficientnet-b2",
    "timm-efficientnet-b3",
    "timm-efficientnet-b4",
    "timm-efficientnet-b5",
    "timm-efficientnet-b6",
    "timm-efficientnet-b7",
]

IMAGENET_NORMALISATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of red, green and blue."""

IMAGENET, NO_WEIGHTS = "imagenet", "none"
"""Values of `encoder_weights` that are no paths: weights that the hub has, and fresh ones."""

Side = Annotated[int, Field(ge=STRIDE, le=2048, multiple_of=STRIDE)]
Width = Annotated[int, Field(ge=1, le=2048)]
Deviation = Annotated[float, Field(gt=0)]


class UnetModelParams(Section):
    """Sub-sections `unet.model` and `distill.model`.

    `mean` and `std` are those of the weights: RGB in [0, 1] is normalised by them, and by nothing else.
    """

    encoder: Encoder
    encoder_weights: str = Field(min_length=1)
    checkpoint: str = Field(min_length=1)
    freeze_encoder: bool
    input_hw: tuple[Side, Side]
    decoder_channels: tuple[Width, Width, Width, Width, Width]
    mean: tuple[float, float, float]
    std: tuple[Deviation, Deviation, Deviation]

    @model_validator(mode="after")
    def _norms_have_something_to_count(self) -> "UnetModelParams":
        if self.input_hw == (STRIDE, STRIDE):
            raise ValueError(
                f"input_hw is {list(self.input_hw)}, which leaves the deepest map a single cell, and a norm nothing to count in a "
                f"batch of one image; expected at least {STRIDE} x {2 * STRIDE}"
            )
        return self

    @property
    def starts_whole(self) -> bool:
        """Whether the net goes on from weights of a whole net, which `encoder_weights` then doesn't touch."""
        return self.checkpoint != NOTHING_KEPT

    @property
    def start_paths(self) -> dict[str, str]:
        """Key -> the file of weights that it names; a checkpoint leaves no use for the other."""
        if self.starts_whole:
            return {"checkpoint": self.checkpoint}
        return {} if self.encoder_weights in (IMAGENET, NO_WEIGHTS) else {"encoder_weights": self.encoder_weights}

    @property
    def starts_fresh(self) -> bool:
        """Whether nothing was ever learnt by the encoder."""
        return not self.starts_whole and self.encoder_weights == NO_WEIGHTS


def check_start(params: UnetModelParams, where: str, *, unfrozen_later: bool) -> None:
    """See that what never learns has learnt before.

    Args:
        params: of the net.
        where: dotted path of the params, for messages.
        unfrozen_later: whether training unfreezes what starts frozen.

    Raises:
        ParamsError: an encoder that never learnt, and never will.
    """
    if params.freeze_encoder and params.starts_fresh and not unfrozen_later:
        raise ParamsError(
            f"{where}.freeze_encoder is true, but the encoder starts from nothing (encoder_weights is 'none' and there is no "
            f"checkpoint), and an encoder that never learns needs weights; set {where}.freeze_encoder to false, or "
            f"{where}.encoder_weights to 'imagenet' or a file"
        )


def check_normalisation(params: UnetModelParams, where: str) -> None:
    """See that ImageNet's weights get images as they know them.

    Args:
        params: of the net.
        where: dotted path of the params, for messages.

    Raises:
        ParamsError: another mean or deviation.
    """
    if params.starts_whole or params.encoder_weights != IMAGENET or (params.mean, params.std) == IMAGENET_NORMALISATION:
        return
    mean, std = (list(values) for values in IMAGENET_NORMALISATION)
    raise ParamsError(
        f"{where}.encoder_weights is 'imagenet', and mean and std are {list(params.mean)} and {list(params.std)}; expected those "
        f"that its weights learnt with, {mean} and {std}"
    )
