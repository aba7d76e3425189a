"""ROI align: torchvision's kernel, which exports as ONNX's own operator `RoiAlign` (opset 16 on).

The pixel model is `aligned=True`: the value of cell k is at k + 0.5 in cells, so a continuous coordinate c reads cells
floor(c - 0.5) and the next. A box from 0.0 to 1.0 over a map of W = 4 cells into 2 bins with one sample each samples c = 1 and
c = 3, that is half of cells 0 and 1, and half of cells 2 and 3. ONNX calls this `half_pixel`; onnxruntime's values are
torchvision's, for boxes beyond the border and for no boxes too.

Symbols: N images, R boxes, C channels, (H, W) cells of the map, (h, w) bins.
"""

from torch import Tensor

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
    height, width = features.shape[2:]
    scale = boxes.new_tensor([1, width, height, width, height])
    return _kernel(features, boxes * scale, out_hw, sampling_ratio)


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
    return _kernel(part, boxes * scale - shift, out_hw, sampling_ratio)


def _kernel(features: Tensor, boxes: Tensor, out_hw: HW, sampling_ratio: int) -> Tensor:
    # torchvision brings torch's compiler along, seconds that whoever only checks the params needn't wait for.
    from torchvision.ops import roi_align as torchvision_roi_align

    pooled: Tensor = torchvision_roi_align(features, boxes, out_hw, 1.0, sampling_ratio, True)
    return pooled
