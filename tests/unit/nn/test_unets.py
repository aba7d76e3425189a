"""Tests of roiseg.nn.unets: sizes as published, grids that don't halve evenly, gates on the skips."""

import pytest
import torch
from torch import nn

from roiseg.nn.style import Style
from roiseg.nn.unets import EnhancedUNet, ShallowUNet

STYLE = Style(norm="layernorm2d", groups=None, batch_share=None, activation="relu")
MIXED = Style(norm="layernorm2d", groups=None, batch_share=None, activation="mixed")


def count(module: nn.Module) -> int:
    return sum(item.numel() for item in module.parameters())


@pytest.mark.parametrize(("base", "expected"), [(128, 7_741_570), (64, 2_011_202)])
def test_shallow_parameters(base: int, expected: int) -> None:
    with torch.device("meta"):
        assert count(ShallowUNet(256, base, classes=2, style=STYLE, gated=False)) == expected


@pytest.mark.parametrize(
    ("base", "depth", "expected"),
    [(64, 3, 6_305_506), (72, 3, 7_957_982), (96, 3, 14_067_794), (96, 4, 55_522_514), (128, 4, 98_591_682)],
)
def test_enhanced_parameters(base: int, depth: int, expected: int) -> None:
    with torch.device("meta"):
        assert count(EnhancedUNet(256, base, depth, style=STYLE, dropout=0.1, gated=False)) == expected


@pytest.mark.parametrize("hw", [(8, 12), (9, 5), (4, 4)])
@pytest.mark.parametrize("gated", [True, False])
def test_any_grid_comes_back(hw: tuple[int, int], gated: bool) -> None:
    nets = [ShallowUNet(6, 4, classes=2, style=STYLE, gated=gated), EnhancedUNet(6, 4, 3, style=STYLE, dropout=0.1, gated=gated)]
    for net in nets:
        assert net(torch.randn(2, 6, *hw)).shape == (2, 2, *hw)
        assert net(torch.zeros(0, 6, *hw)).shape == (0, 2, *hw)


def test_gates_are_parts_of_the_net() -> None:
    plain, gated = (ShallowUNet(6, 4, classes=2, style=STYLE, gated=value) for value in (False, True))
    widths = (8, 4)
    assert count(gated) - count(plain) == sum(2 * (width * width // 2 + width // 2) + width // 2 + 1 for width in widths)


def test_mixed_activation_changes_at_the_bottom() -> None:
    net = EnhancedUNet(6, 4, 3, style=MIXED, dropout=0.0, gated=False)
    down, up = ([type(part) for part in half.modules() if isinstance(part, nn.SiLU | nn.ReLU)] for half in (net.down, net.decode))
    assert set(down) == {nn.SiLU}
    assert set(up) == {nn.ReLU}


def test_dropout_is_for_training() -> None:
    net, x = EnhancedUNet(6, 4, 2, style=STYLE, dropout=0.5, gated=False), torch.randn(2, 6, 4, 6)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
