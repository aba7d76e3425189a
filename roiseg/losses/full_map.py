"""The whole map that a head decodes for an ROI, against everybody in the image (spec 7.4 b).

Symbols: R ROIs, (H, W) cells of the map.
"""

from pydantic import Field
from torch import Tensor

from roiseg.losses.region import cross_entropy_map, weighted_mean
from roiseg.params import Section

FULL_MAP = "full_map"
"""Output of a head that has one: (R, 3, H, W) logits over the whole network input."""


class FullMapParams(Section):
    """Section `loss.full_map`."""

    weight: float = Field(gt=0)
    outside: float = Field(ge=0, le=1)


def full_map_loss(logits: Tensor, frames: Tensor | None, class_weights: Tensor, outside: float) -> Tensor:
    """Weighted cross entropy of every cell, 1 within the ROI and `outside` beyond it, so that no class leaks out of the ROI.

    Beyond the ROI the truth is what is there: other people are class 2 wherever they stand, and the target is class 1 as far as it
    reaches out. Background alone, the seed's other proposal, would teach the same look two classes, one on either side of the box.

    Args:
        logits: (R, 3, H, W) float.
        frames: (2, R, H, W) uint8: labels; 1 within the ROI, else 0.
        class_weights: (3,) float.
        outside: 0 leaves out what lies beyond the ROI.

    Returns:
        Scalar; 0 for no ROIs.

    Raises:
        ValueError: no frames.
    """
    if frames is None:
        raise ValueError("loss.full_map is on and the targets hold no frames, expected those of an RoiDataset with frame_hw")
    labels, inside = frames[0].long(), frames[1].to(logits.dtype)
    return weighted_mean(cross_entropy_map(logits, labels), labels, class_weights, inside + outside * (1 - inside))
