"""Tests of roiseg.nn.attention: factors from 0 to 1, on what they should be, by hand where that is short."""

import pytest
import torch
from torch import nn

from roiseg.nn.attention import AttentionGate, CellAttention, ChannelAttention, SpatialAttention, make_attention
from roiseg.nn.style import group_style

STYLE = group_style(1)


def test_channel_attention_is_one_factor_a_channel() -> None:
    block, x = ChannelAttention(16, STYLE), torch.rand(2, 16, 5, 3) + 1
    factors = (block(x) / x).detach()
    torch.testing.assert_close(factors, factors[:, :, :1, :1].expand_as(factors))
    assert 0 < float(factors.min()) < float(factors.max()) < 1


@pytest.mark.parametrize(("channels", "inner"), [(16, 8), (64, 8), (128, 16)])
def test_channel_attention_width(channels: int, inner: int) -> None:
    assert ChannelAttention(channels, STYLE).squeeze.out_channels == inner


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_spatial_attention_is_one_factor_a_cell(kernel: int) -> None:
    block, x = SpatialAttention(kernel), torch.rand(2, 4, 5, 3) + 1  # type: ignore[arg-type]
    factors = (block(x) / x).detach()
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    assert 0 < float(factors.min()) < float(factors.max()) < 1
    assert block.conv.weight.shape == (1, 2, kernel, kernel)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [("se", [ChannelAttention]), ("spatial", [SpatialAttention]), ("cbam", [ChannelAttention, SpatialAttention]), (None, [])],
)
def test_make_attention(kind: str | None, parts: list[type[nn.Module]]) -> None:
    found = make_attention(kind, 8, STYLE)  # type: ignore[arg-type]
    assert isinstance(found, nn.Sequential)
    assert [type(part) for part in found] == parts


def test_attention_gate_weighs_the_skip_by_both() -> None:
    block, skip, up = AttentionGate(4, STYLE), torch.rand(2, 4, 5, 3) + 1, torch.randn(2, 4, 5, 3)
    factors = (block(skip, up) / skip).detach()
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    assert not torch.equal(block(skip, up), block(skip, -up))
    cell = (block.gate(up) + block.skip(skip)).relu()
    torch.testing.assert_close(factors[:, :1], block.factor(cell).sigmoid().detach())


def test_cell_attention_matches_reference() -> None:
    block, x = CellAttention(4), torch.randn(2, 4, 3, 5)
    with torch.no_grad():
        found = block(x)
        for roi in range(2):
            cells = x[roi].flatten(1).T
            query, key, value = block.project(cells).split(4, dim=1)
            expected = block.out(torch.softmax(query @ key.T / 2, dim=1) @ value).T.reshape(4, 3, 5)
            torch.testing.assert_close(found[roi], x[roi] + expected, atol=1e-5, rtol=1e-5)
    assert block(torch.zeros(0, 4, 3, 5)).shape == (0, 4, 3, 5)
    assert sum(item.numel() for item in block.parameters()) == 80
