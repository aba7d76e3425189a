"""Frames, boxes and their conversions.

Three frames, named in every variable that isn't in the unit frame:

* *image*: pixels of the original image. Pixel i covers [i, i + 1), its centre is i + 0.5.
* *network*: pixels of the backbone's input, the same pixel model.
* *unit*: [0, 1] of the network input. Boxes in the package are float xyxy in this frame.

Sizes are (height, width) and named `_hw`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from roiseg.errors import BoxError
from roiseg.types import HW

Floats = NDArray[np.float64]

ResizeMode = Literal["stretch", "letterbox"]


@dataclass(frozen=True)
class Resize:
    """How an image of one size fills the network input.

    Attributes:
        image_hw: size of the image in pixels.
        network_hw: size of the network input in pixels.
        mode: `stretch` scales both axes on their own; `letterbox` keeps the aspect and centres the image.
    """

    image_hw: HW
    network_hw: HW
    mode: ResizeMode

    def __post_init__(self) -> None:
        if min(*self.image_hw, *self.network_hw) < 1:
            raise ValueError(f"Resize: sizes {self.image_hw} and {self.network_hw}, expected at least 1 pixel each way")

    @property
    def content_hw(self) -> HW:
        """Size in network pixels of the part that the image fills."""
        if self.mode == "stretch":
            return self.network_hw
        scale = min(self.network_hw[0] / self.image_hw[0], self.network_hw[1] / self.image_hw[1])
        return max(round(self.image_hw[0] * scale), 1), max(round(self.image_hw[1] * scale), 1)

    @property
    def offset_hw(self) -> HW:
        """Rows above and columns left of the image, in network pixels."""
        content = self.content_hw
        return (self.network_hw[0] - content[0]) // 2, (self.network_hw[1] - content[1]) // 2

    def _affine(self) -> tuple[Floats, Floats]:
        """Scale and shift of (x, y) from the image frame to the unit frame."""
        network = np.array(self.network_hw[::-1], dtype=np.float64)
        scale = np.array(self.content_hw[::-1]) / np.array(self.image_hw[::-1]) / network
        return scale, np.array(self.offset_hw[::-1]) / network

    def points_to_unit(self, points_image: Floats) -> Floats:
        """Points (..., 2) of x, y from the image frame to the unit frame."""
        scale, shift = self._affine()
        return points_image * scale + shift

    def points_to_image(self, points: Floats) -> Floats:
        """Points (..., 2) of x, y from the unit frame to the image frame."""
        scale, shift = self._affine()
        return (points - shift) / scale

    def boxes_to_unit(self, boxes_image: Floats) -> Floats:
        """Boxes (N, 4) xyxy from the image frame to the unit frame."""
        return self.points_to_unit(boxes_image.reshape(-1, 2, 2)).reshape(-1, 4)

    def boxes_to_image(self, boxes: Floats) -> Floats:
        """Boxes (N, 4) xyxy from the unit frame to the image frame."""
        return self.points_to_image(boxes.reshape(-1, 2, 2)).reshape(-1, 4)


def xywh_to_xyxy(boxes: Floats) -> Floats:
    """Boxes (N, 4) from COCO's left, top, width, height to xyxy; any frame."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes: Floats) -> Floats:
    """Boxes (N, 4) from xyxy to COCO's left, top, width, height; any frame."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def cxcywh_to_xyxy(boxes: Floats) -> Floats:
    """Boxes (N, 4) from centre x, centre y, width, height to xyxy; any frame."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def xyxy_to_cxcywh(boxes: Floats) -> Floats:
    """Boxes (N, 4) from xyxy to centre x, centre y, width, height; any frame."""
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def clip_boxes(boxes: Floats, limit_hw: tuple[float, float] = (1.0, 1.0)) -> Floats:
    """Boxes (N, 4) xyxy cut to [0, width] x [0, height]; the default limit is the unit frame's."""
    limit = np.array([limit_hw[1], limit_hw[0]] * 2, dtype=np.float64)
    return np.clip(boxes, 0.0, limit)


def pad_boxes(boxes: Floats, ratio: float) -> Floats:
    """Boxes (N, 4) xyxy grown on each side by `ratio` of their width or height; any frame, not clipped."""
    margin = (boxes[:, 2:] - boxes[:, :2]) * ratio
    return np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)


