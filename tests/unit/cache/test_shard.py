"""Tests of roiseg.cache.shard: the bytes are those that zarr-python writes, and half a shard is none."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from onnx_factory import cache_params

from roiseg.cache import shard
from roiseg.cache.layout import create_layer, shard_key
from roiseg.cache.params import CacheParams
from roiseg.cache.shard import Encoder, ShardFile
from roiseg.types import StoredArray


def write_shard(file: Path, values: NDArray[Any], places: int, params: CacheParams) -> tuple[int, str]:
    encoder = Encoder(params, values.dtype.itemsize, (values.shape[2], values.shape[3]))
    shard = ShardFile(file, places * encoder.per_image)
    try:
        for item in values:
            for chunk in encoder.encode(item):
                shard.append(chunk)
        return shard.close()
    finally:
        shard.abandon()


@pytest.mark.parametrize("images", [1, 3, 4], ids=lambda count: f"{count} of 4")
@pytest.mark.parametrize("shuffle", ["noshuffle", "shuffle", "bitshuffle"])
@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_the_bytes_are_zarrs(tmp_path: Path, dtype: str, codec: str, shuffle: str, images: int) -> None:
    params = cache_params(dtype=dtype, codec=codec, shuffle=shuffle, level=3)
    rng = np.random.default_rng(0)
    values = (rng.integers(-9, 10, (images, 5, 6, 40)) * (rng.random((images, 5, 6, 40)) < 0.3)).astype(dtype)
    values[0] = 0
    group = zarr.open_group(tmp_path / "zarr", mode="w", zarr_format=3)
    create_layer(group, StoredArray("a", 5, (6, 40), dtype), images, 4, params)
    array = group["a"]
    assert isinstance(array, zarr.Array)
    array.with_config({"write_empty_chunks": True})[:] = values
    size, digest = write_shard(tmp_path / "ours", values, 4, params)
    ours = (tmp_path / "ours").read_bytes()
    assert ours == (tmp_path / "zarr/a" / shard_key(0)).read_bytes()
    assert (size, digest) == (len(ours), hashlib.sha256(ours).hexdigest())


def test_a_shard_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c").write_bytes(b"torn")
    seen = []

    def broken(data: bytes) -> bytes:
        seen.append(data)
        if len(seen) == 2:
            raise MemoryError
        return b"\0\0\0\0"

    monkeypatch.setattr(shard, "crc32c", broken)
    with pytest.raises(MemoryError):
        write_shard(tmp_path / "c", np.zeros((3, 1, 2, 2), np.int8), 3, cache_params(dtype="int8"))
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert (tmp_path / "c").read_bytes() == b"torn"


@pytest.mark.parametrize("codec", ["none", "lz4"])
@pytest.mark.parametrize("tile", [(6, 40), (2, 8), (4, 16), (5, 7), (1, 100)])
def test_zarr_reads_tiles(tmp_path: Path, codec: str, tile: tuple[int, int]) -> None:
    """Tiles that don't divide the map reach beyond it."""
    params = cache_params(dtype="int8", codec=codec, tile_hw=list(tile))
    values = np.random.default_rng(0).integers(-9, 10, (3, 5, 6, 40)).astype(np.int8)
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    create_layer(group, StoredArray("a", 5, (6, 40), "int8"), 3, 4, params)
    write_shard(tmp_path / "a" / shard_key(0), values, 4, params)
    array = group["a"]
    assert isinstance(array, zarr.Array)
    assert array.chunks == (1, 5, tile[0], min(tile[1], 40))
    np.testing.assert_array_equal(array[:], values)
