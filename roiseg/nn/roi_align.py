"""ROI align, once as torchvision's kernel and once in plain tensor algebra for export.

The pixel model is `aligned=True`: the value of cell k is at k + 0.5 in cells, so a continuous coordinate c reads cells
floor(c - 0.5) and the next. A box from 0.0 to 1.0 over a map of W = 4 cells into 2 bins with one sample each samples c = 1 and
c = 3, that is half of cells 0 and 1, and half of cells 2 and 3. `tests/unit/nn/test_roi_align.py` proves both ways equal.

Symbols: N images, R boxes, C channels, (H, W) cells of the map, (h, w) bins.
"""

import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from roiseg.types import HW, Window


def roi_align(features: Tensor, boxes: Tensor, out_hw: HW, sampling_ratio: int) -> Tensor:
    """Average of `sampling_ratio` x `sampling_ratio` bilinear samples in each bin of each box (Mask R-CNN, section 3).

    Args:
        features: (N, C, H, W) float.
        boxes: (R, 5) of image number and xyxy in the unit frame; a bin outside the map reads 0.
        out_hw: (h, w).
        sampling_ratio: samples along each side of a bin (>= 1).

    Returns:
        (R, C, h, w).
    """
    if torch.compiler.is_exporting():
        return dense_roi_align(features, boxes, out_hw, sampling_ratio)
    height, width = features.shape[2:]
    scale = boxes.new_tensor([1, width, height, width, height])
    pooled: Tensor = torchvision_roi_align(features, boxes * scale, out_hw, 1.0, sampling_ratio, True)
    return pooled


def roi_window(boxes: Tensor, map_hw: HW) -> Window:
    """The cells that `roi_align` reads for some boxes of one image.

    Args:
        boxes: (R, 4) xyxy, unit frame, R > 0; parts outside the map read no cell but its border's.
        map_hw: (H, W).
    """
    height, width = map_hw
    low = boxes[:, :2].min(dim=0).values * boxes.new_tensor([width, height]) - 0.5
    high = boxes[:, 2:].max(dim=0).values * boxes.new_tensor([width, height]) - 0.5
    # A cell more on each side: float32 may put a sample on the other side of a cell's centre.
    left, top = (int(value) - 1 for value in low.floor())
    right, bottom = (int(value) + 3 for value in high.floor())
    top, bottom = max(0, min(top, height - 1)), max(1, min(bottom, height))
    left, right = max(0, min(left, width - 1)), max(1, min(right, width))
    return Window(top, max(bottom, top + 1), left, max(right, left + 1))


def window_roi_align(part: Tensor, window: Window, map_hw: HW, boxes: Tensor, out_hw: HW, sampling_ratio: int) -> Tensor:
    """`roi_align` on a part of a map that holds all cells that the boxes need (`roi_window`).

    Args:
        part: (N, C, bottom - top, right - left) float.
        window: where the part lies in the map.
        map_hw: (H, W) of the whole map.
        boxes: (R, 5) of image number and xyxy in the unit frame of the whole map.
        out_hw: (h, w).
        sampling_ratio: samples along each side of a bin (>= 1).

    Returns:
        (R, C, h, w).
    """
    height, width = map_hw
    scale = boxes.new_tensor([1, width, height, width, height])
    shift = boxes.new_tensor([0, window.left, window.top, window.left, window.top])
    pooled: Tensor = torchvision_roi_align(part, boxes * scale - shift, out_hw, 1.0, sampling_ratio, True)
    return pooled


def dense_roi_align(features: Tensor, boxes: Tensor, out_hw: HW, sampling_ratio: int) -> Tensor:
    """The same as `roi_align` by two matrix products, for graphs that must not hold a custom operator.

    Bilinear sampling and averaging over a grid are both separable, so a bin's value is a row of weights over the map's rows,
    times the map, times weights over its columns. Every size but N and R is a Python int: no data-dependent branch appears.
    """
    height, width = features.shape[2:]
    picked = features.index_select(0, boxes[:, 0].long())  # [R, C, H, W]
    rows = _bin_weights(boxes[:, 2], boxes[:, 4], out_hw[0], int(height), sampling_ratio)  # [R, h, H]
    columns = _bin_weights(boxes[:, 1], boxes[:, 3], out_hw[1], int(width), sampling_ratio)  # [R, w, W]
    half = torch.matmul(rows[:, None], picked)  # [R, C, h, W]
    return torch.matmul(half, columns[:, None].transpose(2, 3))  # [R, C, h, w]


def _bin_weights(low: Tensor, high: Tensor, bins: int, cells: int, sampling_ratio: int) -> Tensor:
    """How much each cell of an axis adds to each bin.

    Args:
        low: (R,) start of the boxes on this axis, unit frame.
        high: (R,) end of them.
        bins: number of bins.
        cells: number of cells.
        sampling_ratio: samples in a bin.

    Returns:
        (R, bins, cells); rows sum to 1, less where a bin leaves the map.
    """
    samples = bins * sampling_ratio
    share = (torch.arange(samples, dtype=low.dtype, device=low.device) + 0.5) / samples
    at = (low[:, None] + (high - low)[:, None] * share) * cells - 0.5  # [R, samples]
    # Within a cell of the map the border's value holds; farther out there is nothing (torchvision's rule).
    inside = (at >= -1) & (at <= cells)
    at = at.clamp(0, cells - 1)
    centre = torch.arange(cells, dtype=low.dtype, device=low.device)
    weights = (1 - (at[:, :, None] - centre).abs()).clamp(min=0) * inside[:, :, None]  # [R, samples, cells]
    return weights.reshape(-1, bins, sampling_ratio, cells).mean(dim=2)
