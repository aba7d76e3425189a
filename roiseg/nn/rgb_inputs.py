"""From the image, and a teacher's map of people, to one map for each ROI.

Symbols: N images, R ROIs, M `mid_channels`, (g, g') the ROI grid, (h, w) a further one.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from roiseg.nn.roi_align import roi_align
from roiseg.types import HW, IMAGE


class RgbReader(nn.Module):
    """The image, aligned to the ROIs on one grid, extracted and brought to the common grid."""

    def __init__(self, extract: nn.Module, grid: nn.Module, *, roi_hw: HW, sampling_ratio: int) -> None:
        """Put the reader together.

        Args:
            extract: (R, 3, h, w) -> (R, M, h, w).
            grid: (R, M, h, w) -> (R, M, g, g').
            roi_hw: (h, w).
            sampling_ratio: samples along each side of a bin.
        """
        super().__init__()
        self.extract, self.grid = extract, grid
        self._roi_hw, self._sampling_ratio = roi_hw, sampling_ratio

    def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] and (R, 5) -> (R, M, g, g')."""
        found: Tensor = self.grid(self.extract(roi_align(image, boxes, self._roi_hw, self._sampling_ratio)))
        return found


class RgbInputs(nn.Module):
    """What `RoiInputs` is for the detector's layers, for pixels."""

    def __init__(self, readers: Sequence[nn.Module], fuse: nn.Module, *, people: nn.Module | None, join: nn.Module | None) -> None:
        """Put the inputs together.

        Args:
            readers: (N, 3, H, W) and (R, 5) -> (R, M, g, g').
            fuse: list of (R, M, g, g') -> one of them.
            people: features and boxes -> (R, 2, g, g'), or None without a teacher.
            join: (R, M + 2, g, g') of both -> (R, M, g, g'); with `people`.
        """
        super().__init__()
        self.readers, self.fuse = nn.ModuleList(readers), fuse
        self.people, self.join = people, join

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> Tensor:
        """One map of every box.

        Args:
            features: `image` (N, 3, H, W) in [0, 1], and with a teacher `teacher` (N, 1, H', W') logits.
            boxes: (R, 5) of image number and xyxy in the unit frame.

        Returns:
            (R, M, g, g').
        """
        x: Tensor = self.fuse([reader(features[IMAGE], boxes) for reader in self.readers])
        if self.people is not None and self.join is not None:
            x = self.join(torch.cat([x, self.people(features, boxes)], dim=1))
        return x
