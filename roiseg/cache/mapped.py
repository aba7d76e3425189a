"""Reading a sharded array through memory maps: an inner chunk is decoded from the mapped shard straight into the caller's buffer.

zarr-python reads a shard's index anew for each chunk, copies what it reads and allocates what it returns. The layout that
`roiseg.cache.layout` writes needs none of that. A shard is its inner chunks, one after the other, then the index: for each chunk
offset and length (uint64, little endian), and a CRC-32C of all of them (Zarr v3, codec `sharding_indexed`). A chunk is the raw
values or a Blosc frame, perhaps followed by a CRC-32C of its own.

An image is one chunk, or the tiles of a grid, row by row; a tile at the far border may reach beyond the map.

Symbols: N images, (C, H, W) values of one of them, S images of a shard, (h, w) cells of a tile.
"""

import json
import mmap
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from roiseg.cache.layout import shard_key
from roiseg.cache.shard import CRC_BYTES, copy_checked, crc32c
from roiseg.errors import StoreDamagedError
from roiseg.types import HW, Window

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
        if has_crc and check and crc32c(view) != self._map[stop : stop + CRC_BYTES]:
            raise self._torn(number)
        return view

    def copy_chunk(self, number: int, out: memoryview) -> None:
        """Copy the bytes of an inner chunk, and compare their checksum meanwhile.

        Args:
            number: of the chunk, which a CRC-32C follows.
            out: as many bytes.

        Raises:
            StoreDamagedError: no such bytes, another number of them, or they fail their checksum.
        """
        view = self.chunk(number, has_crc=True, check=False)
        if len(view) != len(out):
            raise self._damaged(f"chunk {number} has {len(view)} bytes, expected {len(out)}")
        stop = int(self._entries[number][0]) + len(view)
        if copy_checked(view, out) != self._map[stop : stop + CRC_BYTES]:
            raise self._torn(number)

    def _torn(self, number: int) -> StoreDamagedError:
        return self._damaged(f"chunk {number} fails its checksum")


class MappedArray:
    """One array of a store. Safe to share between threads, and in a forked process; not picklable."""

    def __init__(
        self,
        folder: Path,
        sizes: Sequence[int],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        per_shard: int,
        tile: HW,
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
            tile: (h, w).
            compressed: whether chunks are Blosc frames.
            has_crc: whether a checksum follows each chunk.
        """
        self._folder, self._sizes = folder, sizes
        self._shape, self._dtype, self._per_shard = shape, dtype, per_shard
        self._compressed, self._has_crc = compressed, has_crc
        self._tile = tile
        self._grid = (-(-shape[2] // tile[0]), -(-shape[3] // tile[1]))
        self._chunk_shape = (shape[1], *tile)
        self._bytes = int(np.prod(self._chunk_shape)) * dtype.itemsize
        self._shard = lru_cache(MAX_MAPS)(self._open_shard)
        self._local = threading.local()

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
        height, width = sharding["chunk_shape"][2:]
        whole = [per_shard, shape[1], -(-shape[2] // height) * height, -(-shape[3] // width) * width]
        plain = (
            list(sharding["chunk_shape"][:2]) == [1, shape[1]]
            and list(meta["chunk_grid"]["configuration"]["chunk_shape"]) == whole
            and sharding.get("index_location", "end") == "end"
            and [codec["name"] for codec in sharding["index_codecs"]] == ["bytes", "crc32c"]
            and _little(sharding["codecs"][0])
            and inner in (["bytes"], ["bytes", "crc32c"], ["bytes", "blosc"], ["bytes", "blosc", "crc32c"])
        )
        if not plain:
            return None
        dtype = np.dtype(meta["data_type"]).newbyteorder("<")
        tile = (int(height), int(width))
        return cls(folder, sizes, shape, dtype, per_shard, tile, compressed="blosc" in inner, has_crc="crc32c" in inner)

    def _open_shard(self, number: int) -> Shard:
        return Shard(self._folder / shard_key(number), self._sizes[number], self._per_shard * self._grid[0] * self._grid[1])

    def read_into(self, row: int, out: NDArray[Any], *, check: bool) -> None:
        """Decode the values of one image.

        Args:
            row: 0 <= row < N.
            out: (C, H, W) of the array's type, contiguous; filled.
            check: whether to compare the checksums of its chunks.

        Raises:
            StoreDamagedError: the shard is missing, cut short or changed, as far as that can be seen.
        """
        if self._chunk_shape != self._shape[1:]:
            self.read_window_into(row, Window(0, self._shape[2], 0, self._shape[3]), out, check=check)
        elif self._compressed:
            self._decompress(row, self._chunk(row, 0, check=check), out)
        elif check and self._has_crc:
            shard, place = divmod(row, self._per_shard)
            self._shard(shard).copy_chunk(place, out.data.cast("B"))
        else:
            np.copyto(out, self._raw(row, self._chunk(row, 0, check=check)))

    def read_window_into(self, row: int, window: Window, out: NDArray[Any], *, check: bool) -> None:
        """Decode a part of one image; of tiles only those that it meets.

        Args:
            row: 0 <= row < N.
            window: cells, inside the map and not empty.
            out: (C, bottom - top, right - left) of the array's type; filled.
            check: whether to compare the checksums of the chunks.

        Raises:
            StoreDamagedError: as `read_into`.
        """
        height, width = self._tile
        for down in range(window.top // height, (window.bottom - 1) // height + 1):
            for across in range(window.left // width, (window.right - 1) // width + 1):
                values = self._values(row, down * self._grid[1] + across, check=check)
                top, left = down * height, across * width
                first, last = max(window.top, top), min(window.bottom, top + height)
                start, stop = max(window.left, left), min(window.right, left + width)
                part = values[:, first - top : last - top, start - left : stop - left]
                np.copyto(out[:, first - window.top : last - window.top, start - window.left : stop - window.left], part)

    def encoded(self, row: int) -> Iterator[memoryview]:
        """Chunks of one image as they are stored, without their checksums, which are compared.

        Raises:
            StoreDamagedError: as `read_into`.
        """
        for number in range(self._grid[0] * self._grid[1]):
            yield self._chunk(row, number, check=True)

    def _chunk(self, row: int, number: int, *, check: bool) -> memoryview:
        shard, place = divmod(row, self._per_shard)
        chunk = place * self._grid[0] * self._grid[1] + number
        return self._shard(shard).chunk(chunk, has_crc=self._has_crc, check=check)

    def _values(self, row: int, number: int, *, check: bool) -> NDArray[Any]:
        """A chunk (C, h, w): the mapped bytes themselves, or this thread's scratch, which the next call fills anew."""
        view = self._chunk(row, number, check=check)
        if not self._compressed:
            return self._raw(row, view)
        scratch: NDArray[Any] | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = np.empty(self._chunk_shape, dtype=self._dtype)
        self._decompress(row, view, scratch)
        return scratch

    def _raw(self, row: int, view: memoryview) -> NDArray[Any]:
        if len(view) != self._bytes:
            raise self._odd(row, f"{len(view)} bytes, expected {self._bytes}")
        return np.frombuffer(view, dtype=self._dtype).reshape(self._chunk_shape)

    def _decompress(self, row: int, view: memoryview, out: NDArray[Any]) -> None:
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
