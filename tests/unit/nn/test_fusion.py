"""Tests of roiseg.nn.fusion: the way of each grid to the common one, and each way of putting layers together."""

import pytest
import torch
from torch import nn

from roiseg.nn.blocks import Resize, resize
from roiseg.nn.fusion import Concat, Sum, TopDown, WeightedSum, to_grid
from roiseg.nn.style import group_style
from roiseg.types import HW

STYLE = group_style(1)


def convolutions(module: nn.Module) -> list[tuple[int, int, int]]:
    """Channels in, out and stride of each."""
    return [(part.in_channels, part.out_channels, part.stride[0]) for part in module.modules() if isinstance(part, nn.Conv2d)]


@pytest.mark.parametrize(
    ("from_hw", "to_hw", "expected"),
    [
        ((6, 8), (6, 8), []),
        ((12, 16), (6, 8), [(4, 4, 2), (4, 4, 1)]),
        ((9, 12), (6, 8), [(4, 8, 1), (8, 4, 1)]),
        ((5, 8), (6, 8), [(4, 4, 1)]),
        ((10, 12), (6, 8), [(4, 4, 1), (4, 4, 1)]),
        ((12, 8), (6, 8), [(4, 4, 1), (4, 4, 1)]),
    ],
)
def test_each_way_to_the_common_grid(from_hw: HW, to_hw: HW, expected: list[tuple[int, int, int]]) -> None:
    way = to_grid(4, from_hw, to_hw, STYLE)
    assert convolutions(way) == expected
    assert way(torch.randn(3, 4, *from_hw)).shape == (3, 4, *to_hw)
    assert not any(isinstance(part, nn.AdaptiveAvgPool2d) for part in way.modules())


def test_a_smaller_grid_is_smoothed_after_it_has_grown() -> None:
    assert isinstance(next(way for way in to_grid(4, (3, 4), (6, 8), STYLE).children()), Resize)


def test_resize_leaves_its_own_size_alone() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert resize(x, (4, 5)) is x
    flat = resize(torch.full((1, 1, 2, 3), 7.0), (5, 4))
    torch.testing.assert_close(flat, torch.full((1, 1, 5, 4), 7.0))


def test_weighted_sum_starts_as_the_mean_and_learns_shares() -> None:
    parts = [torch.randn(2, 3, 4, 5) for _ in range(3)]
    block = WeightedSum(3)
    torch.testing.assert_close(block(parts), torch.stack(parts).mean(0))
    block.load_state_dict({"scores": torch.tensor([1.0, 3.0, 2.0]).log()})
    torch.testing.assert_close(block(parts), (parts[0] + 3 * parts[1] + 2 * parts[2]) / 6)


def test_sum_and_concat() -> None:
    parts = [torch.randn(2, 3, 4, 5) for _ in range(3)]
    torch.testing.assert_close(Sum()(parts), torch.stack(parts).sum(0))
    assert torch.equal(Sum()(parts[:1]), parts[0])
    block = Concat(3, 3, STYLE)
    assert convolutions(block) == [(9, 3, 1)]
    assert block(parts).shape == (2, 3, 4, 5)
    assert not torch.equal(block(parts), block(parts[::-1]))


def test_top_down_goes_from_the_coarsest_to_the_finest() -> None:
    """With smoothing that does nothing, the sums can be written down."""
    block = TopDown(1, [2, 0, 1])
    for smooth in block.smooth:
        assert isinstance(smooth, nn.Conv2d)
        nn.init.dirac_(smooth.weight)
        nn.init.zeros_(smooth.bias)  # type: ignore[arg-type]
    parts = [torch.full((1, 1, *hw), value) for hw, value in (((4, 6), 1.0), ((8, 12), 10.0), ((2, 3), 100.0))]
    found = block(parts)
    assert [tuple(part.shape[2:]) for part in found] == [(4, 6), (8, 12), (2, 3)]
    assert [float(part.detach().mean()) for part in found] == pytest.approx([101.0, 111.0, 100.0])
    for part in found:
        torch.testing.assert_close(part, part[:, :, :1, :1].expand_as(part))


def test_top_down_smooths_each_on_its_way_out() -> None:
    block = TopDown(2, [1, 0])
    fine, coarse = torch.randn(1, 2, 4, 6), torch.randn(1, 2, 2, 3)
    found = block([fine, coarse])
    torch.testing.assert_close(found[1], block.smooth[1](coarse))
    torch.testing.assert_close(found[0], block.smooth[0](fine + resize(coarse, (4, 6))))
