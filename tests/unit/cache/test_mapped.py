"""Tests of roiseg.cache.mapped: the fast way gives what zarr-python gives, for every form, and goes out of the way of the rest."""

import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_factory import cache_params
from zarr.codecs import BytesCodec, GzipCodec

from roiseg.cache import mapped
from roiseg.cache.layout import create_layer, shard_key
from roiseg.cache.mapped import MappedArray
from roiseg.errors import StoreDamagedError
from roiseg.types import StoredArray, Window

Dtype = Literal["float16", "int8", "uint8"]


def values_of(shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[Any]:
    """Runs and noise, as features have them."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-20, 21, shape) * (rng.random(shape) < 0.4)
    return values.astype(dtype)


def write(folder: Path, values: NDArray[Any], per_shard: int, **cache: object) -> zarr.Array[Any]:
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    layer = StoredArray("a", values.shape[1], (values.shape[2], values.shape[3]), str(values.dtype))
    create_layer(group, layer, len(values), per_shard, cache_params(**cache))
    array = group["a"]
    assert isinstance(array, zarr.Array)
    array.with_config({"write_empty_chunks": True})[:] = values
    return array


def open_mapped(folder: Path) -> MappedArray | None:
    files = sorted((folder / "a").glob("c.*"), key=lambda path: int(path.name.split(".")[1]))
    return MappedArray.open(folder / "a", [file.stat().st_size for file in files])


@given(
    dtype=st.sampled_from(["float16", "int8", "uint8"]),
    codec=st.sampled_from(["none", "lz4", "zstd"]),
    shuffle=st.sampled_from(["noshuffle", "shuffle", "bitshuffle"]),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 11), st.integers(1, 13)),
    per_shard=st.integers(1, 7),
    tile=st.none() | st.tuples(st.integers(1, 12), st.integers(1, 14)),
    check=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equal_to_zarr_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: Dtype,
    codec: str,
    shuffle: str,
    shape: tuple[int, int, int, int],
    per_shard: int,
    tile: tuple[int, int] | None,
    check: bool,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("store")
    values = values_of(shape, dtype, seed)
    array = write(folder, values, min(per_shard, shape[0]), codec=codec, shuffle=shuffle, tile_hw=tile)
    fast = open_mapped(folder)
    assert fast is not None
    out = np.full(shape[1:], 99, dtype=dtype)
    for row in range(shape[0]):
        fast.read_into(row, out, check=check)
        assert out.tobytes() == np.asarray(array[row]).tobytes() == values[row].tobytes()
    rng = np.random.default_rng(seed)
    for row in range(shape[0]):
        window = a_window(rng, shape[2], shape[3])
        part = np.full((shape[1], window.bottom - window.top, window.right - window.left), 99, dtype=dtype)
        fast.read_window_into(row, window, part, check=check)
        through_zarr = np.asarray(array[row, :, window.top : window.bottom, window.left : window.right])
        assert part.tobytes() == through_zarr.tobytes()
        assert b"".join(map(bytes, fast.encoded(row)))


def a_window(rng: np.random.Generator, rows: int, columns: int) -> Window:
    """A random part of a map, often all of it in one direction."""
    top, bottom = sorted(rng.choice(rows + 1, 2, replace=False).tolist())
    left, right = sorted(rng.choice(columns + 1, 2, replace=False).tolist())
    return Window(top, bottom, left, right)


def test_a_window_reads_only_its_tiles(tmp_path: Path) -> None:
    """A tile outside the window may be broken; one inside may not."""
    values = values_of((2, 3, 8, 12), "int8", 1)
    write(tmp_path, values, 2, codec="none", tile_hw=(4, 4))
    fast = open_mapped(tmp_path)
    assert fast is not None
    file = tmp_path / "a" / shard_key(0)
    place = file.read_bytes().index(values[1, :, 4:8, 8:12].tobytes())
    spoil(file, place, bytes([values[1, 0, 4, 8].item() & 255 ^ 1]))
    fast = open_mapped(tmp_path)
    assert fast is not None
    part = np.empty((3, 8, 8), np.int8)
    fast.read_window_into(1, Window(0, 8, 0, 8), part, check=True)
    np.testing.assert_array_equal(part, values[1, :, :, :8])
    with pytest.raises(StoreDamagedError, match=r"chunk \d+ fails its checksum"):
        fast.read_window_into(1, Window(7, 8, 8, 9), np.empty((3, 1, 1), np.int8), check=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"chunks": (1, 2, 6, 8)},
        {"chunks": (2, 4, 6, 8)},
        {"compressors": [GzipCodec()]},
        {"serializer": BytesCodec(endian="big")},
        {"shards": None, "chunks": (1, 4, 6, 8)},
    ],
    ids=["parts of the channels", "two images a chunk", "another codec", "big endian", "no shards"],
)
def test_other_layouts_are_left_to_zarr(tmp_path: Path, changes: dict[str, Any]) -> None:
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    layout: dict[str, Any] = {"chunks": (1, 4, 6, 8), "shards": (4, 4, 6, 8), "compressors": None, **changes}
    group.create_array("a", shape=(8, 4, 6, 8), dtype="float16", **layout)
    assert MappedArray.open(tmp_path / "a", []) is None


def test_few_shards_are_mapped_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process has about a thousand file descriptors, and a large store more shards than that."""
    monkeypatch.setattr(mapped, "MAX_MAPS", 3)
    values = values_of((40, 2, 3, 4), "int8", 0)
    write(tmp_path, values, 1, codec="none")
    fast = open_mapped(tmp_path)
    assert fast is not None
    out = np.empty((2, 3, 4), np.int8)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a pseudo file system
    for row in [*range(40), 0, 39]:
        fast.read_into(row, out, check=True)
        np.testing.assert_array_equal(out, values[row])
    assert len(os.listdir("/proc/self/fd")) <= before + 3  # noqa: PTH208


def test_a_forked_child_reads(tmp_path: Path) -> None:
    values = values_of((4, 2, 30, 40), "int8", 0)
    write(tmp_path, values, 2, codec="lz4")
    fast = open_mapped(tmp_path)
    assert fast is not None
    out = np.empty((2, 30, 40), np.int8)
    fast.read_into(0, out, check=True)
    child = os.fork()
    if not child:
        fast.read_into(3, out, check=True)
        os._exit(0 if (out == values[3]).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def spoil(file: Path, position: int, data: bytes) -> None:
    whole = bytearray(file.read_bytes())
    start = position % len(whole)
    whole[start : start + len(data)] = data
    file.write_bytes(bytes(whole))


@pytest.mark.parametrize("check", [True, False])
def test_a_frame_of_another_size_never_leaves_the_buffer(tmp_path: Path, check: bool) -> None:
    """Without checksums too: the frame's own header says how much it would write."""
    write(tmp_path, values_of((2, 4, 20, 20), "int8", 0), 2, codec="lz4", shuffle="noshuffle")
    spoil(tmp_path / "a" / shard_key(0), 4, (10**9).to_bytes(4, "little"))
    fast = open_mapped(tmp_path)
    assert fast is not None
    message = "chunk 0 fails its checksum" if check else r"row 0 can't be decoded \(its frame of \d+ bytes states other sizes"
    with pytest.raises(StoreDamagedError, match=message):
        fast.read_into(0, np.empty((4, 20, 20), np.int8), check=check)


def test_a_shard_of_another_size(tmp_path: Path) -> None:
    write(tmp_path, values_of((2, 1, 2, 2), "int8", 0), 2, codec="none")
    size = (tmp_path / "a" / shard_key(0)).stat().st_size
    fast = MappedArray.open(tmp_path / "a", [size + 1])
    assert fast is not None
    with pytest.raises(StoreDamagedError, match=rf"has {size} bytes, expected {size + 1}; restore it"):
        fast.read_into(0, np.empty((1, 2, 2), np.int8), check=True)


def test_an_index_that_points_outside(tmp_path: Path) -> None:
    """Only with a forged checksum; no read may leave the file even then."""
    import google_crc32c

    write(tmp_path, values_of((1, 1, 2, 2), "int8", 0), 1, codec="none")
    file = tmp_path / "a" / shard_key(0)
    index = (10**6).to_bytes(8, "little") + (8).to_bytes(8, "little")
    spoil(file, -20, index + google_crc32c.value(index).to_bytes(4, "little"))
    fast = open_mapped(tmp_path)
    assert fast is not None
    with pytest.raises(StoreDamagedError, match="chunk 0 lies at 1000000 to 1000008, outside the file"):
        fast.read_into(0, np.empty((1, 2, 2), np.int8), check=True)


@pytest.mark.parametrize("codec", ["none", "lz4"])
@pytest.mark.parametrize("tile", [None, (2, 3)], ids=["whole", "tiles"])
def test_every_flipped_bit_is_found(tmp_path: Path, codec: str, tile: tuple[int, int] | None) -> None:
    """Each single bit of a shard and of its index: some row fails, and no row gives other values."""
    values = values_of((3, 2, 3, 4), "int8", 3)
    write(tmp_path, values, 3, codec=codec, shuffle="noshuffle", tile_hw=tile)
    file = tmp_path / "a" / shard_key(0)
    whole = file.read_bytes()
    missed = []
    for bit in range(8 * len(whole)):
        torn = bytearray(whole)
        torn[bit // 8] ^= 1 << bit % 8
        file.write_bytes(bytes(torn))
        fast = open_mapped(tmp_path)
        assert fast is not None
        failed = 0
        for row in range(3):
            out = np.empty((2, 3, 4), np.int8)
            try:
                fast.read_into(row, out, check=True)
            except StoreDamagedError:
                failed += 1
            else:
                np.testing.assert_array_equal(out, values[row])
        if not failed:
            missed.append(bit)
    assert not missed


def test_metadata_says_what_is_mapped(tmp_path: Path) -> None:
    write(tmp_path, values_of((2, 1, 2, 2), "float16", 0), 2, codec="zstd", shuffle="bitshuffle")
    inner = json.loads((tmp_path / "a/zarr.json").read_text())["codecs"][0]["configuration"]["codecs"]
    assert [codec["name"] for codec in inner] == ["bytes", "blosc", "crc32c"]
    assert inner[1]["configuration"]["cname"] == "zstd"
