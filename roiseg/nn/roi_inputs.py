"""From the features of whole images to one map for each ROI.

Symbols: N images, R ROIs, C channels of a layer, M `mid_channels`, P channels of the image's encoder, (h, w) cells of a layer's ROI
grid, (g, g') of the common one.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from roiseg.nn.roi_align import roi_align
from roiseg.types import HW, IMAGE


class RgbEncoder(nn.Module):
    """Edges and textures of the image itself: (N, 3, H, W) in [0, 1] -> (N, P, about H / 2, about W / 2)."""

    def __init__(self, channels: int) -> None:
        """Build the net.

        Args:
            channels: P, even; the first two convolutions have half of it.
        """
        super().__init__()
        half = channels // 2
        steps = ((3, half, 1), (half, half, 1), (half, channels, 2), (channels, channels, 1))
        self.steps = nn.Sequential(
            *(
                part
                for before, after, stride in steps
                for part in (nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.ReLU())
            )
        )

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, P, about H / 2, about W / 2)."""
        encoded: Tensor = self.steps(image)
        return encoded


class LayerReader(nn.Module):
    """One layer, aligned to the ROIs and reduced; of layers with the image beside them, both."""

    def __init__(self, reduce: nn.Module, project: nn.Module | None, *, roi_hw: HW, sampling_ratio: int) -> None:
        """Put the reader together.

        Args:
            reduce: (R, C, h, w), or (R, C + P, h, w) with the image, -> (R, M, h, w).
            project: (R, P, h, w) -> the same, for the image; or None, where the layer goes without.
            roi_hw: (h, w).
            sampling_ratio: samples along each side of a bin.
        """
        super().__init__()
        self.reduce, self.project = reduce, project
        self._roi_hw, self._sampling_ratio = roi_hw, sampling_ratio

    def forward(self, layer: Tensor, boxes: Tensor, pixels: Tensor | None) -> Tensor:
        """(N, C, H, W) and (R, 5), and perhaps the encoded image (N, P, H', W') -> (R, M, h, w)."""
        x = roi_align(layer, boxes, self._roi_hw, self._sampling_ratio)
        if self.project is not None and pixels is not None:
            seen = self.project(roi_align(pixels, boxes, self._roi_hw, self._sampling_ratio))
            x = torch.cat([x, seen], dim=1)
        reduced: Tensor = self.reduce(x)
        return reduced


class RoiInputs(nn.Module):
    """Reads every layer, brings all to one grid and puts them together."""

    def __init__(
        self,
        readers: nn.ModuleDict,
        grids: Sequence[nn.Module],
        fuse: nn.Module,
        *,
        rgb: nn.Module | None,
        top_down: nn.Module | None,
        smooth: nn.Module | None,
    ) -> None:
        """Put the inputs together.

        Args:
            readers: layer -> `LayerReader`, in order.
            grids: for each layer (R, M, h, w) -> (R, M, g, g').
            fuse: list of (R, M, g, g') -> one of them.
            rgb: encoder of the layer `image`.
            top_down: list of (R, M, h, w) -> list of the same shapes.
            smooth: (R, M, g, g') -> the same.
        """
        super().__init__()
        self.readers, self.grids, self.fuse = readers, nn.ModuleList(grids), fuse
        self.rgb, self.top_down, self.smooth = rgb, top_down, smooth

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> Tensor:
        """One map of every box.

        Args:
            features: layer -> (N, C, H, W) float32.
            boxes: (R, 5) of image number and xyxy in the unit frame.

        Returns:
            (R, M, g, g').
        """
        pixels = None if self.rgb is None else self.rgb(features[IMAGE])
        parts = [reader(features[name], boxes, pixels) for name, reader in self.readers.items()]
        if self.top_down is not None:
            parts = self.top_down(parts)
        x: Tensor = self.fuse([grid(part) for grid, part in zip(self.grids, parts, strict=True)])
        if self.smooth is not None:
            x = self.smooth(x)
        return x
