"""What section `snapper` must be, beyond its types; without building a model, so that checking the params is quick."""

import math
from collections.abc import Mapping
from typing import Any

from roiseg.errors import ParamsError
from roiseg.own_training import own_training
from roiseg.params import nearest
from roiseg.snapper.metrics import FIGURES, LEAD
from roiseg.snapper.params import CropModelParams, SnapModelParams
from roiseg.train.params import TrainParams
from roiseg.types import IMAGE

WHERE = "snapper"
DEEPEST = 5


def snapper_layers(model: SnapModelParams) -> tuple[str, ...]:
    """Layers of the store that a model reads."""
    return (IMAGE,) if isinstance(model, CropModelParams) else model.layers


def levels_of(params: CropModelParams) -> list[int]:
    """Levels that a model looks at, rising: that of its stride, and, where there are several scales, all deeper ones.

    Raises:
        ParamsError: several scales, of which the stride leaves but one.
    """
    finest = round(math.log2(params.stride))
    if params.scales == "single":
        return [finest]
    if finest == DEEPEST:
        raise ParamsError(
            f"snapper.model.stride is {params.stride} and snapper.model.scales {params.scales!r}, but at that stride there is "
            "but one scale; expected stride 16, 8 or 4, or scales 'single'"
        )
    return list(range(finest, DEEPEST + 1))


def check_model(model: SnapModelParams) -> None:
    """That a model's keys go together, without building it.

    Raises:
        ParamsError: they don't.
    """
    if isinstance(model, CropModelParams):
        levels = levels_of(model)
        cells = [model.crop_px >> level for level in levels]
        if model.upsample == "learned" and max(cells) >= model.positions:
            raise ParamsError(
                f"snapper.model.upsample is 'learned', but {max(cells)} cells already stand for {model.positions} positions, so "
                "that it has no effect; expected 'linear', more positions, or a coarser snapper.model.stride"
            )
        return
    if model.mid_channels % model.groups:
        raise ParamsError(
            f"snapper.model.groups is {model.groups} and snapper.model.mid_channels {model.mid_channels}, expected a divisor of it"
        )
    if len(set(model.layers)) < len(model.layers):
        raise ParamsError(f"snapper.model.layers is {list(model.layers)}, expected each layer once; take the others out")


def snap_training(given: Mapping[str, Any]) -> TrainParams:
    """Keys of `train` that `snapper.train` gives, with all others.

    Raises:
        ParamsError: any fault, a key without effect, or a figure to be judged by that validation doesn't give.
    """
    training = own_training(given, f"{WHERE}.train", LEAD)
    metric = training.early_stop.metric
    if metric not in FIGURES:
        raise ParamsError(
            f"{WHERE}.train.early_stop.metric is {metric!r}, which validation doesn't give; {nearest(metric, FIGURES)}"
        )
    return training
