"""Reading a sharded array through memory maps: an inner chunk is decoded from the mapped shard straight into the caller's buffer.

zarr-python reads a shard's index anew for each chunk, copies what it reads and allocates what it returns. The layout that
`roiseg.cache.layout` writes needs none of that. A shard is its inner chunks, one after the other, then the index: for each chunk
offset and length (uint64, little endian), and a CRC-32C of all of them (Zarr v3, codec `sharding_indexed`). A chunk is the raw
values or a Blosc frame, perhaps followed by a CRC-32C of its own.

Symbols: N images, (C, H, W) values of one of them, S images of a shard.
"""

import json
import mmap
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from roiseg.cache.layout import shard_key
from roiseg.cache.shard import CRC_BYTES, crc32c
from roiseg.errors import StoreDamagedError

# Readers bring their own threads; Blosc's pool is one for the process, guarded by one lock, and doesn't survive a fork.
blosc.use_threads = False

ENTRY_BYTES = 16
BLOSC_HEADER = 16
MAX_MAPS = 256
"""Shards of an array that are mapped at a time: each holds a file descriptor, of which a process commonly has 1,024."""


class Shard:
    """One mapped shard file."""

    def __init__(self, file: Path, size: int, chunks: int) -> None:
        """Map a file and read its index.

        Args:
            file: the shard.
            size: bytes that it must have.
            chunks: inner chunks of it.

        Raises:
            StoreDamagedError: missing, of another size, or with a broken index.
        """
        self._file = file
        try:
            with file.open("rb") as handle:
                self._map = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise StoreDamagedError(f"{file}: can't be mapped ({error}); restore it with `dvc checkout` or `dvc pull`") from error
        length = chunks * ENTRY_BYTES
        if len(self._map) != size or size < length + CRC_BYTES:
            raise self._damaged(f"has {len(self._map)} bytes, expected {size}")
        index = self._map[size - length - CRC_BYTES : size - CRC_BYTES]
        if crc32c(index) != self._map[size - CRC_BYTES :]:
            raise self._damaged("its index fails its checksum")
        self._entries = np.frombuffer(index, dtype="<u8").reshape(chunks, 2)
        self._end = size - length - CRC_BYTES

    def _damaged(self, what: str) -> StoreDamagedError:
        return StoreDamagedError(f"{self._file}: {what}; restore it with `dvc checkout` or `dvc pull`")

    def chunk(self, number: int, *, has_crc: bool, check: bool) -> memoryview:
        """Encoded bytes of an inner chunk, in place.

        Args:
            number: of the chunk.
            has_crc: whether a CRC-32C follows the bytes.
            check: whether to compare it.

        Raises:
            StoreDamagedError: no such bytes, or they fail their checksum.
        """
        offset, length = (int(value) for value in self._entries[number])
        stop = offset + length - (CRC_BYTES if has_crc else 0)
        if not offset <= stop <= offset + length <= self._end:
            raise self._damaged(f"chunk {number} lies at {offset} to {offset + length}, outside the file")
        view = memoryview(self._map)[offset:stop]
        if has_crc and check and crc32c(bytes(view)) != self._map[stop : stop + CRC_BYTES]:
            raise self._damaged(f"chunk {number} fails its checksum")
        return view


class MappedArray:
    """One array of a store. Safe to share between threads, and in a forked process; not picklable."""

    def __init__(
        self,
        folder: Path,
        sizes: Sequence[int],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        per_shard: int,
        *,
        compressed: bool,
        has_crc: bool,
    ) -> None:
        """Describe an array; nothing is opened yet.

        Args:
            folder: of the array.
            sizes: bytes of each shard.
            shape: (N, C, H, W).
            dtype: of the values.
            per_shard: S.
            compressed: whether chunks are Blosc frames.
            has_crc: whether a checksum follows each chunk.
        """
        self._folder, self._sizes = folder, sizes
        self._shape, self._dtype, self._per_shard = shape, dtype, per_shard
        self._compressed, self._has_crc = compressed, has_crc
        self._bytes = int(np.prod(shape[1:])) * dtype.itemsize
        self._shard = lru_cache(MAX_MAPS)(self._open_shard)

    @classmethod
    def open(cls, folder: Path, sizes: Sequence[int]) -> Self | None:
        """The array in `folder`, or None where its layout isn't one that can be mapped.

        Args:
            folder: of a Zarr v3 array.
            sizes: bytes of each shard.
        """
        meta = json.loads((folder / "zarr.json").read_text())
        outer = meta["codecs"]
        if len(outer) != 1 or outer[0]["name"] != "sharding_indexed":
            return None
        shape, per_shard = tuple(meta["shape"]), meta["chunk_grid"]["configuration"]["chunk_shape"][0]
        sharding = outer[0]["configuration"]
        inner = [codec["name"] for codec in sharding["codecs"]]
        plain = (
            list(sharding["chunk_shape"]) == [1, *shape[1:]]
            and sharding.get("index_location", "end") == "end"
            and [codec["name"] for codec in sharding["index_codecs"]] == ["bytes", "crc32c"]
            and _little(sharding["codecs"][0])
            and inner in (["bytes"], ["bytes", "crc32c"], ["bytes", "blosc"], ["bytes", "blosc", "crc32c"])
        )
        if not plain:
            return None
        dtype = np.dtype(meta["data_type"]).newbyteorder("<")
        return cls(folder, sizes, shape, dtype, per_shard, compressed="blosc" in inner, has_crc="crc32c" in inner)

    def _open_shard(self, number: int) -> Shard:
        return Shard(self._folder / shard_key(number), self._sizes[number], self._per_shard)

    def read_into(self, row: int, out: NDArray[Any], *, check: bool) -> None:
        """Decode the values of one image.

        Args:
            row: 0 <= row < N.
            out: (C, H, W) of the array's type, contiguous; filled.
            check: whether to compare the chunk's checksum.

        Raises:
            StoreDamagedError: the shard is missing, cut short or changed, as far as that can be seen.
        """
        number, place = divmod(row, self._per_shard)
        view = self._shard(number).chunk(place, has_crc=self._has_crc, check=check)
        if not self._compressed:
            if len(view) != self._bytes:
                raise self._odd(row, f"{len(view)} bytes, expected {self._bytes}")
            np.copyto(out, np.frombuffer(view, dtype=self._dtype).reshape(self._shape[1:]))
            return
        # A frame states its sizes; a wrong one would write past the end of `out`.
        sizes = struct.unpack_from("<III", view, 4) if len(view) >= BLOSC_HEADER else None
        if sizes is None or sizes[0] != self._bytes or sizes[2] != len(view):
            raise self._odd(row, f"its frame of {len(view)} bytes states other sizes ({sizes}), expected {self._bytes}")
        try:
            blosc.decompress(view, out)
        except RuntimeError as error:
            raise self._odd(row, str(error)) from error

    def _odd(self, row: int, what: str) -> StoreDamagedError:
        return StoreDamagedError(
            f"{self._folder}: row {row} can't be decoded ({what}); restore the store with `dvc checkout` or `dvc pull`"
        )


def _little(codec: Mapping[str, Any]) -> bool:
    """Whether a `bytes` codec writes little endian; types of one byte have no order."""
    return bool(codec["name"] == "bytes" and codec.get("configuration", {}).get("endian", "little") == "little")
