"""What a store looks like, and what makes two stores the same.

{split}.zarr        Zarr v3 group; attributes: version, asked, found, shards, small, complete
layer_34          (N, C, H, W) float16 or int8; inner chunk one image; shard many images; keys `c.0.0.0.0`
layer_34_scale    (C,) float32, only beside int8: value = q * scale
image_id          (N,) int64; row order of the index
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

from roiseg.cache.params import CacheParams
from roiseg.errors import StoreMismatchError
from roiseg.types import CutLayer, StoredType

MIB = 2**20
IMAGE_ID = "image_id"
VECTOR_KEY = "c.0"


def shard_images(layers: tuple[CutLayer, ...], dtype: StoredType, shard_mib: int, images: int) -> int:
    """Images in a shard: as many as keep the largest layer's shard within `shard_mib`, at least one."""
    per_image = max(layer.channels * layer.hw[0] * layer.hw[1] for layer in layers) * np.dtype(dtype).itemsize
    return max(1, min(shard_mib * MIB // per_image, images))


def create_layer(group: zarr.Group, layer: CutLayer, images: int, per_shard: int, params: CacheParams) -> None:
    """Make the empty array of one layer.

    Every inner chunk ends in a CRC-32C, so that flipped bits are found on read.
    """
    dtype = np.dtype(params.dtype)
    compressors: list[Any] = []
    if params.codec != "none":
        compressors.append(BloscCodec(typesize=dtype.itemsize, cname=params.codec, clevel=params.level, shuffle=params.shuffle))
    group.create_array(
        layer.name,
        shape=(images, layer.channels, *layer.hw),
        dtype=dtype,
        chunks=(1, layer.channels, *layer.hw),
        shards=(per_shard, layer.channels, *layer.hw),
        serializer=BytesCodec(),
        compressors=[*compressors, Crc32cCodec()],
        filters=None,
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=("image", "channel", "y", "x"),
        attributes={"tensor": layer.tensor},
    )


def create_vector(group: zarr.Group, name: str, values: np.ndarray[Any, Any], dimension: str) -> None:
    """Write a small one-dimensional array in one plain chunk."""
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=values.shape,
        compressors=None,
        filters=None,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=(dimension,),
        config={"write_empty_chunks": True},
    )
    array[:] = values


def shard_key(number: int) -> str:
    """File name of a shard inside its array's folder."""
    return f"c.{number}.0.0.0"


def small_files(layers: Iterable[str], vectors: Iterable[str]) -> list[str]:
    """Files of a store that hold no features: metadata of each array, and the values of each vector."""
    arrays = [*layers, *vectors]
    return [*(f"{name}/zarr.json" for name in arrays), *(f"{name}/{VECTOR_KEY}" for name in vectors)]


def differences(have: Mapping[str, Any], want: Mapping[str, Any], prefix: str = "") -> list[str]:
    """A line per field of `want` that `have` holds otherwise, with both values."""
    lines: list[str] = []
    for key, value in want.items():
        found = have.get(key)
        if isinstance(value, Mapping) and isinstance(found, Mapping):
            lines += differences(found, value, f"{prefix}{key}.")
            lines += [
                f"{prefix}{key}.{extra}: store has {found[extra]!r}, asked for nothing" for extra in found if extra not in value
            ]
        elif found != value:
            lines.append(f"{prefix}{key}: store has {found!r}, asked for {value!r}")
    return lines


def check_match(store: str, have: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    """Refuse a store that was made with other settings.

    Args:
        store: its path, for the message.
        have: fields recorded in the store.
        want: fields asked for now; fields that only the store has are not compared.

    Raises:
        StoreMismatchError: both values of each differing field.
    """
    lines = differences(have, want)
    if lines:
        raise StoreMismatchError(
            f"{store}: was made with other settings:\n  "
            + "\n  ".join(lines)
            + "\nrun `dvc repro`, which makes it anew, or set the params back"
        )
