"""What a U-net of people against background is: sub-sections `unet.model` and `distill.model`."""

from typing import Annotated, Literal

from pydantic import Field

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
