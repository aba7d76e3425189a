"""Section `unet`, and what the two nets have in common."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from roiseg.own_training import own_training
from roiseg.params import Section
from roiseg.train.params import TrainParams
from roiseg.unet.augment import Augment
from roiseg.unet.metrics import LEAD
from roiseg.unet.person_loss import PersonLossParams
from roiseg.unet.person_unet_params import UnetModelParams


class NetExportParams(Section):
    """Sub-sections `unet.export` and `distill.export`."""

    opset: int = Field(ge=18, le=20)
    tolerance: float = Field(gt=0, le=1)
    images: int = Field(ge=1)
    variants: tuple[Literal["fp16", "int8"], ...]


class UnetParams(Section):
    """Section `unet`: the net that tells people from background, and teaches."""

    model: UnetModelParams
    augment: Augment
    loss: PersonLossParams
    train: dict[str, Any] | None
    export: NetExportParams


def net_training(given: Mapping[str, Any], where: str) -> TrainParams:
    """Keys of `train` that a net's section gives, with all others; judged by the overlap with people.

    Args:
        given: the keys.
        where: dotted path, for messages.

    Raises:
        ParamsError: see `own_training`.
    """
    return own_training(given, where, LEAD)
