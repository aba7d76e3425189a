"""Writing a shard: encoded images one after the other, then their index, as Zarr's codec `sharding_indexed` lays them out.

zarr-python keeps all encoded chunks, joins them and copies the whole; here each is hashed and written as soon as it is encoded. The
bytes are the same, which golden sums hold to.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from roiseg.cache.params import CacheParams

CRC_BYTES: Final = 4
NOTHING: Final = 2**64 - 1
"""Offset and length of a chunk that isn't there: the last shard has fewer images than places."""
SHUFFLES: Final = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}


def crc32c(data: bytes) -> bytes:
    """CRC-32C of some bytes, little endian."""
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def write_shard(file: Path, values: NDArray[Any], per_shard: int, params: CacheParams) -> tuple[int, str]:
    """Write a shard beside `file` and rename it there, once it is on the disk.

    Args:
        file: the shard.
        values: (n, C, H, W) of the stored type, n <= per_shard.
        per_shard: places in its index.
        params: how the images are encoded.

    Returns:
        Bytes and SHA-256 of the file.
    """
    codec = None
    if params.codec != "none":
        codec = Blosc(params.codec, params.level, SHUFFLES[params.shuffle], 0, values.dtype.itemsize)
    index = np.full((per_shard, 2), NOTHING, dtype="<u8")
    digest, size = hashlib.sha256(), 0
    aside = file.with_name(f"{file.name}.partial")
    try:
        with aside.open("wb") as out:
            for place, item in enumerate(values):
                encoded: bytes = item.tobytes() if codec is None else codec.encode(np.ascontiguousarray(item))
                index[place] = size, len(encoded) + CRC_BYTES
                for part in (encoded, crc32c(encoded)):
                    out.write(part)
                    digest.update(part)
                    size += len(part)
            for part in (index.tobytes(), crc32c(index.tobytes())):
                out.write(part)
                digest.update(part)
                size += len(part)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
    return size, digest.hexdigest()
