"""`roi_crop`: align every layer to the ROI, convolve, upsample, classify (plan A of the seed, after Mask R-CNN's mask head).

One layer of 1024 channels, `roi_hw` 14x14, 256 mid channels, one block and 32 groups make the seed's 3,541,507 parameters.

Symbols: N images, R ROIs, M = `mid_channels`, (g, g') the ROI grid, (h, w) the mask.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from roiseg.classes import CLASS_NAMES
from roiseg.heads.base import Cells, HeadParams
from roiseg.nn.blocks import ConvNormAct
from roiseg.nn.outputs import HeadOutput
from roiseg.nn.roi_align import roi_align
from roiseg.nn.style import group_style
from roiseg.types import HW, FeatureSpec


class RoiCropParams(HeadParams):
    """Section `model` for `head: roi_crop`."""

    head: Literal["roi_crop"]
    roi_hw: tuple[Cells, Cells]
    sampling_ratio: int = Field(ge=1, le=8)
    mid_channels: int = Field(ge=1)
    blocks: int = Field(ge=1, le=16)
    groups: int = Field(ge=1)

    @model_validator(mode="after")
    def _groups_divide(self) -> "RoiCropParams":
        if self.mid_channels % self.groups:
            raise ValueError(f"mid_channels {self.mid_channels} isn't a multiple of groups {self.groups}")
        return self


class RoiCropHead(nn.Module):
    """See the module's docstring; parts are passed in."""

    def __init__(
        self,
        layers: Sequence[str],
        stem: nn.Module,
        trunk: nn.Module,
        refine: nn.Module,
        *,
        roi_hw: HW,
        mask_hw: HW,
        sampling_ratio: int,
    ) -> None:
        """Put the head together.

        Args:
            layers: layers that are aligned, in order.
            stem: (R, sum of channels, g, g') -> (R, M, g, g').
            trunk: (R, M, g, g') -> (R, M, g, g').
            refine: (R, M, h, w) -> (R, 3, h, w).
            roi_hw: (g, g').
            mask_hw: (h, w).
            sampling_ratio: samples along each side of a bin.
        """
        super().__init__()
        self.stem, self.trunk, self.refine = stem, trunk, refine
        self._layers, self._roi_hw, self._mask_hw, self._sampling_ratio = tuple(layers), roi_hw, mask_hw, sampling_ratio

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> HeadOutput:
        """Mask logits of every box.

        Args:
            features: layer -> (N, C, H, W) float32.
            boxes: (R, 5) of image number and xyxy in the unit frame.
        """
        pooled = [roi_align(features[name], boxes, self._roi_hw, self._sampling_ratio) for name in self._layers]
        x = self.trunk(self.stem(torch.cat(pooled, dim=1)))  # [R, M, g, g']
        x = F.interpolate(x, self._mask_hw, mode="bilinear", align_corners=False)
        return HeadOutput(self.refine(x), {})


def build_roi_crop(params: RoiCropParams, specs: Sequence[FeatureSpec]) -> RoiCropHead:
    """The head for these layers, with fresh weights.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, style = params.mid_channels, group_style(params.groups)
    channels = sum(spec.channels for spec in specs)

    return RoiCropHead(
        params.layers,
        stem=ConvNormAct(channels, mid, kernel=3, stride=1, style=style, bias=True),
        trunk=nn.Sequential(*(ConvNormAct(mid, mid, kernel=3, stride=1, style=style, bias=True) for _ in range(params.blocks))),
        refine=nn.Sequential(nn.Conv2d(mid, mid, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(mid, len(CLASS_NAMES), 1)),
        roi_hw=params.roi_hw,
        mask_hw=params.mask_hw,
        sampling_ratio=params.sampling_ratio,
    )
