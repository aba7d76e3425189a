"""Section `unet`, and what the two nets have in common."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from roiseg.defaults import filled
from roiseg.errors import ParamsError
from roiseg.params import Section
from roiseg.train.params import TrainParams
from roiseg.unet.augment import Augment
from roiseg.unet.metrics import LEAD
from roiseg.unet.person_loss import PersonLossParams
from roiseg.unet.person_unet_params import UnetModelParams

OF_HEADS = frozenset(
    {"phases", "phase_warmup_epochs", "phase_warmup_factor", "pictures", "resume_from", "additional_epochs", "extend_policy"}
)
"""Keys of `train` that nothing reads where a net is trained."""


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
    """Keys of `train` that a net's section gives, with all others.

    Args:
        given: the keys.
        where: dotted path, for messages.

    Raises:
        ParamsError: any fault; or a key that has no effect on nets.
    """
    idle = sorted(OF_HEADS & set(given))
    if idle:
        raise ParamsError("\n".join(f"{where}.{name}: has no effect where a net is trained; take it out" for name in idle))
    stop = {"metric": LEAD, "mode": "max", "patience": None}
    own = given.get("early_stop")
    whole = {**given, "early_stop": {**stop, **own} if isinstance(own, Mapping) else stop if own is None else own}
    return TrainParams.parse(filled("train", whole, where), where)
