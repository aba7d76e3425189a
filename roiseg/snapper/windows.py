"""Windows: the part of an image that a rough box is snapped in. NumPy alone, for use beside an exported file.

Two more frames beside those of `roiseg.geometry`:

* *share*: [0, 1] of the image's own width and height. Rough boxes, true boxes and windows live here, so that clipping to [0, 1] is
  clipping to the image, whatever the resize rule.
* *window*: [0, 1] of a window's width and height; what a model answers, in the order of `EDGES`.
"""

import numpy as np

from roiseg.geometry import Floats, Resize, clip_boxes, cxcywh_to_xyxy, xyxy_to_cxcywh
from roiseg.types import HW

EDGES = ("left", "top", "right", "bottom")
"""Order of edges everywhere: that of xyxy."""


def to_share(boxes_image: Floats, image_hw: HW) -> Floats:
    """Boxes (R, 4) xyxy from the image frame to shares of the image."""
    return boxes_image / np.array([image_hw[1], image_hw[0]] * 2, dtype=np.float64)


def to_image(boxes_share: Floats, image_hw: HW) -> Floats:
    """Boxes (R, 4) xyxy from shares of the image to the image frame."""
    return boxes_share * np.array([image_hw[1], image_hw[0]] * 2, dtype=np.float64)


def windows_around(rough: Floats, buffer: Floats | float) -> Floats:
    """The windows of rough boxes: scaled about their centre, then cut to the image (spec 21.3).

    Args:
        rough: (R, 4) xyxy, share frame, already inside the image.
        buffer: width and height of a window over those of its box (>= 1); a number, or (R,).

    Returns:
        (R, 4) xyxy, share frame.
    """
    boxes = xyxy_to_cxcywh(rough)
    boxes[:, 2:] *= np.broadcast_to(np.asarray(buffer, dtype=np.float64), (len(rough),))[:, None]
    return clip_boxes(cxcywh_to_xyxy(boxes))


def into_windows(boxes: Floats, windows: Floats) -> Floats:
    """Boxes (R, 4) xyxy as seen in windows (R, 4) of the same frame: window frame, edges beyond a window's border lie on it."""
    low, size = windows[:, :2], windows[:, 2:] - windows[:, :2]
    seen = (boxes.reshape(-1, 2, 2) - low[:, None]) / size[:, None]
    return np.asarray(np.clip(seen, 0.0, 1.0).reshape(-1, 4))


def out_of_windows(edges: Floats, windows: Floats) -> Floats:
    """Edges (R, 4) in the window frame as boxes (R, 4) xyxy of the frame that the windows (R, 4) are in."""
    low, size = windows[:, :2], windows[:, 2:] - windows[:, :2]
    return np.asarray((edges.reshape(-1, 2, 2) * size[:, None] + low[:, None]).reshape(-1, 4))


def share_to_unit(boxes: Floats, resize: Resize) -> Floats:
    """Boxes (R, 4) xyxy from shares of an image to the unit frame of the network input."""
    return resize.boxes_to_unit(to_image(boxes, resize.image_hw))
