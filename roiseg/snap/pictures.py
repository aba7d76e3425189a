"""Images of requests: sent along, or files of the one folder that is served. None is decoded before its size is known."""

import errno
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from PIL import Image

from roiseg.errors import ImageReadError, MissingImageError, RequestError
from roiseg.extractor.images import decode
from roiseg.network_input import Pixels
from roiseg.snap.limits import Limits
from roiseg.types import HW

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Those that say their size at the beginning, in one way only."""


class Picture(Protocol):
    """An encoded image that can be opened as often as wanted."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def open(self) -> BinaryIO:
        """Its bytes, from the first; RequestError where it can't be had."""


@dataclass(frozen=True)
class SentPicture:
    """An image that came with the request.

    Attributes:
        data: encoded.
        name: see `Picture`.
    """

    data: bytes
    name: str = "image"

    def open(self) -> BinaryIO:
        """See `Picture`."""
        return io.BytesIO(self.data)


class ImageFolder:
    """The folder that requests may name files of. Nothing else is ever opened, and no symbolic link is followed."""

    def __init__(self, root: Path) -> None:
        """Serve a folder.

        Raises:
            MissingImageError: it isn't there.
        """
        if not root.is_dir():
            raise MissingImageError(f"{root}: no such folder of images; give --images one, or leave it out")
        self._root = root

    def open(self, path: str) -> BinaryIO:
        """A file of the folder; every part of its path is opened inside of the one before, so that nothing can be swapped.

        Args:
            path: relative, with `/`.

        Raises:
            RequestError: a path that leaves the folder or goes over a link, or no such file.
        """
        parts = _parts(path)
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                os.close(folder)
                folder = inner
            # O_NONBLOCK: a pipe would be waited for until somebody writes to it.
            file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            raise _refusal(path, error) from error
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise RequestError(
                f"path {path[:200]!r}: no file but a folder or device, expected an image", status=404, code="no_image"
            )
        return os.fdopen(file, "rb")


@dataclass(frozen=True)
class FolderPicture:
    """An image of the served folder."""

    folder: ImageFolder
    path: str

    @property
    def name(self) -> str:
        """See `Picture`."""
        return f"path {self.path[:200]!r}"

    def open(self) -> BinaryIO:
        """See `Picture`."""
        return self.folder.open(self.path)


def _parts(path: str) -> list[str]:
    """Names of folders and file.

    Raises:
        RequestError: the path isn't a plain relative one.
    """
    parts = path.split("/")
    odd = "\\" in path or any(ord(character) < 32 for character in path)
    if odd or any(part in ("", ".", "..") for part in parts):
        raise RequestError(
            f"path {path[:200]!r}: expected a path inside of the served folder such as 'street/0001.jpg', with '/', without "
            "'.', '..', backslashes or control characters",
            status=400,
            code="path",
        )
    return parts


def _refusal(path: str, error: OSError) -> RequestError:
    """Why a path can't be opened, as the one who asked is told it; says nothing of where the folder is."""
    name = f"path {path[:200]!r}"
    # A link that stands for a folder gives ENOTDIR, as a file in its place would.
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return RequestError(
            f"{name}: a symbolic link, which isn't followed; serve the folder with the files", status=403, code="path"
        )
    if error.errno == errno.ENAMETOOLONG:
        return RequestError(f"{name}: too long for a path", status=400, code="path")
    if error.errno in (errno.EACCES, errno.EPERM):
        return RequestError(f"{name}: the service may not read it", status=403, code="path")
    return RequestError(f"{name}: no such image in the served folder (links aren't followed)", status=404, code="no_image")


def image_hw(picture: Picture, limits: Limits) -> HW:
    """The size that an image's header says, without decoding it.

    Raises:
        RequestError: not an image of `FORMATS`, or too large.
    """
    try:
        with picture.open() as file, Image.open(file, formats=FORMATS) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(picture, "far more", limits) from error
    except (OSError, ValueError, SyntaxError, EOFError, ArithmeticError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{picture.name}: no image that can be read, expected {', '.join(FORMATS)}", code="image") from error
    if width * height > limits.pixels:
        raise _too_large(picture, f"{width}x{height} pixels", limits)
    return height, width


def read_pixels(picture: Picture, limits: Limits) -> Pixels:
    """Decode an image.

    Returns:
        (H, W, 3) uint8, BGR; grey, palette and 16-bit images too. EXIF rotation isn't applied.

    Raises:
        RequestError: too large, or not of the size that its header says.
        ImageReadError: damaged.
    """
    stated = image_hw(picture, limits)
    with picture.open() as file:
        data = file.read(limits.body_bytes + 1)
    if len(data) > limits.body_bytes:
        raise RequestError(f"{picture.name}: more than {limits.body_bytes} bytes, expected no more", status=413, code="too_large")
    pixels = decode(data, picture.name)
    if pixels.shape[:2] != stated:
        raise ImageReadError(
            f"{picture.name}: has {pixels.shape[1]}x{pixels.shape[0]} pixels, but its header says {stated[1]}x{stated[0]}"
        )
    return pixels


def _too_large(picture: Picture, got: str, limits: Limits) -> RequestError:
    return RequestError(
        f"{picture.name}: {got}, expected at most {limits.pixels} pixels; scale the image and its boxes down",
        status=413,
        code="too_many_pixels",
    )
