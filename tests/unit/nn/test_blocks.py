"""Tests of roiseg.nn.blocks: sizes, what dropout leaves, and the way around a block."""

from typing import Literal

import pytest
import torch

from roiseg.nn.blocks import ConvNormAct, GlobalContext, ResBlock, UpNormAct, conv, residual
from roiseg.nn.style import group_style


@pytest.mark.parametrize(("kernel", "stride", "expected"), [(1, 1, (7, 4)), (3, 1, (7, 4)), (3, 2, (4, 2)), (5, 2, (4, 2))])
def test_conv_norm_act_sizes(kernel: int, stride: int, expected: tuple[int, int]) -> None:
    block = ConvNormAct(4, 6, kernel=kernel, stride=stride, style=group_style(3), bias=False)
    out = block(torch.randn(2, 4, 7, 4))
    assert out.shape == (2, 6, *expected)
    assert out.min() == 0
    assert block.conv.bias is None


def test_conv_norm_act_normalises_each_group_of_each_item() -> None:
    block = ConvNormAct(3, 4, kernel=3, stride=1, style=group_style(2), bias=True)
    normed = block.norm(block.conv(torch.randn(2, 3, 6, 5) * 7 + 3)).detach().reshape(2, 2, -1)
    torch.testing.assert_close(normed.mean(2), torch.zeros(2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed.var(2, unbiased=False), torch.ones(2, 2), atol=1e-3, rtol=0)


def test_res_block_without_its_branch_is_relu() -> None:
    block = ResBlock(4, style=group_style(2), dropout=0.0, bias=False)
    block.norm.load_state_dict({"weight": torch.zeros(4), "bias": torch.zeros(4)})
    x = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(block(x), x.relu())


def test_res_block_drops_whole_channels_in_training_only() -> None:
    block = ResBlock(8, style=group_style(2), dropout=0.5, bias=False)
    x = torch.rand(4, 8, 5, 3) + 10  # far above the branch, so that ReLU cuts nothing
    torch.manual_seed(0)
    dropped = (block(x) == x).flatten(2)
    assert (dropped.all(2) | ~dropped.any(2)).all()
    assert 0 < int(dropped.all(2).sum()) < 32
    block.eval()
    assert not (block(x) == x).flatten(2).all(2).any()
    torch.testing.assert_close(block(x), block(x))


def test_global_context_starts_as_an_identity() -> None:
    x = torch.randn(3, 4, 5, 2)
    torch.testing.assert_close(GlobalContext(4)(x), x, rtol=0, atol=0)


def test_global_context_tells_every_cell_of_every_other_and_of_no_other_item() -> None:
    block = GlobalContext(4)
    torch.manual_seed(0)
    torch.nn.init.normal_(block.second.weight)
    x = torch.rand(2, 4, 3, 3)
    changed = x.clone()
    changed[0, :, 0, 0] += 5
    difference = (block(changed) - block(x)).detach()
    assert (difference[0, :, 2, 2].abs() > 1e-3).any()
    torch.testing.assert_close(difference[0, :, 2, 2], difference[0, :, 1, 0])
    assert not difference[1].any()


@pytest.mark.parametrize("kernel", [2, 4])
def test_up_norm_act_doubles_the_grid(kernel: Literal[2, 4]) -> None:
    block = UpNormAct(4, 6, kernel=kernel, style=group_style(3))
    out = block(torch.randn(2, 4, 3, 5))
    assert out.shape == (2, 6, 6, 10)
    assert out.min() == 0
    spread = torch.zeros(1, 4, 3, 5)
    spread[0, :, 1, 2] = 1.0
    touched = (block.conv(spread) - block.conv(torch.zeros(1, 4, 3, 5))).abs().amax((0, 1)) > 0
    assert int(touched.sum()) == kernel * kernel


def test_the_seed_s_blocks_have_biases() -> None:
    assert conv(4, 6, group_style(2)).conv.bias is not None
    blocks = residual(4, group_style(2), 3)
    assert len(blocks) == 3
    assert all(isinstance(block, ResBlock) and block.second.bias is not None for block in blocks)
