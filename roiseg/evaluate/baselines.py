"""What needs no learning, to stand beside a head in each report: the whole box, an ellipse in it, and class 2 never predicted.

Symbols: R ROIs, (h, w) cells of the mask.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roiseg.classes import TARGET, Labels
from roiseg.geometry import Floats
from roiseg.types import HW

NEVER_CLASS_2, WHOLE_BOX, ELLIPSE = "never_class_2", "whole_box", "ellipse"
"""Prefixes of the figures."""

BESIDE = ("miou_fg_roi", "iou_target_roi", "miou_fg_pooled", "oracle_box_ap", "detector_box_ap")
"""Figures of a baseline; `miou_fg_pooled` shows that it isn't to be trusted."""


def beside(name: str, figures: Mapping[str, float]) -> dict[str, float]:
    """The few figures of a baseline that are reported, under its name.

    Args:
        name: of the baseline, a prefix such as `NEVER_CLASS_2`.
        figures: all that are known of it.
    """
    return {f"{name}_{key}": figures[key] for key in BESIDE if key in figures}


def _from_box(rois: Floats, boxes: Floats, mask_hw: HW) -> tuple[Floats, Floats]:
    """Rows (R, h) and columns (R, w) of cell centres as shares of the person's box: -1 and 1 are its sides, 0 its centre."""
    found = []
    for axis, count in ((1, mask_hw[0]), (0, mask_hw[1])):
        low, high, start, end = rois[:, axis], rois[:, axis + 2], boxes[:, axis], boxes[:, axis + 2]
        centres = low[:, None] + (np.arange(count) + 0.5) / count * (high - low)[:, None]
        found.append((2 * centres - (start + end)[:, None]) / (end - start)[:, None])
    return found[0], found[1]


def whole_box(rois: Floats, boxes: Floats, mask_hw: HW) -> Labels:
    """Target wherever the centre of a cell lies in the person's box, its sides included; background elsewhere.

    Args:
        rois: (R, 4) xyxy, which `dataset.roi_padding` may have made larger than the boxes; any frame.
        boxes: (R, 4) xyxy of the people, of positive area; the same frame.
        mask_hw: (h, w).

    Returns:
        (R, h, w).
    """
    rows, columns = _from_box(rois, boxes, mask_hw)
    return _target((np.abs(rows) <= 1)[:, :, None] & (np.abs(columns) <= 1)[:, None, :])


def ellipse(rois: Floats, boxes: Floats, mask_hw: HW) -> Labels:
    """Target wherever the centre of a cell lies in the ellipse inscribed in the person's box; see `whole_box`."""
    rows, columns = _from_box(rois, boxes, mask_hw)
    return _target((rows**2)[:, :, None] + (columns**2)[:, None, :] <= 1)


def _target(inside: NDArray[np.bool_]) -> Labels:
    return inside.astype(np.uint8) * np.uint8(TARGET)


def without_two(logits: Tensor) -> Tensor:
    """Probabilities (R, 3, h, w) of logits (R, 3, h, w) for a head that knows background and target only."""
    two = logits[:, :2].softmax(dim=1)
    return torch.cat([two, torch.zeros_like(two[:, :1])], dim=1)
