"""The one writer of a store: image by image into shards that are written aside and renamed, resumable between any two of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from roiseg.cache.layout import IMAGE_ID, check_match, create_layer, create_vector, shard_images, shard_key, small_files
from roiseg.cache.params import CacheParams
from roiseg.cache.shard import Encoder, ShardFile
from roiseg.cache.space import disk_full_is_said
from roiseg.cache.version import CACHE_VERSION
from roiseg.errors import StoreDamagedError
from roiseg.files import sha256_file, write_json
from roiseg.types import INT8_MAX, StoredArray

Features = Mapping[str, NDArray[Any]]


class StoreWriter:
    """Fills a store shard by shard in a work folder.

    A shard counts as written when its record exists beside the store (`shards/{n}.json`), which happens after its files have
    been renamed and synced; whatever else lies there was cut short and is written again. Arrays that are taken over from another
    store (`roiseg.cache.reuse`) have a record of their own, `adopted/{array}.json`, and no part in the others.

    Attributes:
        saturated: number of int8 values at the end of their range, over all arrays; set by `finish`.
    """

    def __init__(
        self,
        folder: Path,
        arrays: Sequence[StoredArray],
        image_ids: NDArray[np.int64],
        params: CacheParams,
        scales: Mapping[str, NDArray[np.float32]],
        asked: Mapping[str, Any],
        found: Mapping[str, Any],
    ) -> None:
        """Create the store in `folder`, or go on with the one that is there.

        Args:
            folder: work folder of this very extraction.
            arrays: what is stored.
            image_ids: (N,) COCO ids in row order.
            params: codec, tiles and size of shards.
            scales: layer -> (C,) float32 for int8, else empty.
            asked: fields that the store is compared by.
            found: fields that describe the run; compared when going on.

        Raises:
            StoreMismatchError: the folder holds another extraction.
        """
        self._records, self._adopted = folder / "shards", folder / "adopted"
        self.path = folder / "store.zarr"
        self.arrays, self._images = tuple(arrays), len(image_ids)
        self._encoders = {item.name: Encoder(params, np.dtype(item.dtype).itemsize, item.hw) for item in arrays}
        self.per_shard = shard_images(arrays, params.shard_mib, self._images)
        self.count = -(-self._images // self.per_shard)
        made = folder / "made.json"
        described: dict[str, Any] = {"asked": dict(asked), "found": dict(found), "version": CACHE_VERSION}
        described["origins"] = {array.name: array.origin for array in arrays}
        if made.is_file():
            check_match(str(self.path), json.loads(made.read_text()), described)
        else:
            self._create(image_ids, params, scales)
            write_json(made, described)
        self._described, self.saturated = described, 0
        for records in (self._records, self._adopted):
            records.mkdir(exist_ok=True)
        for torn in list(folder.rglob("*.partial")):
            torn.unlink()
        self._group = zarr.open_group(self.path, mode="r+")

    def _create(self, image_ids: NDArray[np.int64], params: CacheParams, scales: Mapping[str, NDArray[np.float32]]) -> None:
        group = zarr.open_group(self.path, mode="w", zarr_format=3)
        for array in self.arrays:
            create_layer(group, array, self._images, self.per_shard, params)
            if array.name in scales:
                create_vector(group, f"{array.name}_scale", scales[array.name], "channel")
        create_vector(group, IMAGE_ID, image_ids, "image")

    def rows(self, shard: int) -> range:
        """Rows that a shard holds."""
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, self._images))

    def missing(self) -> list[int]:
        """Shards that are yet to be written, in order."""
        wanted = {array.name for array in self.computed}
        return [number for number in range(self.count) if not wanted <= self._record(number).keys()]

    def _record(self, shard: int) -> dict[str, list[Any]]:
        file = self._records / f"{shard}.json"
        return dict(json.loads(file.read_text())) if file.is_file() else {}

    @property
    def begun(self) -> bool:
        """Whether any shard has been written, so that it is settled which arrays are adopted."""
        return any(self._records.iterdir())

    def _adoption(self, name: str) -> Path:
        return self._adopted / f"{name.replace('/', '.')}.json"

    def adopt(self, name: str, shards: Sequence[tuple[int, str]], saturated: int) -> None:
        """Note that all shards of an array have been put in their places by somebody else.

        Args:
            name: of the array.
            shards: bytes and SHA-256 of each.
            saturated: number of its values at the end of the range.
        """
        write_json(self._adoption(name), {"shards": [list(entry) for entry in shards], "saturated": saturated}, indent=None)

    @property
    def computed(self) -> list[StoredArray]:
        """Arrays that shards are written of: those that aren't adopted."""
        return [array for array in self.arrays if not self._adoption(array.name).is_file()]

    def open_file(self, name: str, shard: int) -> ShardFile:
        """Begin one file of a shard."""
        return ShardFile(self.path / name / shard_key(shard), self.per_shard * self._encoders[name].per_image)

    def open_shard(self, shard: int) -> "OpenShard":
        """Begin a shard, to be filled row by row."""
        files = {array.name: self.open_file(array.name, shard) for array in self.computed}
        return OpenShard(files, self._encoders, self._records / f"{shard}.json")

    def write(self, shard: int, features: Features) -> None:
        """Write all arrays of a shard at once.

        Args:
            shard: its number.
            features: array -> (rows of the shard, C, H, W) of the stored type.
        """
        with self.open_shard(shard) as opened:
            for place in range(len(self.rows(shard))):
                opened.append({name: values[place] for name, values in features.items()})
            opened.close()

    def _recorded(self) -> tuple[dict[str, list[list[Any]]], dict[str, int]]:
        """Array -> bytes and SHA-256 of each shard, as they were written; and its saturated values."""
        records = [self._record(number) for number in range(self.count)]
        shards: dict[str, list[list[Any]]] = {}
        saturated: dict[str, int] = {}
        for array in self.arrays:
            adoption = self._adoption(array.name)
            if adoption.is_file():
                taken = json.loads(adoption.read_text())
                shards[array.name], saturated[array.name] = taken["shards"], taken["saturated"]
            else:
                shards[array.name] = [record[array.name][:2] for record in records]
                saturated[array.name] = sum(record[array.name][2] for record in records)
        return shards, saturated

    def finish(self) -> dict[str, int]:
        """Check that every shard is there as it was written, and mark the store complete; `saturated` is known from then on.

        Returns:
            Bytes stored, by array.

        Raises:
            StoreDamagedError: a shard is missing or has another size.
        """
        shards, saturated = self._recorded()
        for name, entries in shards.items():
            for number, (size, _) in enumerate(entries):
                file = self.path / name / shard_key(number)
                if not file.is_file() or file.stat().st_size != size:
                    for record in (self._records / f"{number}.json", self._adoption(name)):
                        record.unlink(missing_ok=True)
                    raise StoreDamagedError(f"{file}: not the {size} bytes that were written; run again, it is made anew")
        names = [array.name for array in self.arrays]
        vectors = [IMAGE_ID, *(f"{name}_scale" for name in names if f"{name}_scale" in self._group)]
        small = {name: sha256_file(self.path / name) for name in small_files(names, vectors)}
        self._group.attrs.update({**self._described, "shards": shards, "saturated": saturated, "small": small})
        self._group.attrs["complete"] = True
        self.saturated = sum(saturated.values())
        return {name: sum(size for size, _ in entries) for name, entries in shards.items()}


