"""Tests of roiseg.nn.norms: what each is normal over, and no ROIs."""

import pytest
import torch
from torch import Tensor, nn

from roiseg.nn.norms import BatchNorm2d, ChannelNorm, InstanceNorm2d, LayerNorm2d, MixedNorm

OVER = {LayerNorm2d: (1, 2, 3), InstanceNorm2d: (2, 3), ChannelNorm: (1,), BatchNorm2d: (0, 2, 3)}
"""Axes that each norm is over."""


def slow(x: Tensor, over: tuple[int, ...]) -> Tensor:
    return (x - x.mean(over, keepdim=True)) / (x.var(over, unbiased=False, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("cls", OVER)
def test_norm_matches_reference(cls: type[nn.Module]) -> None:
    x = torch.randn(3, 4, 5, 2) * torch.rand(3, 4, 1, 1) * 5 + torch.randn(3, 4, 1, 1)
    norm = cls(4)
    torch.testing.assert_close(norm(x), slow(x, OVER[cls]), atol=1e-5, rtol=1e-5)
    factors, shifts = torch.randn(4), torch.randn(4)
    norm.load_state_dict({**norm.state_dict(), "weight": factors, "bias": shifts})
    expected = slow(x, OVER[cls]) * factors.view(4, 1, 1) + shifts.view(4, 1, 1)
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)


def test_mixed_norm_is_the_shares_of_both() -> None:
    x = torch.randn(3, 4, 5, 2)
    expected = 0.3 * slow(x, (0, 2, 3)) + 0.7 * slow(x, (2, 3))
    torch.testing.assert_close(MixedNorm(4, batch_share=0.3)(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", [LayerNorm2d(4), InstanceNorm2d(4), ChannelNorm(4), BatchNorm2d(4), MixedNorm(4, batch_share=0.5)])
def test_norm_of_no_rois_is_empty(norm: nn.Module) -> None:
    before = {name: values.clone() for name, values in norm.state_dict().items()}
    for mode in (True, False):
        out = norm.train(mode)(torch.zeros(0, 4, 5, 2))
        assert out.shape == (0, 4, 5, 2)
        out.sum().backward()
    assert all(torch.equal(values, before[name]) for name, values in norm.state_dict().items())
    assert all(item.grad is None or torch.isfinite(item.grad).all() for item in norm.parameters())
