"""The one writer of a store: whole shards, each written aside and renamed, resumable between any two of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from roiseg.cache.layout import IMAGE_ID, check_match, create_layer, create_vector, shard_images, shard_key, small_files
from roiseg.cache.params import CacheParams
from roiseg.cache.shard import write_shard
from roiseg.cache.space import disk_full_is_said
from roiseg.cache.version import CACHE_VERSION
from roiseg.errors import StoreDamagedError
from roiseg.files import sha256_file, write_json
from roiseg.types import CutLayer

Features = Mapping[str, NDArray[Any]]


class StoreWriter:
    """Fills a store shard by shard in a work folder.

    A shard counts as written when its record exists beside the store (`shards/{n}.json`), which happens after its files have
    been renamed and synced; whatever else lies there was cut short and is written again.
    """

    def __init__(
        self,
        folder: Path,
        layers: tuple[CutLayer, ...],
        image_ids: NDArray[np.int64],
        params: CacheParams,
        scales: Mapping[str, NDArray[np.float32]],
        asked: Mapping[str, Any],
        found: Mapping[str, Any],
    ) -> None:
        """Create the store in `folder`, or go on with the one that is there.

        Args:
            folder: work folder of this very extraction.
            layers: what is stored.
            image_ids: (N,) COCO ids in row order.
            params: stored type and codec.
            scales: layer -> (C,) float32 for int8, else empty.
            asked: fields that the store is compared by.
            found: fields that describe the run; compared when going on.

        Raises:
            StoreMismatchError: the folder holds another extraction.
        """
        self._records = folder / "shards"
        self.path = folder / "store.zarr"
        self._layers, self._images, self._params = layers, len(image_ids), params
        self.per_shard = shard_images(layers, params.dtype, params.shard_mib, self._images)
        self.count = -(-self._images // self.per_shard)
        made = folder / "made.json"
        described: dict[str, Any] = {"asked": dict(asked), "found": dict(found), "version": CACHE_VERSION}
        if made.is_file():
            check_match(str(self.path), json.loads(made.read_text()), described)
        else:
            self._create(layers, image_ids, params, scales)
            write_json(made, described)
        self._described = described
        self._records.mkdir(exist_ok=True)
        for torn in list(folder.rglob("*.partial")):
            torn.unlink()
        self._group = zarr.open_group(self.path, mode="r+")

    def _create(
        self,
        layers: tuple[CutLayer, ...],
        image_ids: NDArray[np.int64],
        params: CacheParams,
        scales: Mapping[str, NDArray[np.float32]],
    ) -> None:
        group = zarr.open_group(self.path, mode="w", zarr_format=3)
        for layer in layers:
            create_layer(group, layer, self._images, self.per_shard, params)
            if layer.name in scales:
                create_vector(group, f"{layer.name}_scale", scales[layer.name], "channel")
        create_vector(group, IMAGE_ID, image_ids, "image")

    def rows(self, shard: int) -> range:
        """Rows that a shard holds."""
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, self._images))

    def missing(self) -> list[int]:
        """Shards that are yet to be written, in order."""
        return [number for number in range(self.count) if not (self._records / f"{number}.json").is_file()]

    def write(self, shard: int, features: Features) -> None:
        """Write all layers of a shard.

        Args:
            shard: its number.
            features: layer -> (rows of the shard, C, H, W) of the stored type.
        """
        record = {}
        for layer in self._layers:
            file = self.path / layer.name / shard_key(shard)
            with disk_full_is_said(file):
                record[layer.name] = list(write_shard(file, features[layer.name], self.per_shard, self._params))
        write_json(self._records / f"{shard}.json", record, indent=None)

    def finish(self) -> dict[str, int]:
        """Check that every shard is there as it was written, and mark the store complete.

        Returns:
            Bytes stored, by layer.

        Raises:
            StoreDamagedError: a shard is missing or has another size.
        """
        shards: dict[str, list[Any]] = {layer.name: [] for layer in self._layers}
        for number in range(self.count):
            record = json.loads((self._records / f"{number}.json").read_text())
            for name, (size, digest) in record.items():
                file = self.path / name / shard_key(number)
                if not file.is_file() or file.stat().st_size != size:
                    (self._records / f"{number}.json").unlink()
                    raise StoreDamagedError(f"{file}: not the {size} bytes that were written; run again, it is made anew")
                shards[name].append([size, digest])
        vectors = [IMAGE_ID, *(f"{layer.name}_scale" for layer in self._layers if f"{layer.name}_scale" in self._group)]
        small = {name: sha256_file(self.path / name) for name in small_files((layer.name for layer in self._layers), vectors)}
        self._group.attrs.update({**self._described, "shards": shards, "small": small})
        self._group.attrs["complete"] = True
        return {name: sum(size for size, _ in entries) for name, entries in shards.items()}
