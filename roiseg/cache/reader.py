"""Reading a store: checked when opened, never zeros for what is missing."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import BaseZarrError

from roiseg.cache.layout import IMAGE_ID, check_match, shard_key
from roiseg.cache.mapped import MappedArray
from roiseg.cache.source import FeatureSource
from roiseg.cache.version import CACHE_VERSION
from roiseg.errors import StoreDamagedError, StoreError, StoreMismatchError
from roiseg.files import sha256_file
from roiseg.types import IMAGE, MIRRORED, PLAIN, FeatureSpec, View, Window, array_name


class FeatureStore(FeatureSource):
    """A complete store, opened for reading. Safe to share between threads; reopens itself when pickled."""

    def __init__(self, path: Path, *, checksums: bool = True) -> None:
        """Open a store and see that all of it is there.

        Args:
            path: such as `data/features/train.zarr`.
            checksums: whether every read compares the checksum of its bytes.

        Raises:
            StoreError: no store there.
            StoreMismatchError: written by another version of the format.
            StoreDamagedError: unfinished, a file is missing, a shard has another size, or anything but a shard has other bytes.
        """
        self.path, self.checksums = path, checksums
        try:
            self._group = zarr.open_group(path, mode="r")
        except (FileNotFoundError, BaseZarrError, ValueError) as error:
            raise StoreError(f"{path}: no feature store there ({error}); run `dvc repro extract` or `dvc pull`") from error
        self._attrs: dict[str, Any] = dict(self._group.attrs)
        if self._attrs.get("complete") is not True:
            raise StoreDamagedError(f"{path}: extraction hasn't finished this store; run `dvc repro extract`")
        if self._attrs.get("version") != CACHE_VERSION:
            raise StoreMismatchError(
                f"{path}: format version is {self._attrs.get('version')}, expected {CACHE_VERSION}; run `dvc repro extract`"
            )
        self._check_small()
        self._check_shards()
        self._arrays = {name: self._array(name) for name in self._attrs["shards"]}
        self._mapped = {
            name: MappedArray.open(path / name, [size for size, _ in shards]) for name, shards in self._attrs["shards"].items()
        }

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "checksums": self.checksums}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["path"], checksums=state["checksums"])  # type: ignore[misc]

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self._group.get(name)
        if not isinstance(array, zarr.Array):
            raise StoreDamagedError(f"{self.path}: {name} is no array; restore it with `dvc checkout` or `dvc pull`")
        return array

    def _check_small(self) -> None:
        """Metadata, ids and scales by their contents: zarr would give zeros for what is missing."""
        for name, digest in self._attrs["small"].items():
            file = self.path / name
            if not file.is_file():
                raise StoreDamagedError(f"{file}: is missing; restore it with `dvc checkout` or `dvc pull`")
            if sha256_file(file) != digest:
                raise StoreDamagedError(f"{file}: was changed or cut short; restore it with `dvc checkout` or `dvc pull`")

    def _check_shards(self) -> None:
        for name, shards in self._attrs["shards"].items():
            for number, (size, _) in enumerate(shards):
                self._check_file(self.path / name / shard_key(number), size)

    @staticmethod
    def _check_file(file: Path, size: int) -> None:
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            have = "is missing" if found is None else f"has {found} bytes"
            raise StoreDamagedError(f"{file}: {have}, expected {size} bytes; restore it with `dvc checkout` or `dvc pull`")

    @property
    def shards(self) -> dict[str, list[tuple[int, str]]]:
        """Array -> bytes and SHA-256 of each shard, as they were written."""
        return {name: [(int(size), str(digest)) for size, digest in shards] for name, shards in self._attrs["shards"].items()}

    @property
    def origins(self) -> dict[str, str]:
        """Array -> digest of all that decided its values."""
        return dict(self._attrs["origins"])

    @cached_property
    def per_shard(self) -> int:
        """Images in a shard, the last one aside."""
        array = next(iter(self._arrays.values()))
        return int((array.shards or array.chunks)[0])

    @property
    def saturated(self) -> dict[str, int]:
        """Array -> number of int8 values at the end of the range."""
        return dict(self._attrs["saturated"])

    @property
    def asked(self) -> dict[str, Any]:
        """Fields that the store was asked to be made by."""
        return dict(self._attrs["asked"])

    @property
    def found(self) -> dict[str, Any]:
        """Fields that describe the run that made it."""
        return dict(self._attrs["found"])

    @cached_property
    def image_ids(self) -> NDArray[np.int64]:
        """(N,) COCO ids in row order."""
        return np.asarray(self._array(IMAGE_ID)[:], dtype=np.int64)

    @cached_property
    def views(self) -> tuple[View, ...]:
        """Which ways round the images were seen."""
        return (PLAIN, MIRRORED) if any(name.startswith(f"{MIRRORED}/") for name in self._arrays) else (PLAIN,)

    @cached_property
    def specs(self) -> dict[str, FeatureSpec]:
        """What each layer is, by name."""
        height, width = self._attrs["asked"]["input"]["hw"]
        return {
            name: FeatureSpec(name, channels, (height / rows, width / columns))
            for name, (channels, rows, columns) in self.shapes.items()
        }

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """Layer -> (C, H, W)."""
        arrays = {name: array for name, array in self._arrays.items() if "/" not in name}
        return {name: (array.shape[1], array.shape[2], array.shape[3]) for name, array in arrays.items()}

    @cached_property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """Layer -> stored type."""
        return {name: self._arrays[name].dtype for name in self.layers}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type of the detector's layers."""
        return np.dtype(str(self._attrs["asked"]["dtype"]))

    @cached_property
    def scales(self) -> dict[str, NDArray[np.float32]]:
        """Layer -> (C,) float32 to multiply by: those of int8 layers, and 1/255 for the image."""
        scales = {
            name: np.asarray(self._array(f"{name}_scale")[:], dtype=np.float32)
            for name, dtype in self.dtypes.items()
            if dtype == np.int8
        }
        if IMAGE in self.layers:
            scales[IMAGE] = np.full(self.shapes[IMAGE][0], 1 / 255, dtype=np.float32)
        return scales

    def check(self, want: Mapping[str, Any]) -> None:
        """Refuse the store if it was made by other fields than `want` (a part of `asked`).

        Raises:
            StoreMismatchError: both values of each differing field.
        """
        check_match(str(self.path), self.asked, want)

    def read_into(self, row: int, layer: str, out: NDArray[Any], view: View = PLAIN) -> None:
        """See `FeatureSource`."""
        name = array_name(layer, view)
        _, rows, columns = self.shapes[layer]
        window = Window(0, rows, 0, columns)
        self._check_read(row, layer, window, out)
        mapped = self._mapped[name]
        if mapped is not None:
            mapped.read_into(row, out, check=self.checksums)
        else:
            self._read_through_zarr(row, name, window, out)
        if layer == IMAGE and view == MIRRORED:
            out[...] = out[:, :, ::-1].copy()

    def read_window_into(self, row: int, layer: str, window: Window, out: NDArray[Any], view: View = PLAIN) -> None:
        """See `FeatureSource`."""
        name = array_name(layer, view)
        self._check_read(row, layer, window, out)
        if layer == IMAGE and view == MIRRORED:
            columns = self.shapes[layer][2]
            mirror = Window(window.top, window.bottom, columns - window.right, columns - window.left)
            self.read_window_into(row, layer, mirror, out)
            out[...] = out[:, :, ::-1].copy()
            return
        mapped = self._mapped[name]
        if mapped is not None:
            mapped.read_window_into(row, window, out, check=self.checksums)
        else:
            self._read_through_zarr(row, name, window, out)

    def encoded(self, row: int, array: str) -> Iterator[memoryview]:
        """Chunks of one image as they are stored, without their checksums, which are compared.

        Args:
            row: 0 <= row < N.
            array: name of the array, such as `mirrored/layer_34`.

        Raises:
            StoreError: the array has a layout that this version didn't write.
            StoreDamagedError: as `read_into`.
        """
        mapped = self._mapped[array]
        if mapped is None:
            raise StoreError(f"{self.path}: {array} has a layout that can't be taken over; run `dvc repro extract`")
        return mapped.encoded(row)

    def _check_read(self, row: int, layer: str, window: Window, out: NDArray[Any]) -> None:
        channels, rows, columns = self.shapes[layer]
        if not 0 <= row < len(self):
            raise IndexError(f"{self.path}: row {row} of {layer}, expected 0 to {len(self) - 1}")
        if not (0 <= window.top < window.bottom <= rows and 0 <= window.left < window.right <= columns):
            raise IndexError(f"{self.path}: {window} of {layer}, expected a part of its {rows} rows and {columns} columns")
        shape = (channels, window.bottom - window.top, window.right - window.left)
        if out.shape != shape or out.dtype != self.dtypes[layer] or not out.flags.c_contiguous:
            raise ValueError(
                f"{self.path}: {layer} is read into {out.dtype} {out.shape}, expected a contiguous {self.dtypes[layer]} {shape}"
            )

    def _read_through_zarr(self, row: int, name: str, window: Window, out: NDArray[Any]) -> None:
        """The general way, for any layout that zarr-python reads."""
        array = self._arrays[name]
        file = self.path / name / shard_key(row // (array.shards or array.chunks)[0])
        try:
            out[...] = array[row, :, window.top : window.bottom, window.left : window.right]
        except (ValueError, RuntimeError, OSError) as error:
            raise StoreDamagedError(
                f"{self.path}: row {row} of {name} can't be read ({error}); restore the store with `dvc checkout` or `dvc pull`"
            ) from error
        if not file.is_file():  # zarr gives zeros for a shard that went away since the store was opened
            raise StoreDamagedError(f"{file}: is missing; restore it with `dvc checkout` or `dvc pull`")
