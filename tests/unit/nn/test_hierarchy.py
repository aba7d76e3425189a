"""Tests of roiseg.nn.hierarchy: the three ways to combine two decisions, gates, and what a decoder hands on."""

import pytest
import torch
from torch import nn

from roiseg.nn.hierarchy import HierarchicalDecoder, TargetGate, combine, decision_branch, foreground_gate
from roiseg.nn.style import group_style

STYLE = group_style(1)


def decisions() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, 4, 5, generator=generator) * 3, torch.randn(3, 2, 4, 5, generator=generator) * 3


def test_logprob_is_the_three_products() -> None:
    """The decomposition that all of the original's rules missed (spec 9.8)."""
    first, second = decisions()
    foreground, person = first.softmax(1)[:, 1:], second.softmax(1)
    expected = torch.cat([first.softmax(1)[:, :1], foreground * person], dim=1)
    torch.testing.assert_close(combine(first, second, "logprob").softmax(1), expected)
    torch.testing.assert_close(combine(first, second, "logprob").exp().sum(1), torch.ones(3, 4, 5))


def test_logprob_bears_large_logits() -> None:
    first, second = torch.tensor([-200.0, 200.0]).view(1, 2, 1, 1), torch.tensor([300.0, -300.0]).view(1, 2, 1, 1)
    first.requires_grad_()
    logits = combine(first, second, "logprob")
    assert logits.flatten().tolist() == pytest.approx([-400.0, 0.0, -600.0])
    logits.logsumexp(1).sum().backward()  # type: ignore[no-untyped-call]
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()


def test_scaled_and_additive_by_hand() -> None:
    """The original's final rule and its first one (spec 9.8)."""
    first, second = torch.tensor([0.0, 0.0]).view(1, 2, 1, 1), torch.tensor([4.0, -2.0]).view(1, 2, 1, 1)
    assert combine(first + 1, second, "scaled").flatten().tolist() == pytest.approx([1.0, 3.0, 0.0])
    assert combine(first + 1, second, "additive").flatten().tolist() == pytest.approx([1.0, 3.0, 0.0])
    tilted = first + torch.tensor([0.0, 3.0]).log1p().view(1, 2, 1, 1)  # P(fg) = 0.8
    low, high = 0.0, float(torch.tensor(4.0).log())
    assert combine(tilted, second, "additive").flatten().tolist() == pytest.approx([low, high + 3.2, high - 1.6])
    assert combine(tilted, second, "scaled").flatten().tolist() == pytest.approx([low, high + 2.0, high - 1.0])


def test_target_gate_leaves_the_other_logit_alone() -> None:
    gate, x = TargetGate(4, STYLE), torch.randn(2, 2, 3, 5)
    found = gate(x).detach()
    assert torch.equal(found[:, 1], x[:, 1])
    factors = found[:, 0] / x[:, 0]
    assert ((factors > 0) & (factors < 1)).all()


@pytest.mark.parametrize("widths", [(4, 8), (2, 4, 8)])
def test_foreground_gate(widths: tuple[int, ...]) -> None:
    gate = foreground_gate(widths, STYLE, dropout=0.0)
    factors = gate(torch.randn(2, 2, 3, 5))
    assert factors.shape == (2, 8, 3, 5)
    assert ((factors > 0) & (factors < 1)).all()
    assert [part.out_channels for part in gate if isinstance(part, nn.Conv2d)] == list(widths)


def test_gate_drops_in_training_only() -> None:
    gate, x = foreground_gate((16, 8), STYLE, dropout=0.5), torch.randn(2, 2, 3, 5)
    assert not torch.equal(gate(x), gate(x))
    gate.eval()
    assert torch.equal(gate(x), gate(x))


def test_a_closed_gate_shows_the_second_decision_nothing() -> None:
    class Closed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(x.shape[0], 8, *x.shape[2:])

    branches = [decision_branch(8, STYLE, dropout=0.0, attention=False) for _ in range(2)]
    decoder = HierarchicalDecoder(branches[0], nn.Identity(), Closed(), branches[1], rule="logprob", mask_hw=(7, 9))
    shared = torch.randn(2, 8, 4, 6)
    logits, aux = decoder(shared)
    assert logits.shape == (2, 3, 7, 9)
    torch.testing.assert_close(aux["bg_fg"], branches[0](shared))
    torch.testing.assert_close(aux["target_non_target"], branches[1](torch.zeros_like(shared)))
    assert aux["bg_fg"].shape == (2, 2, 8, 12)
