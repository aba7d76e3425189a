"""Rows of the index to batches of network inputs, decoded ahead by threads."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pandas as pd

from roiseg.extractor.clock import Clock
from roiseg.extractor.images import decode, read_bytes
from roiseg.extractor.params import ExtractorParams
from roiseg.network_input import InputRule, Pixels, network_image
from roiseg.progress import progress

AHEAD_BATCHES = 3
"""Batches that are decoded before the session asks for them."""


@dataclass(frozen=True)
class ImageFile:
    """One row of the index, as extraction needs it."""

    row: int
    image_id: int
    path: Path
    image_hw: tuple[int, int]


def image_files(images: pd.DataFrame, folder: Path) -> list[ImageFile]:
    """The rows of `images.parquet` with their files."""
    columns = [images[name].tolist() for name in ("row", "image_id", "file_name", "height", "width")]
    return [
        ImageFile(row, image_id, folder / name, (height, width))
        for row, image_id, name, height, width in zip(*columns, strict=True)
    ]


def hash_images(files: Sequence[ImageFile], threads: int) -> str:
    """SHA-256 over the ids and the bytes of all images, in row order.

    Raises:
        MissingImageError: a file is gone.
    """
    whole = hashlib.sha256()
    with ThreadPoolExecutor(threads) as pool, progress("hash images", len(files)) as tick:
        digests = pool.map(lambda file: hashlib.sha256(read_bytes(file.path)).digest(), files)
        for file, digest in zip(files, digests, strict=True):
            whole.update(file.image_id.to_bytes(8, "little", signed=True) + digest)
            tick()
    return whole.hexdigest()


class Images(Protocol):
    """Where network inputs come from."""

    def digest(self, files: Sequence[ImageFile], threads: int) -> str:
        """SHA-256 over all images, in row order."""

    def load(self, file: ImageFile) -> Pixels:
        """(3, H, W) uint8, see `network_image`; called from several threads."""


@dataclass(frozen=True)
class ImageFolder:
    """Images as files.

    Attributes:
        rule: what turns an image into the network input.
    """

    rule: InputRule

    def digest(self, files: Sequence[ImageFile], threads: int) -> str:
        """See `hash_images`."""
        return hash_images(files, threads)

    def load(self, file: ImageFile) -> Pixels:
        """See `Images`."""
        return network_image(decode(read_bytes(file.path), str(file.path), file.image_hw), self.rule)


def batches(
    files: Sequence[ImageFile], params: ExtractorParams, threads: int, clock: Clock | None = None, source: Images | None = None
) -> Iterator[tuple[Sequence[ImageFile], Pixels]]:
    """Network images in order, decoded ahead by threads.

    Every batch has the full size: a short last one is padded with its first image, so that the network always runs on one
    shape and rounds every image alike.

    Args:
        files: images in the order wanted.
        params: the input rule and the batch size.
        threads: decoding threads.
        clock: gets the seconds of `decode`, summed over threads, and of `wait for images`.
        source: where images come from; None: their files.

    Yields:
        The files of the batch, and (batch_size, 3, H, W) uint8, see `network_image`.
    """
    cv2.setNumThreads(1)
    clock, images_of = clock or Clock(), source or ImageFolder(params.input_rule())

    def load(file: ImageFile) -> Pixels:
        with clock("decode"):
            return images_of.load(file)

    size = params.batch_size
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Pixels]] = deque()
        position = 0
        for start in range(0, len(files), size):
            while position < min(len(files), start + size * AHEAD_BATCHES):
                waiting.append(pool.submit(load, files[position]))
                position += 1
            part = files[start : start + size]
            try:
                with clock("wait for images"):
                    images = [waiting.popleft().result() for _ in part]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            images += [images[0]] * (size - len(part))
            yield part, np.stack(images)