def roi_boxes(boxes: Floats, padding: float) -> Floats:
    """The regions of interest of person boxes (N, 4), unit frame: padded, then clipped to the network input."""
    return clip_boxes(pad_boxes(boxes, padding))


def jitter_boxes(boxes: Floats, centre: float, scale: float, rng: np.random.Generator, *, shared: bool = False) -> Floats:
    """Boxes as a careless annotator would have drawn them.

    The centre moves by U(-centre, centre) of the box's own width and height, then width and height are multiplied by
    independent U(1 - scale, 1 + scale) ("Find and Snap", section 3.4.2), and the box is clipped to [0, 1].

    Args:
        boxes: (N, 4) xyxy, unit or share frame.
        centre: largest shift, as a share of the width or height (>= 0).
        scale: largest change of size, as a share (0 <= scale < 1).
        rng: source of the draws.
        shared: whether width and height are multiplied by the same number.

    Returns:
        (N, 4) xyxy of the same frame; a box that would leave the frame altogether is returned as it came.
    """
    boxes_cxcywh = xyxy_to_cxcywh(boxes)
    size = boxes_cxcywh[:, 2:]
    moved = boxes_cxcywh[:, :2] + rng.uniform(-centre, centre, size.shape) * size
    scaled = size * rng.uniform(1 - scale, 1 + scale, (len(size), 1) if shared else size.shape)
    jittered = clip_boxes(cxcywh_to_xyxy(np.concatenate([moved, scaled], axis=1)))
    alive = np.all(jittered[:, 2:] > jittered[:, :2], axis=1)
    return np.where(alive[:, None], jittered, boxes)


def crop_boxes(boxes: Floats, smallest: float, rng: np.random.Generator) -> Floats:
    """Random parts of boxes: U(smallest, 1) of the width and of the height, at a uniform place inside.

    Args:
        boxes: (N, 4) xyxy, any frame.
        smallest: smallest share of a side that is kept (0 < smallest <= 1).
        rng: source of the draws.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    kept = rng.uniform(smallest, 1, size.shape)
    low = boxes[:, :2] + rng.random(size.shape) * (1 - kept) * size
    return np.concatenate([low, np.minimum(low + kept * size, boxes[:, 2:])], axis=1)


def cells_inside(boxes: Floats, out_hw: HW) -> NDArray[np.bool_]:
    """Which cells of a grid over the whole unit frame have their centre in each box, its sides included.

    Args:
        boxes: (N, 4) xyxy, unit frame.
        out_hw: (H, W).

    Returns:
        (N, H, W).
    """
    y, x = ((np.arange(count) + 0.5) / count for count in out_hw)
    columns = (x >= boxes[:, :1]) & (x <= boxes[:, 2:3])
    rows = (y >= boxes[:, 1:2]) & (y <= boxes[:, 3:])
    return np.asarray(rows[:, :, None] & columns[:, None, :])


def box_area(boxes: Floats) -> Floats:
    """Areas (...) of boxes (..., 4) xyxy in squared units of their frame."""
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return np.asarray(size[..., 0] * size[..., 1])


def box_iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4) xyxy of one frame; 0 where both are empty."""
    return paired_box_iou(first[:, None], second[None])


def paired_box_iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union (...) of boxes (..., 4) and (..., 4) xyxy of one frame, one with one; 0 where both are empty."""
    size = np.maximum(np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]), 0)
    shared = size[..., 0] * size[..., 1]
    union = box_area(first) + box_area(second) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def check_boxes(boxes_image: Floats, image_hw: HW, what: str) -> None:
    """Refuse boxes that no mask could come from.

    Args:
        boxes_image: (N, 4) xyxy, image frame.
        image_hw: size of the image.
        what: what the boxes belong to, for the message.

    Raises:
        BoxError: a box isn't finite, has no area, or lies outside the image.
    """
    height, width = image_hw
    for number, (x0, y0, x1, y1) in enumerate(boxes_image.tolist()):
        text = f"{what}: box {number} is ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if not np.isfinite([x0, y0, x1, y1]).all():
            raise BoxError(f"{text}, expected finite numbers")
        if x1 <= x0 or y1 <= y0:
            raise BoxError(f"{text}, expected x0 < x1 and y0 < y1; is it in another format (xyxy or cxcywh)?")
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise BoxError(f"{text}, which lies outside the image of {width}x{height} pixels; expected pixels of that image")
