"""From the pixels of an image to the network input, by the rule that a store or an exported model was made with."""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from roiseg.geometry import Resize, ResizeMode
from roiseg.types import HW

LETTERBOX_GREY = 114
"""Grey level (0-255) beside a letterboxed image, as in YOLO's own training."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class InputRule:
    """What turns an image into the network input.

    Attributes:
        hw: size of the network input in pixels.
        resize: how the image fills it.
        color: order of the colour channels.
        pixel_max: value of a white pixel.
    """

    hw: HW
    resize: ResizeMode
    color: Literal["rgb", "bgr"]
    pixel_max: float

    def plain(self) -> dict[str, Any]:
        """Plain values for a fingerprint or metadata; `from_plain` reads them back."""
        return {"hw": list(self.hw), "resize": self.resize, "color": self.color, "pixel_max": self.pixel_max}

    @classmethod
    def from_plain(cls, value: dict[str, Any]) -> "InputRule":
        """Read what `plain` gave."""
        height, width = value["hw"]
        return cls((height, width), value["resize"], value["color"], float(value["pixel_max"]))

    def resizing(self, image_hw: HW) -> Resize:
        """The way of an image of this size to the network input and back."""
        return Resize(image_hw, self.hw, self.resize)


def network_image(pixels: Pixels, rule: InputRule) -> Pixels:
    """An image at the size and in the colour order of the network input.

    Args:
        pixels: (H, W, 3) uint8, BGR.
        rule: size, resize rule and colour order of the input.

    Returns:
        (3, H, W) uint8.
    """
    resize = rule.resizing((pixels.shape[0], pixels.shape[1]))
    height, width = resize.content_hw
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    if resize.content_hw != rule.hw:
        top, left = resize.offset_hw
        canvas = np.full((*rule.hw, 3), LETTERBOX_GREY, dtype=np.uint8)
        canvas[top : top + height, left : left + width] = small
        small = canvas
    if rule.color == "rgb":
        small = small[:, :, ::-1]
    return np.ascontiguousarray(small.transpose(2, 0, 1), dtype=np.uint8)


def as_input(images: Pixels, rule: InputRule) -> NDArray[np.float32]:
    """Network images as the network takes them.

    Args:
        images: (..., 3, H, W) uint8, see `network_image`.
        rule: range of the input.

    Returns:
        The same shape, float32 in [0, pixel_max], contiguous.
    """
    values = np.ascontiguousarray(images, dtype=np.float32)
    return values if rule.pixel_max == 255 else np.multiply(values, np.float32(rule.pixel_max / 255), out=values)


def to_input(pixels: Pixels, rule: InputRule) -> NDArray[np.float32]:
    """The network input (3, H, W) of one decoded image (H, W, 3)."""
    return as_input(network_image(pixels, rule), rule)
