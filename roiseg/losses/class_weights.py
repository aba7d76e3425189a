"""Weights of the three classes in the cross entropy: where they come from, and how large one may be."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from roiseg.classes import CLASS_NAMES
from roiseg.errors import ParamsError
from roiseg.params import Section

ClassWeights = tuple[float, float, float]
"""Of background, target and non-target."""

_FIELDS = {
    "freq": "recommended_class_weights",
    "log": "recommended_log_class_weights",
    "separation": "separation_aware_weights",
}


class ClassWeightParams(Section):
    """Section `loss.class_weights`."""

    mode: Literal["none", "freq", "log", "separation", "manual"]
    values: tuple[float, float, float] | None
    cap: float | None = Field(ge=1)

    @model_validator(mode="after")
    def _values_fit_mode(self) -> "ClassWeightParams":
        if (self.mode == "manual") != (self.values is not None):
            raise ValueError(
                f"mode {self.mode!r} with values {self.values!r}: 'manual' needs three values, any other mode needs null"
            )
        if self.values is not None and (min(self.values) < 0 or max(self.values) == 0):
            raise ValueError("weights are at least 0, and not all of them 0")
        return self


def class_weights(params: ClassWeightParams, statistics: Mapping[str, Any]) -> ClassWeights:
    """Weights of background, target and non-target (spec 12).

    Args:
        params: which ones. With a `cap` they are brought to a mean of 1, and then none is larger than the cap; what softens them is
            the mode `log`.
        statistics: data_analyze.json.

    Raises:
        ParamsError: the statistics lack the field that the mode wants.
    """
    found = _found(params, statistics)
    if params.cap is None:
        return found
    scale = len(found) / sum(found)
    first, second, third = (min(weight * scale, params.cap) for weight in found)
    return first, second, third


def _found(params: ClassWeightParams, statistics: Mapping[str, Any]) -> ClassWeights:
    if params.mode == "none":
        return (1.0, 1.0, 1.0)
    if params.values is not None:
        return params.values
    field = _FIELDS[params.mode]
    if field not in statistics:
        raise ParamsError(
            f"loss.class_weights.mode is {params.mode!r}, but data_analyze.json has no {field!r}; run `dvc repro analyze`"
        )
    found = statistics[field]
    first, second, third = (float(found[name]) for name in CLASS_NAMES)
    return first, second, third
