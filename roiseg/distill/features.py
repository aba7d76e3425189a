"""The student's maps held against those of the detector (spec 13.1).

Symbols: B images, C channels of a layer, (h, w) cells.
"""

from collections.abc import Iterable, Mapping

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from roiseg.distill.adapter import Adapter
from roiseg.distill.feature_loss import FeatureForm, attention, cell_errors, feature_loss, variance
from roiseg.distill.loss import FEATURE, DistillLossParams
from roiseg.distill.projection import Projection
from roiseg.errors import ParamsError, TrainingError
from roiseg.params import Section, nearest
from roiseg.types import FeatureSpec
from roiseg.unet.grid import to_grid

TAPS = (1, 2, 3, 4, 5)
"""Maps of the encoder, of strides 2, 4, 8, 16 and 32."""


class FeatureParams(Section):
    """Section `distill.features`."""

    layers: dict[str, int] = Field(min_length=1)
    hidden: int = Field(ge=1)
    form: FeatureForm
    clamp: tuple[float, float] | None
    choose: bool
    attention: bool
    adapt: bool

    @field_validator("layers")
    @classmethod
    def _taps_exist(cls, value: dict[str, int]) -> dict[str, int]:
        wrong = [f"{layer} at tap {tap}" for layer, tap in value.items() if tap not in TAPS]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}; expected taps 1 to 5, the encoder's maps of strides 2, 4, 8, 16 and 32")
        return value

    @field_validator("clamp")
    @classmethod
    def _rising(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError("expected null, or two numbers from 0 up, the lower one first, such as [0, 10]")
        return value


def check_features(loss: DistillLossParams, features: FeatureParams | None) -> None:
    """Hold the coefficient against what it is of.

    Raises:
        ParamsError: one of them is set without the other.
    """
    if (loss.feature > 0) != (features is not None):
        raise ParamsError(
            f"distill.loss.feature is {loss.feature} and distill.features is {'null' if features is None else 'set'}; expected a "
            "coefficient above 0 with the features that it is of, or 0 and null"
        )


class FeatureAlignment(nn.Module):
    """A projection for each pair of a detector's layer and a map of the student, and the loss between the two.

    A pair is compared on the coarser of its two grids, so that neither is asked for detail that it doesn't have. With `choose` the
    layers share the loss by learned weights: softmax of one logit each, 1 in all, so that they can't all be turned down. The
    gradient moves weight to the layers that the student follows best; for that to be a fair race each layer's `mse` is divided by
    the variance of its map, without which the layer with the smallest numbers would win. (A cosine has no scale to begin with.) It
    remains a choice of what can be followed, not of what helps: nothing in the loss of one batch knows the latter.
    """

    def __init__(self, params: FeatureParams, specs: Iterable[FeatureSpec], tap_channels: Mapping[int, int]) -> None:
        """Build a projection for each layer.

        Args:
            params: section `distill.features`.
            specs: layers of the store.
            tap_channels: channels of the student's maps, by their number.

        Raises:
            ParamsError: a layer isn't stored, or the student has no such map.
        """
        super().__init__()
        self.params = params
        channels = {spec.name: spec.channels for spec in specs}
        faults = [
            f"{name!r}: the store has no such layer; {nearest(name, channels)}" for name in params.layers if name not in channels
        ]
        faults += [
            f"{name!r}: the student has no map {tap}; known: {', '.join(map(str, sorted(tap_channels)))}"
            for name, tap in params.layers.items()
            if tap not in tap_channels
        ]
        if faults:
            raise ParamsError(
                "\n".join(f"distill.features.layers, {fault}" for fault in faults) + "\nstored are the layers of extractor.layers"
            )
        self.projections = nn.ModuleDict(
            {name: Projection(tap_channels[tap], params.hidden, channels[name]) for name, tap in params.layers.items()}
        )
        self.adapters = nn.ModuleDict({name: Adapter(channels[name]) for name in params.layers} if params.adapt else {})
        self.choice = nn.Parameter(torch.zeros(len(params.layers))) if params.choose else None

    @property
    def taps(self) -> tuple[int, ...]:
        """Numbers of the student's maps that are wanted, rising."""
        return tuple(sorted(set(self.params.layers.values())))

    def forward(self, taps: Mapping[int, Tensor], features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How far the student is.

        Args:
            taps: number -> (B, C, h, w) float, the student's maps.
            features: layer -> (B, C', h', w') float, the detector's, of the same view of the same images.

        Returns:
            `feature`, the weighted mean of the layers; `feature_{layer}` of each; with `choose` also its `weight_feature_{layer}`.

        Raises:
            TrainingError: a map isn't there.
        """
        wanted = [f"layer {name!r} of the store" for name in self.params.layers if name not in features]
        wanted += [f"map {tap} of the student" for tap in self.taps if tap not in taps]
        if wanted:
            raise TrainingError(
                f"feature alignment: {', '.join(wanted)} missing; expected all that distill.features.layers names: "
                "read those layers, and ask the student for `taps`"
            )
        losses = {name: self._of_layer(name, taps[tap], features[name].detach()) for name, tap in self.params.layers.items()}
        stacked = torch.stack(list(losses.values()))
        named = {f"{FEATURE}_{name}": value for name, value in losses.items()}
        if self.choice is None:
            return {FEATURE: stacked.mean(), **named}
        weights = self.choice.softmax(dim=0)
        return {
            FEATURE: (weights * stacked).sum(),
            **named,
            **{f"weight_{FEATURE}_{name}": weight for name, weight in zip(losses, weights, strict=True)},
        }

    def _of_layer(self, name: str, tap: Tensor, truth: Tensor) -> Tensor:
        """Loss of one pair; convolutions in the precision of the run, what is compared in float32."""
        params = self.params
        hw = (min(tap.shape[2], truth.shape[2]), min(tap.shape[3], truth.shape[3]))
        truth = to_grid(truth, hw)
        guess = self.projections[name](to_grid(tap, hw))
        with torch.autocast(tap.device.type, enabled=False):
            truth = truth.float()
            weights = attention(truth) if params.attention else None
            if params.adapt:
                truth = self.adapters[name](truth)
            errors = cell_errors(guess.float(), truth, params.form)
            if params.form == "mse" and (params.choose or params.adapt):
                errors = errors / variance(truth)
            return feature_loss(errors, weights, params.clamp)
