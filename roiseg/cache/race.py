"""How fast a store is read: every way of reading it against copying raw float16, in one run.

A time alone means little on a machine that others use, so sides take turns and the medians of the rounds are compared. The limit is
what no format can beat: as many raw float16 values, mapped from a file, copied into a buffer that is used again.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from roiseg.cache.reader import FeatureStore
from roiseg.errors import DiskSpaceError, StoreError
from roiseg.params import nearest
from roiseg.progress import progress
from roiseg.work import WORK

Run = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)

LIMIT = "memmap copy"
ROUNDS = 7


def race(sides: Mapping[Name, Run], rounds: int, tick: Callable[[], object] | None = None) -> dict[Name, float]:
    """Let sides take turns, so that a noisy machine disturbs all alike.

    Args:
        sides: name -> one whole run of it.
        rounds: runs of each.
        tick: called after each run.

    Returns:
        Name -> median seconds of a run.
    """
    taken: dict[Name, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            began = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - began)
            if tick is not None:
                tick()
    return {name: statistics.median(times) for name, times in taken.items()}


def reading(read: Callable[[int], object], rows: Iterable[int]) -> Run:
    """A run that reads each of `rows`, one after the other."""
    order = list(rows)

    def run() -> None:
        for row in order:
            read(row)

    return run


def copying(raw: NDArray[np.float16], rows: Iterable[int]) -> Run:
    """The limit: images of a mapped (N, C, H, W) into a buffer that is used again."""
    buffer = np.empty(raw.shape[1:], np.float16)
    return reading(lambda row: np.copyto(buffer, raw[row]), rows)


def readers(path: Path, layer: str, rows: Iterable[int]) -> dict[str, Run]:
    """Ways to read a layer: this package's with and without checksums, and zarr-python's.

    Args:
        path: a complete store.
        layer: name.
        rows: rows in the order in which each side reads them.
    """
    order = list(rows)
    sides: dict[str, Run] = {}
    for name, checksums in (("roiseg", True), ("roiseg, no checksums", False)):
        store = FeatureStore(path, checksums=checksums)
        out = np.empty(store.shapes[layer], store.dtypes[layer])
        sides[name] = reading(partial(store.read_into, layer=layer, out=out), order)
    array = zarr.open_array(path / layer, mode="r")
    sides["zarr-python"] = reading(lambda row: array[row], order)
    return sides


def race_store(path: Path, layer: str | None, images: int, work: Path = WORK) -> Iterator[str]:
    """Race the readers over a store as it lies there: whole images in random order, one thread, page cache warm.

    Args:
        path: such as `data/features/train.zarr`.
        layer: name of one layer, or None for each of them.
        images: how many are read; all where the store has fewer.
        work: folder, made if it isn't there, for the raw file of the limit, which goes away again.

    Yields:
        A line on the whole, one on each layer, one on each side of it: images/s, GB/s, share of the limit's speed.

    Raises:
        StoreError, StoreDamagedError, StoreMismatchError: as `FeatureStore`; or it has no such layer.
        DiskSpaceError: no room for the raw file.
    """
    store = FeatureStore(path)
    if layer is not None and layer not in store.shapes:
        raise StoreError(f"{path}: no layer {layer!r}; {nearest(layer, store.shapes)}")
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(store))[:images]
    yield (
        f"{path}: {len(rows)} images in random order, one thread, median of {ROUNDS} rounds; "
        f"GB/s of values counted as float16, 1.00 = {LIMIT} of raw float16"
    )
    work.mkdir(parents=True, exist_ok=True)
    for name in [layer] if layer is not None else list(store.shapes):
        shape = store.shapes[name]
        size = int(np.prod(shape)) * np.dtype(np.float16).itemsize
        with tempfile.TemporaryDirectory(dir=work) as folder:
            raw = _raw(Path(folder) / "raw", store, name, rows)
            sides = {LIMIT: copying(raw, rng.permutation(len(rows)).tolist()), **readers(path, name, rows.tolist())}
            with progress(f"read {name}", len(sides) * ROUNDS) as tick:
                seconds = race(sides, ROUNDS, tick)
        yield f"  {name}: {' x '.join(map(str, shape))} {store.dtypes[name]}, {size / 1e6:.2f} MB an image as float16"
        for side, taken in seconds.items():
            each = taken / len(rows)
            yield f"    {side:22}{1 / each:10,.0f} images/s{size / each / 1e9:8.2f} GB/s{seconds[LIMIT] / taken:7.2f}"


def _raw(file: Path, store: FeatureStore, layer: str, rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """The images of some rows as a mapped file (len(rows), C, H, W); integers aren't scaled, for only the bytes count."""
    shape = (len(rows), *store.shapes[layer])
    needed, free = int(np.prod(shape)) * np.dtype(np.float16).itemsize, shutil.disk_usage(file.parent).free
    if free < needed:
        raise DiskSpaceError(
            f"{file.parent.resolve()}: {free / 1e9:.1f} GB are free, but {len(rows)} images of {layer} are {needed / 1e9:.1f} GB "
            "of raw float16, which the limit copies; make room, or read fewer images"
        )
    with file.open("wb") as out:
        for row in rows.tolist():
            store.read(row, [layer])[layer].astype(np.float16).tofile(out)
    return np.memmap(file, np.float16, "r", shape=shape)
