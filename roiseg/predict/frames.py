"""Pictures of the sources, decoded ahead of those who use them; a file that can't be read is passed on as a fault.

What waits is bounded: as many pictures as the caller says, each of at most `MAX_PIXELS`.
"""

import io
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from roiseg.errors import ImageReadError, MissingImageError, RoisegError
from roiseg.extractor.images import decode
from roiseg.network_input import Pixels
from roiseg.predict.sources import Source

MAX_PIXELS = 200_000_000
"""Pixels of one picture at most; a file of a few KB can claim billions, and they would all be decoded to three bytes each."""

FRAMES_LOST = 0.02
"""Share of a video's frames that its header may promise too many: some formats only estimate the number."""

FALLBACK_FPS = 25.0
"""Frames a second of a video that doesn't say."""


@dataclass(frozen=True)
class Frame:
    """A picture to predict on.

    Attributes:
        source: the file that it comes from.
        number: its position in a video, from 0; None for an image.
        pixels: (H, W, 3) uint8, BGR.
        fps: frames a second of the video; 0 for an image.
    """

    source: Source
    number: int | None
    pixels: Pixels
    fps: float = 0.0

    @property
    def what(self) -> str:
        """What to call it in messages."""
        return str(self.source.path) if self.number is None else f"{self.source.path} frame {self.number}"


@dataclass(frozen=True)
class Fault:
    """A file that can't be read, or not to its end."""

    source: Source
    error: RoisegError


def read_ahead(sources: Sequence[Source], threads: int, ahead: int) -> Generator[Frame | Fault]:
    """All pictures in order.

    Args:
        sources: what to read.
        threads: that decode images; a video has one of its own, for its frames follow from each other.
        ahead: pictures that are read before they are asked for.
    """
    with _without_pil_limit():
        for is_video, group in groupby(sources, key=lambda source: source.is_video):
            if is_video:
                for source in group:
                    yield from _read_video(source, ahead)
            else:
                yield from _read_images(group, threads, ahead)


def _read_images(sources: Iterator[Source], threads: int, ahead: int) -> Generator[Frame | Fault]:
    waiting: deque[Future[Frame | Fault]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for source in sources:
            waiting.append(pool.submit(_read_image, source))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read_image(source: Source) -> Frame | Fault:
    try:
        data = _bytes(source.path)
        _check_size(_header_size(data), source.path)
        return Frame(source, None, decode(data, str(source.path)))
    except RoisegError as error:
        return Fault(source, error)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingImageError(f"{path}: no such image; correct the path") from error
    except OSError as error:
        raise ImageReadError(f"{path}: can't be read ({error.strerror}); expected an image file, so see to its rights") from error
    except ValueError as error:
        raise MissingImageError(f"{str(path)!r}: can't be the path of an image ({error}); correct it") from error


def _header_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as the file's header states them, nothing decoded; None where that isn't known."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        return None


@contextmanager
def _without_pil_limit() -> Iterator[None]:
    """Pillow's own limit out of the way: it warns from half of `MAX_PIXELS` on, about files that are read."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _check_size(size: tuple[int, int] | None, path: Path) -> None:
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise ImageReadError(
            f"{path}: has {size[0]}x{size[1]} pixels by its header, expected at most {MAX_PIXELS:,} in all; "
            "scale it down or cut it into tiles"
        )


def count_frames(sources: Sequence[Source]) -> int:
    """How many pictures there will be, as far as the headers of videos tell; each source counts one at least."""
    return sum(_stated_frames(source) if source.is_video else 1 for source in sources)


def _stated_frames(source: Source) -> int:
    try:
        video = _open(source)
    except RoisegError:
        return 1
    try:
        return max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 1)
    finally:
        video.release()


def _open(source: Source) -> cv2.VideoCapture:
    """An open video.

    Raises:
        MissingImageError, ImageReadError: naming the file.
    """
    path = source.path
    try:
        size = path.stat().st_size
    except OSError as error:
        raise MissingImageError(f"{path}: no such video ({error.strerror}); correct the path") from error
    if not size:
        raise ImageReadError(f"{path}: the file is empty; fetch it again")
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not video.isOpened():
        video.release()
        raise ImageReadError(f"{path}: {size} bytes that are no video FFmpeg can read, or only a part of one; fetch it again")
    try:
        _check_size((int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))), path)
    except ImageReadError:
        video.release()
        raise
    return video


def _read_video(source: Source, ahead: int) -> Generator[Frame | Fault]:
    """The frames of a video in order, and a fault behind them where the header promised more."""
    try:
        video = _open(source)
    except RoisegError as error:
        yield Fault(source, error)
        return
    stated, fps = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), float(video.get(cv2.CAP_PROP_FPS)) or FALLBACK_FPS
    count = 0
    with ThreadPoolExecutor(1) as pool:
        try:
            waiting = deque(pool.submit(video.read) for _ in range(max(ahead, 1)))
            while True:
                ok, pixels = waiting.popleft().result()
                if not ok:
                    break
                waiting.append(pool.submit(video.read))
                yield Frame(source, count, np.asarray(pixels, dtype=np.uint8), fps)
                count += 1
        finally:
            pool.shutdown(cancel_futures=True)
            video.release()
    if not count or count < stated * (1 - FRAMES_LOST):
        promised = f"its header says {stated}" if stated > 0 else "expected at least one"
        yield Fault(source, ImageReadError(f"{source.path}: {count} frames can be read, but {promised}; fetch it again"))
