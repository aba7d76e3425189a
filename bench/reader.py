"""Reading a store against its limits: every stored form of the same features, by every reader, in one run.

    python -m bench.reader [--split train] [--layer NAME] [--images 64] [--json FILE]

Takes one layer of a float16 or int8 store that `dvc repro` made, writes it anew in a temporary folder in every form that
`params.yaml` allows, and lets them race as `roiseg cache bench` does with the store as it is (roiseg/cache/race.py). zarrs and
tensorstore take part where they are installed:

    uv run --group bench python -m bench.reader
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from roiseg.cache.params import CacheParams
from roiseg.cache.race import LIMIT, ROUNDS, Run, copying, race, readers, reading
from roiseg.cache.reader import FeatureStore
from roiseg.cache.writer import StoreWriter
from roiseg.calibrate import scales_from_peaks
from roiseg.files import write_json
from roiseg.types import CutLayer

FORMS = [
    ("float16", "none", "noshuffle"),
    ("float16", "lz4", "bitshuffle"),
    ("float16", "zstd", "bitshuffle"),
    ("int8", "none", "noshuffle"),
    ("int8", "lz4", "noshuffle"),
    ("int8", "lz4", "bitshuffle"),
    ("int8", "zstd", "noshuffle"),
    ("int8", "zstd", "bitshuffle"),
]
LAYER = "layer"


@dataclass(frozen=True)
class Form:
    """One stored form of the features.

    Attributes:
        name: type, codec, shuffle.
        store: its folder.
        share: bytes over those of raw float16.
    """

    name: str
    store: Path
    share: float


def load(split: str, layer: str | None, images: int) -> NDArray[np.float16]:
    """(N, C, H, W) of the store's largest layer, or of the one that is named."""
    store = FeatureStore(Path("data/features") / f"{split}.zarr")
    name = layer or max(store.shapes, key=lambda item: int(np.prod(store.shapes[item])))
    count = min(images, len(store))
    values = np.empty((count, *store.shapes[name]), np.float16)
    for row in range(count):
        stored = store.read(row, [name])[name].astype(np.float32)
        values[row] = stored * store.scales[name].reshape(-1, 1, 1) if name in store.scales else stored
    shape = " x ".join(map(str, store.shapes[name]))
    print(f"{split}.zarr, {name}: {count} images of {shape}, {values[0].nbytes / 1e6:.2f} MB each as float16")
    return values


def write(values: NDArray[np.float16], folder: Path, dtype: Any, codec: Any, shuffle: Any) -> Form:  # noqa: ANN401 - literals
    """Write the values in one form."""
    params = CacheParams(dtype=dtype, codec=codec, level=1, shuffle=shuffle, shard_mib=64)
    layer = CutLayer(LAYER, LAYER, values.shape[1], (values.shape[2], values.shape[3]))
    peaks = np.abs(values.astype(np.float32)).max(axis=(0, 2, 3))
    scales = {LAYER: scales_from_peaks(peaks)} if dtype == "int8" else {}
    folder.mkdir()
    asked = {"input": {"hw": [640, 640]}, "dtype": dtype}
    writer = StoreWriter(folder, (layer,), np.arange(len(values), dtype=np.int64), params, scales, asked, {})
    for shard in writer.missing():
        part: NDArray[Any] = values[writer.rows(shard).start : writer.rows(shard).stop]
        if dtype == "int8":
            part = np.clip(np.rint(part.astype(np.float32) / scales[LAYER].reshape(-1, 1, 1)), -127, 127).astype(np.int8)
        writer.write(shard, {LAYER: part})
    stored = sum(writer.finish().values())
    name = f"{dtype} {codec}" + (f" {shuffle}" if codec != "none" else "")
    return Form(name, writer.path, stored / values.nbytes)


def guests(form: Form, rows: Sequence[int]) -> dict[str, Run]:
    """Other readers of Zarr, as far as they are installed."""
    sides: dict[str, Run] = {}
    if importlib.util.find_spec("tensorstore"):
        import tensorstore

        opened = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{form.store / LAYER}/"}}).result()
        sides["tensorstore"] = reading(lambda row: opened[row].read().result(), rows)
    if importlib.util.find_spec("zarrs"):
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            fast = zarr.open_array(form.store / LAYER, mode="r")
        sides["zarrs"] = reading(lambda row: fast[row], rows)
    return sides


def main() -> None:
    """Write every form, race the readers, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--split", default="train")
    parser.add_argument("--layer")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    values = load(options.split, options.layer, options.images)
    rows = np.random.default_rng(0).permutation(len(values)).tolist()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        values.tofile(folder / "raw")
        raw = np.memmap(folder / "raw", np.float16, "r", shape=values.shape)
        for number, (dtype, codec, shuffle) in enumerate(FORMS):
            form = write(values, folder / str(number), dtype, codec, shuffle)
            seconds = race({LIMIT: copying(raw, rows), **readers(form.store, LAYER, rows), **guests(form, rows)}, ROUNDS)
            speed = {name: seconds[LIMIT] / value for name, value in seconds.items()}
            results[form.name] = {"share_of_raw_float16": form.share, "images_per_second_over_memmap": speed}
            shown = "  ".join(f"{name} {value:.2f}" for name, value in speed.items())
            copied = values.nbytes / seconds[LIMIT] / 1e9
            print(f"{form.name:23} size {form.share:.3f}  speed: {shown}  ({LIMIT} {copied:.1f} GB/s)")
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
