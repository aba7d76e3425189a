"""`hierarchical`: person or background first, then target or not, each by a branch of its own.

256 mid channels behind fused inputs make the seed's 6,186,948 parameters.

Symbols: M `mid_channels`.
"""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from roiseg.heads.composed import ComposedHead, ComposedParams, compose
from roiseg.nn.blocks import conv, residual
from roiseg.nn.hierarchy import Combination, HierarchicalDecoder, decision_branch, foreground_gate
from roiseg.nn.style import Style
from roiseg.types import FeatureSpec

DECISIONS = frozenset({"bg_fg", "target_non_target"})
"""Outputs of all heads that decide in two steps."""


class HierarchicalParams(ComposedParams):
    """Section `model` for `head: hierarchical`.

    Attributes:
        combine: how the two decisions become three logits: `logprob` (exact), `scaled` or `additive`.
    """

    head: Literal["hierarchical"]
    combine: Combination = "logprob"

    @property
    def aux_names(self) -> frozenset[str]:
        """See `HeadParams`."""
        return super().aux_names | DECISIONS


def hierarchical_trunk(channels: int, style: Style, blocks: int) -> nn.Sequential:
    """(R, M, g, g') -> shared features (R, M, g, g'), with this many residual blocks."""
    return nn.Sequential(conv(channels, channels, style), residual(channels, style, blocks))


def build_hierarchical(params: HierarchicalParams, specs: Sequence[FeatureSpec]) -> ComposedHead:
    """The head for these layers, with fresh weights.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, style = params.mid_channels, params.blocks
    decoder = HierarchicalDecoder(
        decision_branch(mid, style, dropout=0.0, attention=False),
        nn.Identity(),
        foreground_gate((mid // 4, mid), style, dropout=0.0),
        decision_branch(mid, style, dropout=0.0, attention=False),
        rule=params.combine,
        mask_hw=params.mask_hw,
    )
    return compose(params, specs, hierarchical_trunk(mid, style, 2), decoder)
