"""Rows of the index to batches of network inputs, decoded ahead by threads."""

import hashlib
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from roiseg.extractor.images import decode, read_bytes, to_input
from roiseg.extractor.params import ExtractorParams
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


def batches(
    files: Sequence[ImageFile], params: ExtractorParams, threads: int, clock: Counter[str]
) -> Iterator[tuple[Sequence[ImageFile], NDArray[np.float32]]]:
    """Network inputs in order, decoded ahead by threads.

    Every batch has the full size: a short last one is padded with its first image, so that the network always runs on one
    shape and rounds every image alike.

    Args:
        files: images in the order wanted.
        params: the input rule and the batch size.
        threads: decoding threads.
        clock: seconds of waiting are added under `decode_wait`.

    Yields:
        The files of the batch, and (batch_size, 3, H, W) float32.
    """
    cv2.setNumThreads(1)

    def load(file: ImageFile) -> NDArray[np.float32]:
        return to_input(decode(read_bytes(file.path), str(file.path), file.image_hw), params)

    size = params.batch_size
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[NDArray[np.float32]]] = deque()
        position = 0
        for start in range(0, len(files), size):
            while position < min(len(files), start + size * AHEAD_BATCHES):
                waiting.append(pool.submit(load, files[position]))
                position += 1
            part = files[start : start + size]
            began = time.monotonic()
            try:
                inputs = [waiting.popleft().result() for _ in part]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            inputs += [inputs[0]] * (size - len(part))
            clock["decode_wait"] += int((time.monotonic() - began) * 1e6)
            yield part, np.stack(inputs)
