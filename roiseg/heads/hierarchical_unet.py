"""`hierarchical_unet_v1` to `_v4`: the two decisions of `hierarchical`, made by U-shaped nets.

| | person or background | target or not | coupling | parameters as in the seed |
|---|---|---|---|---|
| v1 | `ShallowUNet`, 128 base channels | convolutions | gate | 12,345,062 |
| v2 | `EnhancedUNet`, 96, depth 3 | convolutions | gate | 18,671,286, with attention 4,194 more |
| v3 | `EnhancedUNet`, 96, depth 3 | `ShallowUNet`, 64 | gate, and one on the target's logit | 19,049,753 |
| v4 | `EnhancedUNet`, 128, depth 4 | `EnhancedUNet`, 96, depth 3 | attention between cells, and a fusion | 117,020,395 |

The figures are for 256 mid channels, without the inputs. All sizes are Python ints, so every version exports as it was trained.

Symbols: R ROIs, M `mid_channels`, (g, g') the ROI grid, (h, w) cells of the mask.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from roiseg.classes import CLASS_NAMES
from roiseg.heads.composed import NARROWEST, ComposedHead, ComposedParams, PartsParams, compose
from roiseg.heads.hierarchical import DECISIONS, hierarchical_trunk
from roiseg.nn.attention import CellAttention
from roiseg.nn.blocks import conv, residual, resize
from roiseg.nn.hierarchy import (
    Combination,
    HierarchicalDecoder,
    TargetGate,
    combined,
    decision_branch,
    foreground_gate,
    logit_upsampler,
)
from roiseg.nn.outputs import HeadOutput
from roiseg.nn.unets import SHALLOW_LEVELS, EnhancedUNet, ShallowUNet
from roiseg.types import HW, FeatureSpec

MIN_DEPTH, MAX_DEPTH = 2, 6

Channels = Annotated[int, Field(ge=2, multiple_of=2)]
Depth = Annotated[int, Field(ge=MIN_DEPTH, le=MAX_DEPTH)]


class UNetParams(PartsParams):
    """What the four versions have in common.

    Attributes:
        combine: how the two decisions become three logits: `logprob` (exact), `scaled` or `additive`.
        base_channels: of the net that tells people from background, on its finest grid.
        skip_gates: whether attention gates weigh the skips.
    """

    combine: Combination = "logprob"
    base_channels: Channels
    skip_gates: bool = False

    @property
    def aux_names(self) -> frozenset[str]:
        """See `HeadParams`."""
        return super().aux_names | DECISIONS

    @property
    def halvings(self) -> int:
        """How often the nets halve the ROI grid, at most."""
        return SHALLOW_LEVELS

    def widths(self) -> dict[str, int]:
        """See `ComposedParams`."""
        return super().widths() | {"base_channels": self.base_channels // 2}

    @model_validator(mode="after")
    def _grid_can_be_halved(self) -> "UNetParams":
        if min(self.inputs.roi_hw) < 2**self.halvings:
            raise ValueError(
                f"inputs.roi_hw is {self.inputs.roi_hw}, expected at least {2**self.halvings} cells a side, which are halved "
                f"{self.halvings} times"
            )
        return self


class UNetV1Params(ComposedParams, UNetParams):
    """Section `model` for `head: hierarchical_unet_v1`."""

    head: Literal["hierarchical_unet_v1"]
    base_channels: Channels = 128


class DeepUNetParams(UNetParams):
    """What the versions with an `EnhancedUNet` have in common.

    Attributes:
        depth: grids of the net that tells people from background.
    """

    depth: Depth

    @property
    def halvings(self) -> int:
        """See `UNetParams`."""
        return self.depth - 1


class V2Params(DeepUNetParams):
    """Version 2, whatever it reads.

    Attributes:
        dropout: share of channels that training drops; half of it in the gate.
        target_attention: whether the second decision weighs cells and channels.
    """

    base_channels: Channels = 96
    depth: Depth = 3
    dropout: float = Field(default=0.1, ge=0, lt=1)
    target_attention: bool = False


class UNetV2Params(ComposedParams, V2Params):
    """Section `model` for `head: hierarchical_unet_v2`."""

    head: Literal["hierarchical_unet_v2"]


class UNetV3Params(ComposedParams, DeepUNetParams):
    """Section `model` for `head: hierarchical_unet_v3`.

    Attributes:
        target_base_channels: of the net that tells target from others, on its finest grid.
    """

    head: Literal["hierarchical_unet_v3"]
    base_channels: Channels = 96
    depth: Depth = 3
    target_base_channels: Channels = 64

    @property
    def halvings(self) -> int:
        """See `UNetParams`."""
        return max(self.depth - 1, SHALLOW_LEVELS)

    def widths(self) -> dict[str, int]:
        """See `ComposedParams`."""
        return super().widths() | {"target_base_channels": self.target_base_channels // 2}


class UNetV4Params(ComposedParams, DeepUNetParams):
    """Section `model` for `head: hierarchical_unet_v4`.

    Attributes:
        target_base_channels: of the net that tells target from others, on its finest grid.
        target_depth: its grids.
    """

    head: Literal["hierarchical_unet_v4"]
    base_channels: Channels = 128
    depth: Depth = 4
    target_base_channels: Channels = 96
    target_depth: Depth = 3

    @property
    def halvings(self) -> int:
        """See `UNetParams`."""
        return max(self.depth, self.target_depth) - 1

    def widths(self) -> dict[str, int]:
        """See `ComposedParams`."""
        return super().widths() | {"target_base_channels": self.target_base_channels // 2}


class FusedDecoder(nn.Module):
    """Both decisions side by side, attention between their cells, and a change to what they say together."""

    def __init__(self, bg_fg: nn.Module, target: nn.Module, fuse: nn.Module, *, rule: Combination, mask_hw: HW) -> None:
        """Put the decoder together.

        Args:
            bg_fg: (R, M, g, g') -> (R, 2, h', w').
            target: (R, M, g, g') -> (R, 2, h', w').
            fuse: (R, 4, h', w') of both -> (R, 3, h', w'), added to their combination.
            rule: of `combine`.
            mask_hw: (h, w).
        """
        super().__init__()
        self.bg_fg, self.target, self.fuse = bg_fg, target, fuse
        self._rule, self._mask_hw = rule, mask_hw

    def forward(self, shared: Tensor) -> HeadOutput:
        """(R, M, g, g') -> logits (R, 3, h, w), and both decisions."""
        bg_fg, target = self.bg_fg(shared), self.target(shared)
        logits, decisions = combined(bg_fg, target, self._rule, self._mask_hw)
        change = resize(self.fuse(torch.cat([bg_fg, target], dim=1)), self._mask_hw)
        return HeadOutput(logits + change, decisions)


def build_v1(params: UNetV1Params, specs: Sequence[FeatureSpec]) -> ComposedHead:
    """Version 1 for these layers, with fresh weights: the lightest.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, style = params.mid_channels, params.blocks
    decoder = HierarchicalDecoder(
        ShallowUNet(mid, params.base_channels, classes=2, style=style, gated=params.skip_gates),
        logit_upsampler(mid // NARROWEST, style.up, blocks=0),
        foreground_gate((mid // 4, mid // 2, mid), style, dropout=0.0),
        decision_branch(mid, style, dropout=0.0, attention=False),
        rule=params.combine,
        mask_hw=params.mask_hw,
    )
    return compose(params, specs, hierarchical_trunk(mid, style, 2), decoder)


def build_v2(params: UNetV2Params, specs: Sequence[FeatureSpec]) -> ComposedHead:
    """Version 2 for these layers, with fresh weights: a deeper net for the border to the background, and dropout.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    return compose(params, specs, hierarchical_trunk(params.mid_channels, params.blocks, 2), v2_decoder(params))


def v2_decoder(params: V2Params) -> HierarchicalDecoder:
    """The decoder of version 2, with fresh weights."""
    mid, style, dropout = params.mid_channels, params.blocks, params.dropout
    return HierarchicalDecoder(
        EnhancedUNet(mid, params.base_channels, params.depth, style=style, dropout=dropout, gated=params.skip_gates),
        logit_upsampler(mid // NARROWEST, style.up, blocks=0),
        foreground_gate((mid // 4, mid // 2, mid), style, dropout=dropout / 2),
        decision_branch(mid, style, dropout=dropout, attention=params.target_attention),
        rule=params.combine,
        mask_hw=params.mask_hw,
    )


def build_v3(params: UNetV3Params, specs: Sequence[FeatureSpec]) -> ComposedHead:
    """Version 3 for these layers, with fresh weights: a net for each decision, and a gate on each.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, style = params.mid_channels, params.blocks
    decoder = HierarchicalDecoder(
        EnhancedUNet(mid, params.base_channels, params.depth, style=style, dropout=0.0, gated=params.skip_gates),
        logit_upsampler(mid // NARROWEST, style.up, blocks=0),
        foreground_gate((mid // 4, mid), style, dropout=0.0),
        nn.Sequential(
            ShallowUNet(mid, params.target_base_channels, classes=2, style=style, gated=params.skip_gates),
            TargetGate(mid // NARROWEST, style),
            logit_upsampler(mid // NARROWEST, style.up, blocks=0),
        ),
        rule=params.combine,
        mask_hw=params.mask_hw,
    )
    return compose(params, specs, hierarchical_trunk(mid, style, 2), decoder)


def build_v4(params: UNetV4Params, specs: Sequence[FeatureSpec]) -> ComposedHead:
    """Version 4 for these layers, with fresh weights: two deep nets, and attention between the cells of what they say.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, style, quarter = params.mid_channels, params.blocks, params.mid_channels // 4
    nets = ((params.base_channels, params.depth), (params.target_base_channels, params.target_depth))
    bg_fg, target = (
        nn.Sequential(
            EnhancedUNet(mid, base, depth, style=style, dropout=0.0, gated=params.skip_gates),
            logit_upsampler(quarter, style.up, blocks=1),
        )
        for base, depth in nets
    )
    fuse = nn.Sequential(
        CellAttention(4), conv(4, quarter, style.up), residual(quarter, style.up), nn.Conv2d(quarter, len(CLASS_NAMES), 1)
    )
    decoder = FusedDecoder(bg_fg, target, fuse, rule=params.combine, mask_hw=params.mask_hw)
    return compose(params, specs, hierarchical_trunk(mid, style, 3), decoder)
