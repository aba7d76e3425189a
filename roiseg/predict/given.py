"""Images and boxes as a caller gives them: checked, and in the frame that prediction works in.

Symbols: R boxes, (H, W) size of the image.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roiseg.errors import BoxError, PixelsError
from roiseg.geometry import Floats, check_boxes, cxcywh_to_xyxy
from roiseg.network_input import Pixels
from roiseg.types import HW

BoxFormat = Literal["xyxy", "cxcywh"]
BoxFrame = Literal["pixels", "unit"]

SMALL_PX = 4
"""An image with no side longer than this may have boxes that are pixels and yet look like shares."""

LARGEST_SHARE = 2.0
"""No share of a side is larger: such a box would end a whole image away from its image."""


def check_pixels(pixels: object, what: str) -> Pixels:
    """See that an image is as OpenCV reads them.

    Args:
        pixels: expected (H, W, 3) uint8, BGR.
        what: what to call it in the message.

    Returns:
        The same, contiguous.

    Raises:
        PixelsError: it isn't; says how to make it so.
    """
    wanted = f"{what}: expected a numpy array (H, W, 3) of uint8 in the order blue, green, red, as cv2.imread gives"
    if pixels is None:
        raise PixelsError(f"{wanted}, got None, which cv2.imread gives for a file that it can't read; check the path")
    if not isinstance(pixels, np.ndarray):
        kind = type(pixels).__name__
        raise PixelsError(f"{wanted}, got {kind}; read a file by cv2.imread, turn a PIL image by np.asarray(image)[:, :, ::-1]")
    got = f"{wanted}, got {list(pixels.shape)} of {pixels.dtype}"
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1):
        raise PixelsError(f"{got}: a grey image; turn it by cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)")
    if pixels.ndim == 4:
        raise PixelsError(f"{got}: several images; give them one by one, or as a list to `encode`")
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        raise PixelsError(f"{got}: an image with transparency; turn it by cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)")
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] != 3:
        raise PixelsError(f"{got}: channels first; turn it by image.transpose(1, 2, 0)")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise PixelsError(f"{got}; give an image with three channels and at least one pixel")
    if pixels.dtype != np.uint8:
        remedy = "(image * 255).round().astype(np.uint8) if white is 1, image.astype(np.uint8) if it is 255"
        raise PixelsError(f"{got}; turn it by {remedy}")
    return np.ascontiguousarray(pixels)


def pixel_boxes(boxes: ArrayLike, image_hw: HW, box_format: BoxFormat, frame: BoxFrame, what: str) -> Floats:
    """Boxes of a caller as xyxy in the image frame.

    Args:
        boxes: (R, 4) of four numbers as `box_format` says.
        image_hw: (H, W).
        box_format: corners, or centre and size.
        frame: `pixels` of the image, or `unit`: shares of its width and height.
        what: what to call the image in the message.

    Returns:
        (R, 4) xyxy, image frame, not clipped.

    Raises:
        BoxError: another shape, no numbers, values of another frame, or a box that no mask could come from.
    """
    values = _numbers(boxes, what)
    if box_format not in ("xyxy", "cxcywh"):
        raise BoxError(f"{what}: box_format is {box_format!r}, expected 'xyxy' (two corners) or 'cxcywh' (centre and size)")
    if frame not in ("pixels", "unit"):
        raise BoxError(f"{what}: frame is {frame!r}, expected 'pixels' of the image, or 'unit' (shares of its width and height)")
    _check_range(values, image_hw, frame, what)
    corners = cxcywh_to_xyxy(values) if box_format == "cxcywh" else values
    if frame == "unit":
        corners = corners * np.array([image_hw[1], image_hw[0]] * 2, dtype=np.float64)
    check_boxes(corners, image_hw, what)
    return corners


def _numbers(boxes: ArrayLike, what: str) -> Floats:
    try:
        values: NDArray[np.float64] = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BoxError(f"{what}: boxes aren't numbers ({error}), expected an array (R, 4)") from error
    if values.size == 0:
        return np.zeros((0, 4))
    if values.ndim != 2 or values.shape[1] != 4:
        remedy = "; put a single box in a list" if values.shape == (4,) else ""
        raise BoxError(f"{what}: boxes have the shape {list(values.shape)}, expected (R, 4), four numbers a box{remedy}")
    return values


def _check_range(values: Floats, image_hw: HW, frame: BoxFrame, what: str) -> None:
    """Find boxes of the other frame by their size; those that aren't finite are for `check_boxes`."""
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    size = f"an image of {image_hw[1]}x{image_hw[0]} pixels"
    if not len(values):
        return
    if frame == "pixels" and 0 < largest <= 1 and max(image_hw) > SMALL_PX:
        raise BoxError(
            f"{what}: no value of the boxes is larger than {largest:g}, in {size}; they look like shares of its width and height: "
            "give frame='unit' (--frame unit), or multiply them by the size"
        )
    if frame == "unit" and largest > LARGEST_SHARE:
        raise BoxError(
            f"{what}: the boxes reach {largest:g}, expected shares of the width and height of {size}; they look like pixels: "
            "give frame='pixels' (--frame pixels), or divide them by the size"
        )
