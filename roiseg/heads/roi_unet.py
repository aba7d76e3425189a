"""`roi_unet`: a small U-shaped net that looks a little beyond the ROI, made for few images.

The box is aligned with `context` cells more on each side, so that the head sees whose limb enters the ROI; the rim is cut off
before the mask is made. Two channels say where in the box a cell lies. One level of a U (U-Net, figure 1, with residual blocks)
carries what its surroundings show to each cell, and the mean over the ROI what the whole of it shows: whether there is anybody
else is one question, not one a pixel. Dropout of whole channels keeps a few hundred ROIs from being learnt by heart.

Symbols: N images, R ROIs, M = `mid_channels`, (g, g') the ROI grid, (G, G') the grid with its rim, (h, w) the mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from roiseg.classes import CLASS_NAMES
from roiseg.heads.base import Cells, HeadParams
from roiseg.nn.blocks import ConvNormAct, GlobalContext, ResBlock
from roiseg.nn.outputs import HeadOutput
from roiseg.nn.roi_align import roi_align
from roiseg.nn.style import group_style
from roiseg.types import HW, FeatureSpec

LOGIT_STD = 0.01
"""Spread of the last layer's fresh weights: all classes start out equally likely."""


class RoiUnetParams(HeadParams):
    """Section `model` for `head: roi_unet`."""

    head: Literal["roi_unet"]
    roi_hw: tuple[Cells, Cells]
    sampling_ratio: int = Field(ge=1, le=8)
    context: int = Field(ge=0, le=64)
    layer_channels: int = Field(ge=1)
    mid_channels: int = Field(ge=1)
    deep_channels: int = Field(ge=1)
    out_channels: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    groups: int = Field(ge=1)

    @model_validator(mode="after")
    def _groups_divide(self) -> "RoiUnetParams":
        for name in ("layer_channels", "mid_channels", "deep_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(f"{name} {getattr(self, name)} isn't a multiple of groups {self.groups}")
        return self


@dataclass(frozen=True)
class ContextGrid:
    """Where an ROI is sampled.

    Attributes:
        roi_hw: (g, g') cells of the box.
        context: cells beyond each side.
        sampling_ratio: samples along each side of a bin.
    """

    roi_hw: HW
    context: int
    sampling_ratio: int

    @property
    def hw(self) -> HW:
        """(G, G')."""
        return self.roi_hw[0] + 2 * self.context, self.roi_hw[1] + 2 * self.context

    def grow(self, boxes: Tensor) -> Tensor:
        """Boxes (R, 5) with the rim around them, unit frame; may leave it."""
        ratio = boxes.new_tensor([self.context / self.roi_hw[1], self.context / self.roi_hw[0]])
        rim = (boxes[:, 3:5] - boxes[:, 1:3]) * ratio
        return torch.cat([boxes[:, :1], boxes[:, 1:3] - rim, boxes[:, 3:5] + rim], dim=1)

    def coordinates(self, boxes: Tensor) -> Tensor:
        """(R, 2, G, G') of x and y of the cell centres; -1 and 1 are the sides of the box."""
        axes = []
        for cells, box_cells in zip(self.hw, self.roi_hw, strict=True):
            centres = torch.arange(cells, dtype=boxes.dtype, device=boxes.device) + 0.5
            axes.append((centres - cells / 2) * (2 / box_cells))
        height, width = self.hw
        y, x = axes[0].view(height, 1).expand(height, width), axes[1].view(1, width).expand(height, width)
        return torch.stack([x, y]).expand(boxes.shape[0], 2, height, width)

    def crop(self, x: Tensor) -> Tensor:
        """(R, C, G, G') -> (R, C, g, g')."""
        rim, (height, width) = self.context, self.roi_hw
        return x[:, :, rim : rim + height, rim : rim + width]


class RoiUnetHead(nn.Module):
    """See the module's docstring; parts are passed in."""

    def __init__(
        self,
        laterals: nn.ModuleDict,
        fuse: nn.Module,
        down: nn.Module,
        up: nn.Module,
        refine: nn.Module,
        *,
        grid: ContextGrid,
        mask_hw: HW,
    ) -> None:
        """Put the head together.

        Args:
            laterals: layer -> (R, C, G, G') to (R, L, G, G').
            fuse: (R, layers * L + 2, G, G') -> (R, M, G, G').
            down: (R, M, G, G') -> (R, M, about G / 2, about G' / 2).
            up: (R, M, g, g') -> (R, O, 2g, 2g').
            refine: (R, O, h, w) -> (R, 3, h, w).
            grid: where ROIs are sampled.
            mask_hw: (h, w).
        """
        super().__init__()
        self.laterals, self.fuse, self.down, self.up, self.refine = laterals, fuse, down, up, refine
        self._grid, self._mask_hw = grid, mask_hw

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> HeadOutput:
        """Mask logits of every box.

        Args:
            features: layer -> (N, C, H, W) float32.
            boxes: (R, 5) of image number and xyxy in the unit frame.
        """
        grown = self._grid.grow(boxes)
        parts = [
            lateral(roi_align(features[name], grown, self._grid.hw, self._grid.sampling_ratio))
            for name, lateral in self.laterals.items()
        ]
        x = self.fuse(torch.cat([*parts, self._grid.coordinates(boxes)], dim=1))  # [R, M, G, G']
        x = x + F.interpolate(self.down(x), self._grid.hw, mode="bilinear", align_corners=False)
        x = self.up(self._grid.crop(x))  # [R, O, 2g, 2g']
        x = F.interpolate(x, self._mask_hw, mode="bilinear", align_corners=False)
        return HeadOutput(self.refine(x), {})


def build_roi_unet(params: RoiUnetParams, specs: Sequence[FeatureSpec]) -> RoiUnetHead:
    """The head for these layers, with fresh weights.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, deep, out, style = params.mid_channels, params.deep_channels, params.out_channels, group_style(params.groups)

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
        return ConvNormAct(inputs, outputs, kernel=kernel, stride=stride, style=style, bias=False)

    logits = nn.Conv2d(out, len(CLASS_NAMES), 1)
    nn.init.normal_(logits.weight, std=LOGIT_STD)
    nn.init.zeros_(logits.bias)  # type: ignore[arg-type]
    return RoiUnetHead(
        laterals=nn.ModuleDict({spec.name: conv(spec.channels, params.layer_channels, 1) for spec in specs}),
        fuse=nn.Sequential(
            conv(params.layer_channels * len(specs) + 2, mid, 3),
            nn.Dropout2d(params.dropout),
            ResBlock(mid, style=style, dropout=0.0, bias=False),
        ),
        down=nn.Sequential(
            conv(mid, deep, 3, 2),
            ResBlock(deep, style=style, dropout=params.dropout, bias=False),
            GlobalContext(deep),
            conv(deep, mid, 1),
        ),
        up=nn.Sequential(
            ResBlock(mid, style=style, dropout=0.0, bias=False),
            nn.ConvTranspose2d(mid, out, 2, 2),
            style.make_norm(out),
            nn.ReLU(inplace=True),
        ),
        refine=nn.Sequential(conv(out, out, 3), logits),
        grid=ContextGrid(params.roi_hw, params.context, params.sampling_ratio),
        mask_hw=params.mask_hw,
    )