def saturated_values(values: NDArray[Any]) -> int:
    """Number of int8 values at either end of the range; 0 for other types, which have no such ends."""
    if values.dtype != np.int8:
        return 0
    return int(np.count_nonzero(values == INT8_MAX) + np.count_nonzero(values == -INT8_MAX))


class OpenShard:
    """A shard that is being filled; as a context manager it leaves nothing behind unless it was closed."""

    def __init__(self, files: Mapping[str, ShardFile], encoders: Mapping[str, Encoder], record: Path) -> None:
        """Hold the files of a shard.

        Args:
            files: array -> its file.
            encoders: array -> how its images become chunks.
            record: written once all files are in their places.
        """
        self._files, self._encoders, self._record = files, encoders, record
        self._saturated = dict.fromkeys(files, 0)

    def __enter__(self) -> Self:
        """The shard itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was not closed."""
        self.abandon()

    def append(self, features: Features) -> None:
        """Write the next image.

        Args:
            features: array -> (C, H, W) of the stored type; all arrays that are computed.

        Raises:
            DiskSpaceError: the disk is full.
        """
        for name, file in self._files.items():
            with disk_full_is_said(file.path):
                for chunk in self._encoders[name].encode(features[name]):
                    file.append(chunk)
            self._saturated[name] += saturated_values(features[name])

    def close(self) -> None:
        """Put all files in their places, then the record that says so.

        Raises:
            DiskSpaceError: the disk is full.
        """
        entries = {}
        for name, file in self._files.items():
            with disk_full_is_said(file.path):
                entries[name] = [*file.close(), self._saturated[name]]
        with disk_full_is_said(self._record):
            write_json(self._record, entries, indent=None)

    def abandon(self) -> None:
        """Leave nothing behind of a shard that isn't closed."""
        for file in self._files.values():
            file.abandon()
