"""Snapped boxes as plain values, for JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from roiseg.geometry import Floats, xyxy_to_xywh
from roiseg.snap.snapper import SnappedBox, edge_names
from roiseg.snapper.windows import EDGES
from roiseg.types import HW

PX_DIGITS, SHARE_DIGITS = 2, 4
"""Decimals of pixels, as COCO has them, and of confidences."""


def box_values(box_image: Floats) -> list[float]:
    """COCO's left, top, width, height of a box (4,) xyxy, image frame; from rounded corners, so that right and bottom are exact."""
    corners = np.asarray(box_image, dtype=np.float64).round(PX_DIGITS)
    return [round(float(item), PX_DIGITS) for item in xyxy_to_xywh(corners[None])[0]]


def snapped_values(box: SnappedBox) -> dict[str, Any]:
    """One box: `rough` as given, the answer, what the model proposed, confidences in the order of `EDGES`, and names of edges."""
    return {
        "rough": box_values(box.given_image),
        "clipped": box.clipped,
        "box": box_values(box.box_image),
        "proposed": [round(float(item), PX_DIGITS) for item in box.proposed_image],
        "confidences": confidence_values(box),
        "kept": edge_names(box.kept),
        "review": edge_names(box.review),
    }


def confidence_values(box: SnappedBox) -> list[float]:
    """(4,) in the order of `EDGES`."""
    return [round(float(item), SHARE_DIGITS) for item in box.confidences]


def document(image: str, image_hw: HW, boxes: Sequence[SnappedBox]) -> dict[str, Any]:
    """All boxes of an image.

    Args:
        image: its name.
        image_hw: (H, W).
        boxes: in order.
    """
    return {
        "image": image,
        "width": image_hw[1],
        "height": image_hw[0],
        "bbox": "left, top, width, height in pixels",
        "edges": list(EDGES),
        "proposed": "where the model sees the edges, in pixels; they may cross",
        "boxes": [snapped_values(box) for box in boxes],
    }
