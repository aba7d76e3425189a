"""The default loss: weighted cross entropy and Dice, with pixels weighted near boundaries and between people.

Symbols: R ROIs, K = 3 classes, (h, w) cells of the mask.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from roiseg.dataset import Targets
from roiseg.errors import ParamsError
from roiseg.losses.boundary import boundary_weight_map, separation_weight_map
from roiseg.losses.region import dice, weighted_cross_entropy
from roiseg.masks import CLASS_NAMES
from roiseg.nn.outputs import HeadOutput
from roiseg.params import Section

ClassLabel = Literal[0, 1, 2]

_FIELDS = {
    "freq": "recommended_class_weights",
    "log": "recommended_log_class_weights",
    "separation": "separation_aware_weights",
}


class ClassWeightParams(Section):
    """Where the class weights come from."""

    mode: Literal["none", "freq", "log", "separation", "manual"]
    values: tuple[float, float, float] | None

    @model_validator(mode="after")
    def _values_fit_mode(self) -> "ClassWeightParams":
        if (self.mode == "manual") != (self.values is not None):
            raise ValueError(
                f"mode {self.mode!r} with values {self.values!r}: 'manual' needs three values, any other mode needs null"
            )
        if self.values is not None and min(self.values) < 0:
            raise ValueError("weights are at least 0")
        return self


class LossParams(Section):
    """Section `loss`."""

    ce: float = Field(ge=0)
    dice: float = Field(ge=0)
    dice_classes: tuple[ClassLabel, ...] = Field(min_length=1)
    dice_smooth: float = Field(gt=0)
    class_weights: ClassWeightParams
    boundary_weight: float = Field(ge=1, le=100)
    boundary_width: float = Field(gt=0)
    instance_sep_weight: float = Field(ge=1, le=100)
    near_px: float = Field(gt=0)


def class_weights(params: ClassWeightParams, statistics: Mapping[str, Any]) -> tuple[float, float, float]:
    """Weights of background, target and non-target.

    Args:
        params: which ones.
        statistics: data_analyze.json.

    Raises:
        ParamsError: the statistics lack the field that the mode wants.
    """
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


class MaskLoss:
    """`loss(output, target) -> dict` of scalars with `total` and its parts."""

    def __init__(self, params: LossParams, weights: tuple[float, float, float]) -> None:
        """Fix coefficients and class weights.

        Args:
            params: section `loss`.
            weights: of background, target, non-target.
        """
        self._params = params
        self._weights = weights

    def __call__(self, output: HeadOutput, target: Targets) -> dict[str, Tensor]:
        """Losses of a batch of ROIs.

        Args:
            output: `mask_logits` (R, K, h, w).
            target: labels and distances of the same ROIs.

        Returns:
            `total`, `ce`, `dice` (each before its coefficient, but for the total), `mean_pixel_weight`, and the weights in force as
            `weight_*`, for the log.
        """
        params, logits = self._params, output.mask_logits.float()
        pixels = boundary_weight_map(target.boundary, params.boundary_width, params.boundary_weight)
        pixels = pixels * separation_weight_map(target.target, target.non_target, params.near_px, params.instance_sep_weight)
        weights = torch.tensor(self._weights, dtype=logits.dtype, device=logits.device)
        ce = weighted_cross_entropy(logits, target.labels, weights, pixels)
        dice_loss = dice(logits, target.labels, params.dice_classes, params.dice_smooth)
        total = params.ce * ce + params.dice * dice_loss
        return {
            "total": total,
            "ce": ce.detach(),
            "dice": dice_loss.detach(),
            "mean_pixel_weight": pixels.mean().detach(),
            "weight_ce": torch.tensor(params.ce),
            "weight_dice": torch.tensor(params.dice),
            "weight_boundary": torch.tensor(params.boundary_weight),
            "weight_instance_sep": torch.tensor(params.instance_sep_weight),
        }
