"""Maps of whole images, for heads that look beyond the ROI.

Symbols: N images, R ROIs, C channels of a layer, M `mid_channels`, (H, W) cells of the first layer.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from roiseg.nn.blocks import conv, resize
from roiseg.nn.fusion import total
from roiseg.nn.style import Style
from roiseg.types import FeatureSpec

PositionMap = Literal["inside", "offset", "size", "relative"]

POSITION_CHANNELS: Mapping[PositionMap, int] = {"inside": 1, "offset": 2, "size": 2, "relative": 2}
"""What can be painted for an ROI, and how many channels it takes."""


class ImageMap(nn.Module):
    """Every layer reduced, resized to the first one's grid, and summed: layers of (N, C, h, w) -> (N, M, H, W)."""

    def __init__(self, specs: Sequence[FeatureSpec], mid_channels: int, style: Style) -> None:
        """Build the block.

        Args:
            specs: the layers; the first one's grid is kept.
            mid_channels: M.
            style: norms and activations.
        """
        super().__init__()
        self.reduce = nn.ModuleDict({spec.name: conv(spec.channels, mid_channels, style, kernel=1) for spec in specs})

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Layer -> (N, C, h, w) to one map (N, M, H, W)."""
        reduced = [layer(features[name]) for name, layer in self.reduce.items()]
        size = (reduced[0].shape[2], reduced[0].shape[3])
        return total([resize(part, size) for part in reduced])


def position_maps(boxes: Tensor, height: int, width: int, maps: Sequence[PositionMap]) -> Tensor:
    """Where each ROI lies, painted over the whole map; (x, y) is a cell's centre, (cx, cy) a box's, all in the unit frame.

    Args:
        boxes: (R, 5) of image number and xyxy in the unit frame.
        height: H.
        width: W.
        maps: in order, `inside`: 1 where the cell's centre is in the box, else 0; `offset`: x - cx and y - cy; `size`: width and
            height of the box, everywhere; `relative`: (x - cx) / width and (y - cy) / height, cut at -2 and 2.

    Returns:
        (R, K, H, W), K the sum of their `POSITION_CHANNELS`.
    """
    cells = [(torch.arange(count, dtype=boxes.dtype, device=boxes.device) + 0.5) / count for count in (height, width)]
    y, x = cells[0].view(1, 1, height, 1), cells[1].view(1, 1, 1, width)
    low, high = boxes[:, 1:3], boxes[:, 3:5]
    centre, size = ((low + high) / 2)[:, :, None, None], (high - low).clamp(min=1e-6)[:, :, None, None]  # [R, 2, 1, 1]
    field = torch.cat([x.expand(1, 1, height, width), y.expand(1, 1, height, width)], dim=1)  # [1, 2, H, W]
    offset = field - centre  # [R, 2, H, W]
    relative = offset / size
    painted = {
        "inside": (relative.abs().amax(dim=1, keepdim=True) <= 0.5).to(boxes.dtype),
        "offset": offset,
        "size": torch.zeros_like(offset) + size,
        "relative": relative.clamp(-2, 2),
    }
    return torch.cat([painted[name] for name in maps], dim=1)
