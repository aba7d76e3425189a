"""Room on the disk: what a store will take, and whether there is as much."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from roiseg.cache.params import CacheParams
from roiseg.errors import DiskSpaceError
from roiseg.types import StoredArray

SHARES = {
    ("float16", "none"): 1.0,
    ("float16", "lz4"): 0.70,
    ("float16", "zstd"): 0.45,
    ("int8", "none"): 0.50,
    ("int8", "lz4"): 0.33,
    ("int8", "zstd"): 0.22,
    ("uint8", "none"): 0.50,
    ("uint8", "lz4"): 0.50,
    ("uint8", "zstd"): 0.40,
}
"""Bytes over those of raw float16, as measured on a YOLOv9 detector (README, "The feature cache").

A figure that is too high would refuse what fits; one that is too low lets the disk run full, which loses nothing.
"""


def estimate_bytes(arrays: Sequence[StoredArray], images: int, params: CacheParams) -> int:
    """What a store will take, about.

    Args:
        arrays: what is stored.
        images: how many.
        params: codec.
    """
    halves = [2 * int(np.prod(array.shape)) * images * SHARES[array.dtype, params.codec] for array in arrays]
    return int(sum(halves))


def links_into(cache: Path, folder: Path) -> bool:
    """Whether files of `folder` can be hard-linked into DVC's cache, so that it needs no room of its own.

    Args:
        cache: that of DVC; made if it isn't there.
        folder: where stores are written.
    """
    if not Path(".dvc").is_dir():
        return True  # no project of DVC's, so no cache that would want room
    cache.mkdir(parents=True, exist_ok=True)
    source, target = folder / ".link.partial", cache / f".link-{folder.name}.partial"
    source.write_bytes(b"")
    target.unlink(missing_ok=True)  # of a run that was killed here
    try:
        os.link(source, target)
    except OSError:
        return False
    finally:
        source.unlink()
        target.unlink(missing_ok=True)
    return True


def check_space(folder: Path, needed: int, copies: int) -> None:
    """Refuse to begin what won't fit.

    Args:
        folder: where the store will be.
        needed: bytes that are still to be written.
        copies: 1, or 2 where DVC will copy the store into its cache.

    Raises:
        DiskSpaceError: less is free than that.
    """
    free = shutil.disk_usage(folder).free
    if free < needed * copies:
        what = f"about {needed / 1e9:.1f} GB" + (" twice, because DVC's cache is on another file system" if copies > 1 else "")
        raise DiskSpaceError(
            f"{folder.resolve()}: {free / 1e9:.1f} GB are free, but the store takes {what}; make room, choose a smaller form "
            "(cache.dtype: int8, cache.codec: zstd), fewer layers, or a subset of the images (data.*.subset)"
        )


@contextmanager
def disk_full_is_said(file: Path) -> Iterator[None]:
    """Turn a full disk into an error that says what is kept.

    Raises:
        DiskSpaceError: the disk filled up.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskSpaceError(
            f"{file}: the disk is full ({error.strerror}); finished shards are kept: make room and run again, it goes on after them"
        ) from error
