"""The norm and the activation that all blocks of a head share, and the weights that its convolutions start from."""

from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import Field, model_validator
from torch import nn

from roiseg.nn.norms import BatchNorm2d, ChannelNorm, GroupNorm, InstanceNorm2d, LayerNorm2d, MixedNorm
from roiseg.params import Section

PLAIN_NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "layernorm2d": LayerNorm2d,
    "channel": ChannelNorm,
    "batch": BatchNorm2d,
    "instance": InstanceNorm2d,
}
"""Norms that need the number of channels and nothing else."""

Norm = Literal["layernorm2d", "channel", "batch", "instance", "group", "mixed"]

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


class Style(Section):
    """Sub-section `blocks` of a model.

    Attributes:
        norm: `layernorm2d` (channels and cells together), `channel` (channels of a cell), `batch`, `instance`, `group`, `mixed`.
        groups: of `group`, and null otherwise.
        batch_share: of `mixed`, the weight of its batch norm; null otherwise.
        activation: `relu`, `silu`, `gelu`, or `mixed`: SiLU down to the smallest grid, ReLU from there up to the mask.
    """

    norm: Norm = "layernorm2d"
    groups: int | None = Field(default=None, ge=1)
    batch_share: float | None = Field(default=None, gt=0, lt=1)
    activation: Literal["relu", "silu", "gelu", "mixed"] = "relu"

    @model_validator(mode="after")
    def _values_belong_to_the_norm(self) -> "Style":
        for name, norm in (("groups", "group"), ("batch_share", "mixed")):
            value = getattr(self, name)
            if (value is None) == (self.norm == norm):
                expected = "a value" if value is None else "null"
                raise ValueError(f"{name} is {'null' if value is None else value} with norm {self.norm}, expected {expected}")
        return self

    @property
    def up(self) -> "Style":
        """What holds on the way from the smallest grid up to the mask."""
        return self.model_copy(update={"activation": "relu"}) if self.activation == "mixed" else self

    def make_norm(self, channels: int) -> nn.Module:
        """A fresh norm for (R, `channels`, h, w)."""
        if self.groups is not None:
            return GroupNorm(self.groups, channels)
        if self.batch_share is not None:
            return MixedNorm(channels, batch_share=self.batch_share)
        return PLAIN_NORMS[self.norm](channels)

    def make_activation(self) -> nn.Module:
        """A fresh activation; of `mixed` the one on the way down."""
        return ACTIVATIONS["silu" if self.activation == "mixed" else self.activation]()


def group_style(groups: int) -> Style:
    """Group norm and ReLU."""
    return Style(norm="group", groups=groups)


def kaiming(module: nn.Module) -> None:
    """Fresh weights of a convolution, for `nn.Module.apply`: normal of variance 2 / fan-in (Delving deep, eq. 10), bias 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
