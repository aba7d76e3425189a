"""Writing a shard: encoded chunks one after the other, then their index, as Zarr's codec `sharding_indexed` lays them out.

zarr-python keeps all encoded chunks, joins them and copies the whole; here each is hashed and written as soon as it is there, so
that a shard of any size takes the memory of one image. The bytes are the same, which golden sums hold to.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from crc32c import crc32c as checksum
from numcodecs import Blosc
from numpy.typing import NDArray

from roiseg.cache.layout import tile_of
from roiseg.cache.params import CacheParams
from roiseg.types import HW

CRC_BYTES: Final = 4
BLOCK_BYTES: Final = 2**18
"""A fraction of a core's second-level cache."""
NOTHING: Final = 2**64 - 1
"""Offset and length of a chunk that isn't there: the last shard has fewer images than places."""
SHUFFLES: Final = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}


def crc32c(data: bytes | memoryview) -> bytes:
    """CRC-32C of some bytes, little endian."""
    return int(checksum(data)).to_bytes(CRC_BYTES, "little")


def copy_checked(data: memoryview, out: memoryview) -> bytes:
    """Copy bytes, and their CRC-32C: block by block, so that the copy finds in the processor's cache what was just summed."""
    total = 0
    for start in range(0, len(data), BLOCK_BYTES):
        block = data[start : start + BLOCK_BYTES]
        total = checksum(block, total)
        out[start : start + BLOCK_BYTES] = block
    return total.to_bytes(CRC_BYTES, "little")


def tiles(values: NDArray[Any], tile: HW) -> Iterator[NDArray[Any]]:
    """Parts of a map (C, H, W), row by row, each (C, *tile); those at the far borders are filled up with zeros."""
    height, width = values.shape[1:]
    if tile == (height, width):
        yield values
        return
    for top in range(0, height, tile[0]):
        for left in range(0, width, tile[1]):
            part = values[:, top : top + tile[0], left : left + tile[1]]
            missing = (tile[0] - part.shape[1], tile[1] - part.shape[2])
            yield np.pad(part, ((0, 0), (0, missing[0]), (0, missing[1]))) if any(missing) else part


class ShardFile:
    """A shard that is being written beside its name, and takes it when it is closed, whole and on the disk."""

    def __init__(self, file: Path, chunks: int) -> None:
        """Begin a shard.

        Args:
            file: the shard.
            chunks: places in its index.
        """
        self.path, self._aside = file, file.with_name(f"{file.name}.partial")
        self._index = np.full((chunks, 2), NOTHING, dtype="<u8")
        self._digest, self._size, self._count = hashlib.sha256(), 0, 0
        self._out = self._aside.open("wb")

    def append(self, chunk: bytes | memoryview) -> None:
        """Write the next encoded chunk, with its checksum."""
        self._index[self._count] = self._size, len(chunk) + CRC_BYTES
        self._count += 1
        for part in (chunk, crc32c(chunk)):
            self._write(part)

    def _write(self, part: bytes | memoryview) -> None:
        self._out.write(part)
        self._digest.update(part)
        self._size += len(part)

    def close(self) -> tuple[int, str]:
        """Write the index and put the shard in its place.

        Returns:
            Bytes and SHA-256 of the file.
        """
        index = self._index.tobytes()
        for part in (index, crc32c(index)):
            self._write(part)
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.close()
        self._aside.replace(self.path)
        return self._size, self._digest.hexdigest()

    def abandon(self) -> None:
        """Leave nothing behind; without effect once closed."""
        self._out.close()
        self._aside.unlink(missing_ok=True)


class Encoder:
    """Maps of one array to the chunks of its shards."""

    def __init__(self, params: CacheParams, itemsize: int, hw: HW) -> None:
        """Describe the chunks.

        Args:
            params: codec and tiles.
            itemsize: bytes of a value.
            hw: (H, W) of the maps.
        """
        self._codec = None
        if params.codec != "none":
            self._codec = Blosc(params.codec, params.clevel, SHUFFLES[params.shuffle], 0, itemsize)
        self.tile = tile_of(hw, params.tile_hw)
        self.per_image = -(-hw[0] // self.tile[0]) * -(-hw[1] // self.tile[1])

    def encode(self, values: NDArray[Any]) -> Iterator[bytes]:
        """Chunks of one image (C, H, W), without checksums."""
        for part in tiles(values, self.tile):
            yield part.tobytes() if self._codec is None else self._codec.encode(np.ascontiguousarray(part))
