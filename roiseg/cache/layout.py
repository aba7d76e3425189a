"""What a store looks like, and what makes two stores the same.

{split}.zarr          Zarr v3 group; attributes: version, asked, found, origins, shards, saturated, small, complete
layer_34            (N, C, H, W) float16 or int8; inner chunk one image or a tile of it; shard many images; keys `c.0.0.0.0`
layer_34_scale      (C,) float32, only beside int8: value = q * scale, in every view
mirrored/layer_34   the same of the mirrored images, where `cache.views` has them
image               (N, 3, Hin, Win) uint8 RGB, the network input, where `cache.image` is set
image_id            (N,) int64; row order of the index
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

from roiseg.cache.params import CacheParams
from roiseg.errors import StoreMismatchError
from roiseg.types import HW, IMAGE, CutLayer, StoredArray, array_name

MIB = 2**20
IMAGE_ID = "image_id"
VECTOR_KEY = "c.0"


def stored_arrays(
    layers: Sequence[CutLayer], input_hw: HW, params: CacheParams, origins: Mapping[str, str] | None = None
) -> tuple[StoredArray, ...]:
    """The arrays of a store: every layer in every view, then the image.

    Args:
        layers: what the detector gives.
        input_hw: size of its input.
        params: stored type, views, and whether images are kept.
        origins: array -> digest of what decides its values.
    """
    arrays = [
        StoredArray(array_name(layer.name, view), layer.channels, layer.hw, params.dtype, attributes={"tensor": layer.tensor})
        for view in params.views
        for layer in layers
    ]
    if params.image:
        arrays.append(StoredArray(IMAGE, 3, input_hw, "uint8", attributes={"color": "rgb"}))
    return tuple(replace(array, origin=(origins or {}).get(array.name, "")) for array in arrays)


def shard_images(arrays: Sequence[StoredArray], shard_mib: int, images: int) -> int:
    """Images in a shard: as many as keep the largest array's shard within `shard_mib`, at least one."""
    per_image = max(int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize for array in arrays)
    return max(1, min(shard_mib * MIB // per_image, images))


def tile_of(hw: HW, tile_hw: HW | None) -> HW:
    """Cells of an inner chunk: the whole map without tiles, and never more than that."""
    return hw if tile_hw is None else (min(tile_hw[0], hw[0]), min(tile_hw[1], hw[1]))


def create_layer(group: zarr.Group, array: StoredArray, images: int, per_shard: int, params: CacheParams) -> None:
    """Make an empty array of maps.

    Every inner chunk ends in a CRC-32C, so that flipped bits are found on read.
    """
    dtype = np.dtype(array.dtype)
    compressors: list[Any] = []
    if params.codec != "none":
        compressors.append(BloscCodec(typesize=dtype.itemsize, cname=params.codec, clevel=params.clevel, shuffle=params.shuffle))
    tile = tile_of(array.hw, params.tile_hw)
    # Zarr wants whole inner chunks, so a shard of tiles may reach beyond the map; zeros are stored there.
    whole = (-(-array.hw[0] // tile[0]) * tile[0], -(-array.hw[1] // tile[1]) * tile[1])
    *folders, _ = array.name.split("/")
    for folder in folders:
        group.require_group(folder)
    group.create_array(
        array.name,
        shape=(images, *array.shape),
        dtype=dtype,
        chunks=(1, array.channels, *tile),
        shards=(per_shard, array.channels, *whole),
        serializer=BytesCodec(),
        compressors=[*compressors, Crc32cCodec()],
        filters=None,
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=("image", "channel", "y", "x"),
        attributes=dict(array.attributes),
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


def small_files(arrays: Iterable[str], vectors: Iterable[str]) -> list[str]:
    """Files of a store that hold no features: metadata of groups and arrays, and the values of each vector."""
    arrays, vectors = list(arrays), list(vectors)
    groups = sorted({name.rpartition("/")[0] for name in arrays} - {""})
    described = [*groups, *arrays, *vectors]
    return [*(f"{name}/zarr.json" for name in described), *(f"{name}/{VECTOR_KEY}" for name in vectors)]


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
