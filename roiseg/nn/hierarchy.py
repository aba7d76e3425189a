"""Two decisions instead of one of three: person or background, then which person.

Symbols: R ROIs, C channels of the shared features, (g, g') their grid, (h', w') any other, (h, w) cells of the mask; b the logits
of background and foreground, t those of target and non-target.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from roiseg.nn.attention import ChannelAttention, SpatialAttention
from roiseg.nn.blocks import UpNormAct, residual, resize
from roiseg.nn.outputs import HeadOutput
from roiseg.nn.style import Style
from roiseg.types import HW

Combination = Literal["logprob", "scaled", "additive"]

SCALE = 0.5
"""Factor on t in `scaled`."""


def combine(bg_fg: Tensor, target_non_target: Tensor, rule: Combination) -> Tensor:
    """Logits of background, target and non-target from those of the two decisions.

    `logprob` is exact: the softmax of (log P(bg), log P(fg) + log P(target | fg), log P(fg) + log P(non-target | fg)) gives the
    three products back. The other two are the seed's: `scaled` is (b0, b1 + t0 / 2, b1 + t1 / 2), `additive` is
    (b0, b1 + t0 P(fg), b1 + t1 P(fg)); both count the foreground twice.

    Args:
        bg_fg: (R, 2, h, w).
        target_non_target: (R, 2, h, w).
        rule: which.

    Returns:
        (R, 3, h, w).
    """
    if rule == "logprob":
        first, second = bg_fg.log_softmax(dim=1), target_non_target.log_softmax(dim=1)
    elif rule == "scaled":
        first, second = bg_fg, target_non_target * SCALE
    else:
        first, second = bg_fg, target_non_target * bg_fg.softmax(dim=1)[:, 1:]
    return torch.cat([first[:, :1], first[:, 1:] + second], dim=1)


def decision_branch(channels: int, style: Style, *, dropout: float, attention: bool) -> nn.Sequential:
    """A decision by convolutions: (R, C, g, g') -> (R, 2, 2g, 2g') logits.

    Args:
        channels: C.
        style: norms and activations.
        dropout: share of channels that training drops.
        attention: whether cells, and then channels, are weighed.
    """
    half, up = channels // 2, style.up
    return nn.Sequential(
        residual(channels, style),
        SpatialAttention(7) if attention else nn.Identity(),
        nn.Dropout2d(dropout),
        UpNormAct(channels, half, kernel=2, style=up),
        ChannelAttention(half, up) if attention else nn.Identity(),
        nn.Dropout2d(dropout),
        residual(half, up),
        nn.Conv2d(half, 2, 1),
    )


def logit_upsampler(channels: int, style: Style, *, blocks: int) -> nn.Sequential:
    """A decision's logits at twice the grid: (R, 2, g, g') -> (R, 2, 2g, 2g').

    Args:
        channels: in between.
        style: norms and activations.
        blocks: residual blocks in between.
    """
    return nn.Sequential(
        UpNormAct(2, channels, kernel=2, style=style), residual(channels, style, blocks), nn.Conv2d(channels, 2, 1)
    )


def foreground_gate(widths: Sequence[int], style: Style, *, dropout: float) -> nn.Sequential:
    """Factors from 0 to 1 on the shared features, from the first decision: (R, 2, g, g') -> (R, last width, g, g').

    Args:
        widths: channels after each of its 1x1 convolutions.
        style: activation.
        dropout: share of channels that training drops between them.
    """
    parts: list[nn.Module] = []
    for before, after in pairwise([2, *widths]):
        parts += [nn.Conv2d(before, after, 1), style.make_activation(), nn.Dropout2d(dropout)]
    return nn.Sequential(*parts[:-2], nn.Sigmoid())


class TargetGate(nn.Module):
    """Weighs the target's logit by what both logits of the second decision say: (R, 2, h', w') -> the same."""

    def __init__(self, channels: int, style: Style) -> None:
        """Build the gate.

        Args:
            channels: between its convolutions.
            style: activation.
        """
        super().__init__()
        self.factor = nn.Sequential(nn.Conv2d(2, channels, 1), style.make_activation(), nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(R, 2, h', w') -> (R, 2, h', w')."""
        return torch.cat([x[:, :1] * self.factor(x), x[:, 1:]], dim=1)


class HierarchicalDecoder(nn.Module):
    """First decision, a gate from it on the features, second decision, combination."""

    def __init__(
        self, bg_fg: nn.Module, upsample: nn.Module, gate: nn.Module, target: nn.Module, *, rule: Combination, mask_hw: HW
    ) -> None:
        """Put the decoder together.

        Args:
            bg_fg: (R, C, g, g') -> (R, 2, h', w'), what the gate sees of the first decision.
            upsample: what becomes of that in the mask, (R, 2, h', w') -> (R, 2, h'', w'').
            gate: (R, 2, g, g') -> (R, C, g, g'), from 0 to 1.
            target: (R, C, g, g') -> (R, 2, h', w').
            rule: of `combine`.
            mask_hw: (h, w).
        """
        super().__init__()
        self.bg_fg, self.upsample, self.gate, self.target = bg_fg, upsample, gate, target
        self._rule, self._mask_hw = rule, mask_hw

    def forward(self, shared: Tensor, guide: Tensor | None = None) -> HeadOutput:
        """Both decisions, and what they say together.

        Args:
            shared: (R, C, g, g').
            guide: (R, 1, g, g'), a factor on the gate from somebody else who knows where people are.

        Returns:
            Logits (R, 3, h, w), and both decisions.
        """
        seen = self.bg_fg(shared)  # [R, 2, h', w']
        gate = self.gate(resize(seen, (shared.shape[2], shared.shape[3])))
        gated = shared * (gate if guide is None else gate * guide)
        return combined(self.upsample(seen), self.target(gated), self._rule, self._mask_hw)


def combined(bg_fg: Tensor, target_non_target: Tensor, rule: Combination, mask_hw: HW) -> HeadOutput:
    """Both decisions, each of any grid (R, 2, h', w'), combined at mask size."""
    logits = combine(resize(bg_fg, mask_hw), resize(target_non_target, mask_hw), rule)
    return HeadOutput(logits, {"bg_fg": bg_fg, "target_non_target": target_non_target})
