"""Keys of `train` that a section of its own gives, such as `unet.train`."""

from collections.abc import Mapping
from typing import Any

from roiseg.defaults import filled
from roiseg.errors import ParamsError
from roiseg.train.params import TrainParams

OF_HEADS = frozenset(
    {
        *("phases", "phase_warmup_epochs", "phase_warmup_factor", "pictures"),
        *("resume_from", "additional_epochs", "extend_policy", "distill_from"),
    }
)
"""Keys of `train` that nothing reads where something else than a head is trained."""


def own_training(given: Mapping[str, Any], where: str, metric: str) -> TrainParams:
    """Keys of `train` that a section gives, with all others.

    Args:
        given: the keys.
        where: dotted path, for messages.
        metric: figure that a run is judged by where `early_stop` names no other.

    Raises:
        ParamsError: any fault; or a key that has no effect there.
    """
    idle = sorted(OF_HEADS & set(given))
    if idle:
        raise ParamsError("\n".join(f"{where}.{name}: has no effect where a net is trained; take it out" for name in idle))
    stop = {"metric": metric, "mode": "max", "patience": None}
    own = given.get("early_stop")
    whole = {**given, "early_stop": {**stop, **own} if isinstance(own, Mapping) else stop if own is None else own}
    return TrainParams.parse(filled("train", whole, where), where)
