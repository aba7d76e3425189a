"""Tests of roiseg.nn.style: the norm and activation that a name stands for, params that don't fit, fresh weights."""

from typing import Any

import pytest
import torch
from torch import nn

from roiseg.errors import ParamsError
from roiseg.nn.norms import BatchNorm2d, ChannelNorm, GroupNorm, InstanceNorm2d, LayerNorm2d, MixedNorm
from roiseg.nn.style import Style, group_style, kaiming

PLAIN = {"norm": "layernorm2d", "groups": None, "batch_share": None, "activation": "relu"}


def style(**changes: object) -> Style:
    return Style.parse({**PLAIN, **changes}, "model.blocks")


@pytest.mark.parametrize(
    ("changes", "cls"),
    [
        ({}, LayerNorm2d),
        ({"norm": "channel"}, ChannelNorm),
        ({"norm": "batch"}, BatchNorm2d),
        ({"norm": "instance"}, InstanceNorm2d),
        ({"norm": "group", "groups": 2}, GroupNorm),
        ({"norm": "mixed", "batch_share": 0.5}, MixedNorm),
    ],
)
def test_each_norm(changes: dict[str, Any], cls: type[nn.Module]) -> None:
    assert type(style(**changes).make_norm(4)) is cls


def test_groups_reach_the_norm() -> None:
    norm = group_style(2).make_norm(6)
    assert isinstance(norm, GroupNorm)
    assert (norm.num_groups, norm.num_channels) == (2, 6)


@pytest.mark.parametrize(
    ("activation", "down", "up"),
    [("relu", nn.ReLU, nn.ReLU), ("silu", nn.SiLU, nn.SiLU), ("gelu", nn.GELU, nn.GELU), ("mixed", nn.SiLU, nn.ReLU)],
)
def test_each_activation(activation: str, down: type[nn.Module], up: type[nn.Module]) -> None:
    found = style(activation=activation)
    assert type(found.make_activation()) is down
    assert type(found.up.make_activation()) is up


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 4}, r"model\.blocks: .*groups is 4 with norm layernorm2d, expected null"),
        ({"norm": "group"}, r"groups is null with norm group, expected a value"),
        ({"norm": "batch", "batch_share": 0.5}, r"batch_share is 0\.5 with norm batch, expected null"),
        ({"norm": "mixed"}, r"batch_share is null with norm mixed, expected a value"),
        ({"norm": "mixed", "batch_share": 1.0}, r"model\.blocks\.batch_share: value is 1\.0"),
        ({"norm": "layer"}, r"model\.blocks\.norm: value is 'layer'"),
        ({"activation": "swish"}, r"model\.blocks\.activation: value is 'swish'"),
    ],
)
def test_params_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        style(**changes)


def test_kaiming_keeps_the_variance_through_relu() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 64, 3, padding=1)
    kaiming(conv)
    assert conv.bias is not None
    assert not conv.bias.any()
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
