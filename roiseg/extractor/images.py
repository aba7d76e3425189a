"""Image files to pixels."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from roiseg.errors import ImageReadError, MissingImageError
from roiseg.network_input import Pixels
from roiseg.types import HW

_ENDINGS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}


def _is_whole(data: bytes) -> bool:
    """Whether a decoder would reach the end of the picture.

    OpenCV decodes a truncated JPEG without a word and fills the rest with grey. The end marker settles nearly every file;
    the few with bytes after it are read by a decoder that minds.
    """
    for start, end in _ENDINGS.items():
        if data.startswith(start):
            if data.endswith(end):
                return True
            try:
                with Image.open(io.BytesIO(data)) as image:
                    image.load()
            except (OSError, UnidentifiedImageError, SyntaxError):
                return False
            return True
    return True


def decode(data: bytes, name: str, image_hw: HW | None = None) -> Pixels:
    """Pixels of an encoded image, as COCO's annotations mean them: EXIF rotation isn't applied.

    Args:
        data: bytes of the file; grey, CMYK, palette and 16-bit pictures come out as 8-bit colour.
        name: for messages.
        image_hw: size that the annotations state, or None.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ImageReadError: empty, truncated, not an image, or of another size.
    """
    if not data:
        raise ImageReadError(f"{name}: the file is empty; fetch it again")
    if not _is_whole(data):
        raise ImageReadError(f"{name}: the image is truncated ({len(data)} bytes); fetch it again")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageReadError(f"{name}: can't be decoded ({error.err}); fetch it again, or scale it down") from error
    if pixels is None:
        raise ImageReadError(f"{name}: {len(data)} bytes that are no image OpenCV can read; fetch it again")
    if image_hw is not None and pixels.shape[:2] != tuple(image_hw):
        height, width = pixels.shape[:2]
        raise ImageReadError(
            f"{name}: the image has {width}x{height} pixels, but its annotation says {image_hw[1]}x{image_hw[0]}; "
            "annotations must be made for the stored pixels, without EXIF rotation"
        )
    return np.asarray(pixels, dtype=np.uint8)


def read_bytes(path: Path) -> bytes:
    """Bytes of an image file.

    Raises:
        MissingImageError: there is no such file.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingImageError(
            f"{path}: no such image; it was there when `prepare` ran: restore it or run prepare again"
        ) from error
