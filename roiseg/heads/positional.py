"""`positional`: the whole map with the ROI painted onto it, through a U-shaped net, and cut out at the end (plan B of the seed).

Nothing of the scene is lost on the way, at the cost of a whole map for each ROI. What the layers say is computed once for each
image: a 1x1 convolution of layers and painted channels together is the sum of one of each.

Symbols: N images, R ROIs, M `mid_channels`, K painted channels, (H, W) cells of the first layer, (h, w) cells of the mask.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from roiseg.classes import CLASS_NAMES
from roiseg.heads.base import Cells, HeadParams
from roiseg.nn.image_maps import POSITION_CHANNELS, ImageMap, PositionMap, position_maps
from roiseg.nn.outputs import HeadOutput
from roiseg.nn.roi_align import roi_align
from roiseg.nn.style import Style, kaiming
from roiseg.nn.unets import ShallowUNet
from roiseg.types import HW, FeatureSpec


class PositionalParams(HeadParams):
    """Section `model` for `head: positional`; the first of `layers` gives the grid of the map.

    Attributes:
        mid_channels: M.
        base_channels: of the U-shaped net, on its finest grid.
        maps: what is painted of the ROI: `inside`, `offset`, `size`, `relative`, each once.
        skip_gates: whether attention gates weigh the skips.
        sampling_ratio: samples along each side of a mask cell when the ROI is cut out.
        full_map: whether training sees the whole map too, as the output `full_map` (R, 3, H, W).
        blocks: norms and activations.
    """

    head: Literal["positional"]
    mask_hw: tuple[Cells, Cells] = (56, 56)
    mid_channels: int = Field(default=64, ge=1)
    base_channels: int = Field(default=32, ge=2)
    maps: tuple[PositionMap, ...] = Field(default=("inside", "offset", "size", "relative"), min_length=1)
    skip_gates: bool = False
    sampling_ratio: int = Field(default=2, ge=1, le=8)
    full_map: bool = False
    blocks: Style = Style()

    @property
    def aux_names(self) -> frozenset[str]:
        """See `HeadParams`."""
        return frozenset({"full_map"}) if self.full_map else frozenset()

    @model_validator(mode="after")
    def _parts_fit(self) -> "PositionalParams":
        if len(set(self.maps)) < len(self.maps):
            raise ValueError(f"maps are {', '.join(self.maps)}, expected each once")
        groups = self.blocks.groups or 1
        for name in ("mid_channels", "base_channels"):
            if getattr(self, name) % groups:
                raise ValueError(f"{name} {getattr(self, name)} isn't a multiple of blocks.groups {groups}")
        return self


class PositionalHead(nn.Module):
    """See the module's docstring; parts are passed in."""

    def __init__(
        self,
        image_map: nn.Module,
        paint: nn.Module,
        decode: nn.Module,
        *,
        maps: Sequence[PositionMap],
        mask_hw: HW,
        sampling_ratio: int,
        full_map: bool,
    ) -> None:
        """Put the head together.

        Args:
            image_map: features -> (N, M, H, W).
            paint: (R, K, H, W) -> (R, M, H, W), added to the map of the ROI's image.
            decode: (R, M, H, W) -> (R, 3, H, W).
            maps: what is painted.
            mask_hw: (h, w).
            sampling_ratio: samples along each side of a mask cell.
            full_map: whether training sees the whole map.
        """
        super().__init__()
        self.image_map, self.paint, self.decode = image_map, paint, decode
        self._maps, self._mask_hw, self._sampling_ratio = tuple(maps), mask_hw, sampling_ratio
        self._full_map = full_map

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> HeadOutput:
        """Mask logits of every box; in training, where it is on, the whole map that they are cut out of.

        Args:
            features: layer -> (N, C, H, W) float32.
            boxes: (R, 5) of image number and xyxy in the unit frame.
        """
        seen = self.image_map(features)  # [N, M, H, W]
        painted = self.paint(position_maps(boxes, seen.shape[2], seen.shape[3], self._maps))
        whole = self.decode((seen.index_select(0, boxes[:, 0].long()) + painted).relu())  # [R, 3, H, W]
        number = torch.arange(boxes.shape[0], dtype=boxes.dtype, device=boxes.device)
        own = torch.cat([number[:, None], boxes[:, 1:]], dim=1)
        aux = {"full_map": whole} if self._full_map and self.training else {}
        return HeadOutput(roi_align(whole, own, self._mask_hw, self._sampling_ratio), aux)


def build_positional(params: PositionalParams, specs: Sequence[FeatureSpec]) -> PositionalHead:
    """The head for these layers, with fresh weights.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    mid, style = params.mid_channels, params.blocks
    head = PositionalHead(
        ImageMap(specs, mid, style),
        nn.Conv2d(sum(POSITION_CHANNELS[name] for name in params.maps), mid, 1),
        ShallowUNet(mid, params.base_channels, classes=len(CLASS_NAMES), style=style, gated=params.skip_gates),
        maps=params.maps,
        mask_hw=params.mask_hw,
        sampling_ratio=params.sampling_ratio,
        full_map=params.full_map,
    )
    return head.apply(kaiming)
