"""Reading a store against its limits: every stored form of the same features, by every reader, in one run.

    python -m bench.reader [--split train] [--layer NAME] [--megabytes 512] [--json FILE]

Takes the layers of a float16 or int8 store that `dvc repro` made, writes them anew in a temporary folder in every form that
`params.yaml` allows, and lets the readers race as in `roiseg cache bench` (roiseg/cache/race.py): whole images in random order, one
layer after the other. Images are repeated until their raw float16 takes `--megabytes`: what fits into the processor's own caches
would be copied faster than memory can be read, and no data set of real size does. zarrs and tensorstore take part where they are
installed:

    uv run --group bench python -m bench.reader
"""

import argparse
import importlib.util
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from roiseg.cache.layout import stored_arrays
from roiseg.cache.params import CacheParams
from roiseg.cache.race import LIMIT, ROUNDS, Run, copying, race, readers, reading
from roiseg.cache.reader import FeatureStore
from roiseg.cache.writer import StoreWriter
from roiseg.calibrate import scales_from_peaks
from roiseg.files import write_json
from roiseg.params import load_section
from roiseg.types import IMAGE, PLAIN, CutLayer
from roiseg.work import WORK

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


Values = dict[str, NDArray[np.float16]]


def load(split: str, layer: str | None) -> Values:
    """Layer -> (N, C, H, W) of all images of a store."""
    store = FeatureStore(Path("data/features") / f"{split}.zarr")
    values: Values = {}
    for name in [layer] if layer else [item for item in store.layers if item != IMAGE]:
        values[name] = np.empty((len(store), *store.shapes[name]), np.float16)
        for row in range(len(store)):
            stored = store.read(row, [name])[name].astype(np.float32)
            values[name][row] = stored * store.scales[name].reshape(-1, 1, 1) if name in store.scales else stored
        print(f"{split}.zarr, {name}: {len(store)} images of {' x '.join(map(str, store.shapes[name]))}")
    return values


def write(values: Values, images: int, folder: Path, dtype: Any, codec: Any, shuffle: Any) -> Form:  # noqa: ANN401 - literals
    """Write the values again and again in one form, until there are so many images."""
    params = load_section(CacheParams, "cache").model_copy(
        update={
            "dtype": dtype,
            "codec": codec,
            "level": None,
            "shuffle": shuffle,
            "views": (PLAIN,),
            "image": False,
            "tile_hw": None,
        }
    )
    layers = [CutLayer(name, name, item.shape[1], (item.shape[2], item.shape[3])) for name, item in values.items()]
    scales = {}
    stored: dict[str, NDArray[Any]] = dict(values)
    if dtype == "int8":
        scales = {name: scales_from_peaks(np.abs(item.astype(np.float32)).max(axis=(0, 2, 3))) for name, item in values.items()}
        stored = {name: quantise(item, scales[name]) for name, item in values.items()}
    folder.mkdir()
    asked = {"input": {"hw": [640, 640]}, "dtype": dtype}
    arrays = stored_arrays(layers, (640, 640), params)
    writer = StoreWriter(folder, arrays, np.arange(images, dtype=np.int64), params, scales, asked, {})
    for shard in writer.missing():
        with writer.open_shard(shard) as opened:
            for row in writer.rows(shard):
                opened.append({name: item[row % len(item)] for name, item in stored.items()})
            opened.close()
    size = sum(writer.finish().values())
    name = f"{dtype} {codec}" + (f" {shuffle}" if codec != "none" else "")
    return Form(name, writer.path, size / (images * bytes_per_image(values)))


def quantise(values: NDArray[np.float16], scale: NDArray[np.float32]) -> NDArray[np.int8]:
    """As the cut graph does it, image by image."""
    return np.stack([np.clip(np.rint(item / scale.reshape(-1, 1, 1)), -127, 127).astype(np.int8) for item in values])


def bytes_per_image(values: Values) -> int:
    """Raw float16 bytes of all layers of an image."""
    return sum(item[0].nbytes for item in values.values())


def map_raw(values: Values, images: int, folder: Path) -> Values:
    """The same images as mapped raw files."""
    mapped = {}
    for name, item in values.items():
        with (folder / name).open("wb") as out:
            for row in range(images):
                item[row % len(item)].tofile(out)
        mapped[name] = np.memmap(folder / name, np.float16, "r", shape=(images, *item.shape[1:]))
    return dict(mapped)


def together(sides: Sequence[Mapping[str, Run]]) -> dict[str, Run]:
    """Sides that read one layer each, as sides that read all layers of an image after each other."""
    return {name: partial(run_all, [part[name] for part in sides]) for name in sides[0]}


def run_all(runs: Sequence[Run]) -> None:
    """One after the other."""
    for run in runs:
        run()


def guests(form: Form, layer: str, rows: Sequence[int]) -> dict[str, Run]:
    """Other readers of Zarr, as far as they are installed."""
    sides: dict[str, Run] = {}
    if importlib.util.find_spec("tensorstore"):
        import tensorstore

        opened = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{form.store / layer}/"}}).result()
        sides["tensorstore"] = reading(lambda row: opened[row].read().result(), rows)
    if importlib.util.find_spec("zarrs"):
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            fast = zarr.open_array(form.store / layer, mode="r")
        sides["zarrs"] = reading(lambda row: fast[row], rows)
    return sides


def main() -> None:
    """Write every form, race the readers, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--split", default="train")
    parser.add_argument("--layer")
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    values = load(options.split, options.layer)
    images = max(1, options.megabytes * 10**6 // bytes_per_image(values))
    rows = np.random.default_rng(0).permutation(images).tolist()
    print(f"{images} images, {bytes_per_image(values) / 1e6:.2f} MB each as raw float16")
    results: dict[str, Any] = {}
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as temporary:
        folder = Path(temporary)
        raw = map_raw(values, images, folder)
        for number, (dtype, codec, shuffle) in enumerate(FORMS):
            form = write(values, images, folder / str(number), dtype, codec, shuffle)
            sides = [
                {LIMIT: copying(raw[name], rows), **readers(form.store, name, rows), **guests(form, name, rows)} for name in values
            ]
            seconds = race(together(sides), ROUNDS)
            speed = {name: seconds[LIMIT] / value for name, value in seconds.items()}
            results[form.name] = {"share_of_raw_float16": form.share, "images_per_second_over_memmap": speed}
            shown = "  ".join(f"{name} {value:.2f}" for name, value in speed.items())
            copied = images * bytes_per_image(values) / seconds[LIMIT] / 1e9
            print(f"{form.name:23} size {form.share:.3f}  speed: {shown}  ({LIMIT} {copied:.1f} GB/s)")
            shutil.rmtree(folder / str(number))
    if options.json:
        write_json(options.json, {"images": images, "bytes_per_image": bytes_per_image(values), "forms": results})


if __name__ == "__main__":
    main()
