"""`dynamic_filter`: each ROI makes the weights of a few small convolutions that find its person (plan C of the seed, CondInst).

A branch turns the features of the whole image into a few channels, once for all its ROIs. Each ROI's own map, averaged, makes the
weights of 1x1 convolutions over those channels and the coordinates in the box. CondInst runs them over the whole image; here they
run on the box at mask size, which is all that a mask of the box needs.

Symbols: N images, R ROIs, M `mid_channels`, B `branch_channels`, P weights of an ROI, (g, g') the ROI grid, (H, W) cells of the
first layer, (h, w) cells of the mask.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from roiseg.classes import CLASS_NAMES
from roiseg.heads.inputs import InputHeadParams, build_inputs
from roiseg.nn.blocks import conv, residual
from roiseg.nn.dynamic import DynamicFilters, box_coordinates
from roiseg.nn.image_maps import ImageMap
from roiseg.nn.outputs import HeadOutput
from roiseg.nn.roi_align import roi_align
from roiseg.nn.style import Style, kaiming
from roiseg.types import HW, IMAGE, FeatureSpec

COORDINATES = 2
"""Channels of the coordinates in the box."""

FILTER_STD = 0.01
"""Spread of the fresh weights that make weights."""


class DynamicFilterParams(InputHeadParams):
    """Section `model` for `head: dynamic_filter`; the first of `layers` gives the grid of the branch.

    Attributes:
        mid_channels: M.
        branch_channels: B.
        filter_channels: between the convolutions that ROIs make.
        filter_layers: how many of them.
    """

    head: Literal["dynamic_filter"]
    mid_channels: int = Field(default=64, ge=1)
    branch_channels: int = Field(default=8, ge=1)
    filter_channels: int = Field(default=8, ge=1)
    filter_layers: int = Field(default=3, ge=2, le=8)

    @model_validator(mode="after")
    def _parts_fit(self) -> "DynamicFilterParams":
        faults = self.inputs.faults(self.layers)
        groups = self.blocks.groups or 1
        if self.mid_channels % groups:
            faults.append(f"mid_channels {self.mid_channels} isn't a multiple of blocks.groups {groups}")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class DynamicFilterHead(nn.Module):
    """See the module's docstring; parts are passed in."""

    def __init__(
        self,
        branch: nn.Module,
        inputs: nn.Module,
        controller: nn.Module,
        filters: DynamicFilters,
        *,
        mask_hw: HW,
        sampling_ratio: int,
    ) -> None:
        """Put the head together.

        Args:
            branch: features -> (N, B, H, W).
            inputs: features and boxes -> (R, M, g, g').
            controller: (R, M, g, g') -> (R, P), the weights of `filters`.
            filters: (R, B + 2, h, w) and their weights -> (R, 3, h, w).
            mask_hw: (h, w).
            sampling_ratio: samples along each side of a mask cell.
        """
        super().__init__()
        self.branch, self.inputs, self.controller, self.filters = branch, inputs, controller, filters
        self._mask_hw, self._sampling_ratio = mask_hw, sampling_ratio

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> HeadOutput:
        """Mask logits of every box.

        Args:
            features: layer -> (N, C, H, W) float32.
            boxes: (R, 5) of image number and xyxy in the unit frame.
        """
        made = self.controller(self.inputs(features, boxes))  # [R, P]
        cut = roi_align(self.branch(features), boxes, self._mask_hw, self._sampling_ratio)  # [R, B, h, w]
        seen = torch.cat([cut, box_coordinates(*self._mask_hw, cut)], dim=1)
        return HeadOutput(self.filters(seen, made), {})


class _Controller(nn.Module):
    """Weights from an ROI's map: (R, M, g, g') -> (R, P)."""

    def __init__(self, channels: int, made: int, style: Style) -> None:
        super().__init__()
        self.look = residual(channels, style)
        self.make = nn.Linear(channels, made)
        nn.init.normal_(self.make.weight, std=FILTER_STD)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.make(self.look(x).mean(dim=(2, 3)))
        return made


def build_dynamic_filter(params: DynamicFilterParams, specs: Sequence[FeatureSpec]) -> DynamicFilterHead:
    """The head for these layers, with fresh weights.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, style = params.mid_channels, params.blocks
    between = [params.filter_channels] * (params.filter_layers - 1)
    filters = DynamicFilters([params.branch_channels + COORDINATES, *between, len(CLASS_NAMES)])
    maps = [spec for spec in specs if spec.name != IMAGE]
    branch = nn.Sequential(
        ImageMap(maps, mid, style), conv(mid, mid, style), conv(mid, mid, style), nn.Conv2d(mid, params.branch_channels, 1)
    )
    head = DynamicFilterHead(
        branch,
        build_inputs(params.inputs, specs, mid, style),
        _Controller(mid, filters.parameters_per_roi, style),
        filters,
        mask_hw=params.mask_hw,
        sampling_ratio=params.inputs.sampling_ratio,
    )
    return head.apply(kaiming)
