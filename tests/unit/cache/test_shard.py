"""Tests of roiseg.cache.shard: the bytes are those that zarr-python writes, and half a shard is none."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import zarr
from onnx_factory import cache_params

from roiseg.cache import shard
from roiseg.cache.layout import create_layer, shard_key
from roiseg.cache.shard import write_shard
from roiseg.types import CutLayer


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
    create_layer(group, CutLayer("a", "/a", 5, (6, 40)), images, 4, params)
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
