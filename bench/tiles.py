"""Whole images or tiles: what it costs to read the features of ROIs, in one run.

    python -m bench.tiles [--split train] [--images 64] [--json FILE]

Writes every layer of a store that `dvc repro` made anew, whole and in tiles, with the codec of params.yaml, and reads what its ROIs
need in two orders: image by image, all ROIs of an image at once (as training does), and ROI by ROI at random (as a sampler that
balances ROIs would). Each order reads whole images into a buffer, or windows: the cells of the ROIs. One thread, page cache warm,
sides alternate, medians count. Prints milliseconds an ROI, and the ratio to whole images.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from roiseg.cache.layout import stored_arrays
from roiseg.cache.params import CacheParams
from roiseg.cache.race import race
from roiseg.cache.reader import FeatureStore
from roiseg.cache.writer import StoreWriter
from roiseg.extractor.params import ExtractorParams
from roiseg.files import write_json
from roiseg.geometry import Floats
from roiseg.index import Index
from roiseg.nn.roi_align import roi_window
from roiseg.params import load_section
from roiseg.types import CutLayer, Window

TILES = (None, (10, 10), (20, 20), (40, 40))
ROUNDS = 5


@dataclass(frozen=True)
class Rois:
    """The ROIs of one image.

    Attributes:
        row: of the store.
        boxes: (R, 4) xyxy, unit frame.
    """

    row: int
    boxes: Floats


def load_rois(index: Index, images: int) -> list[Rois]:
    """Of the first images that have any."""
    rows = np.flatnonzero(index.rois_per_image > 0)[:images].tolist()
    people = [index.people(row) for row in rows]
    return [Rois(item.row, item.boxes[item.roi_numbers]) for item in people]


def rewrite(source: FeatureStore, layer: str, rows: list[int], folder: Path, cache: CacheParams) -> FeatureStore:
    """Some rows of one layer as a store of its own."""
    channels, height, width = source.shapes[layer]
    arrays = stored_arrays([CutLayer(layer, layer, channels, (height, width))], (height, width), cache)
    asked = {"input": {"hw": [height, width]}, "dtype": cache.dtype}
    scales = {name: values for name, values in source.scales.items() if name == layer}
    folder.mkdir()
    writer = StoreWriter(folder, arrays, np.array(rows, dtype=np.int64), cache, scales, asked, {})
    for shard in writer.missing():
        with writer.open_shard(shard) as opened:
            for place in writer.rows(shard):
                opened.append(source.read(rows[place], [layer]))
            opened.close()
    writer.finish()
    return FeatureStore(writer.path)


def windows(boxes: Floats, map_hw: tuple[int, int]) -> Window:
    """The cells of some boxes."""
    return roi_window(torch.from_numpy(boxes.astype(np.float32)), map_hw)


def plans(rois: list[Rois], map_hw: tuple[int, int]) -> dict[str, list[tuple[int, Window]]]:
    """Order of reading -> row of the rewritten store and window of each read."""
    whole = Window(0, map_hw[0], 0, map_hw[1])
    single = [(row, box[None]) for row, item in enumerate(rois) for box in item.boxes]
    shuffled = [single[place] for place in np.random.default_rng(0).permutation(len(single)).tolist()]
    return {
        "image by image, whole": [(row, whole) for row in range(len(rois))],
        "image by image, window": [(row, windows(item.boxes, map_hw)) for row, item in enumerate(rois)],
        "ROI by ROI, whole": [(row, whole) for row, _ in shuffled],
        "ROI by ROI, window": [(row, windows(boxes, map_hw)) for row, boxes in shuffled],
    }


def reader(store: FeatureStore, layer: str, plan: list[tuple[int, Window]]) -> Callable[[], None]:
    """Reads all of a plan into one buffer."""
    channels, height, width = store.shapes[layer]
    buffer: NDArray[np.generic] = np.empty(channels * height * width, store.dtypes[layer])

    def read() -> None:
        for row, window in plan:
            shape = (channels, window.bottom - window.top, window.right - window.left)
            store.read_window_into(row, layer, window, buffer[: int(np.prod(shape))].reshape(shape))

    return read


def measure(source: FeatureStore, layer: str, rois: list[Rois], cache: CacheParams) -> dict[str, dict[str, float]]:
    """Tile -> order -> milliseconds an ROI, and `bytes`: size over that without tiles."""
    count = sum(len(item.boxes) for item in rois)
    map_hw = source.shapes[layer][1:]
    with tempfile.TemporaryDirectory() as temporary:
        sides: dict[tuple[str, str], Callable[[], None]] = {}
        sizes: dict[str, float] = {}
        for tile in TILES:
            name = "whole" if tile is None else f"{tile[0]}x{tile[1]}"
            form = cache.model_copy(update={"tile_hw": tile})
            store = rewrite(source, layer, [item.row for item in rois], Path(temporary) / name, form)
            sizes[name] = float(sum(size for size, _ in store.shards[layer]))
            sides |= {(name, order): reader(store, layer, plan) for order, plan in plans(rois, map_hw).items()}
        taken = race(sides, ROUNDS)
    table: dict[str, dict[str, float]] = {name: {"bytes": size / sizes["whole"]} for name, size in sizes.items()}
    for (name, order), seconds in taken.items():
        table[name][order] = seconds * 1e3 / count
    return table


def main() -> None:
    """Every layer of a store."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--split", default="train")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    extractor, cache = load_section(ExtractorParams, "extractor"), load_section(CacheParams, "cache")
    rois = load_rois(Index(Path("data/index") / options.split, extractor.input_hw, extractor.resize), options.images)
    source = FeatureStore(Path("data/features") / f"{options.split}.zarr")
    count = sum(len(item.boxes) for item in rois)
    print(f"{options.split}.zarr: {len(rois)} images, {count} ROIs, {source.dtype}, {cache.codec}; milliseconds an ROI")
    results = {}
    cache = cache.model_copy(update={"dtype": str(source.dtype), "views": ("plain",), "image": False})
    for layer in source.shapes:
        results[layer] = measure(source, layer, rois, cache)
        print(f"\n{layer}, {' x '.join(map(str, source.shapes[layer]))}")
        limit = results[layer]["whole"]
        for name, row in results[layer].items():
            told = ", ".join(
                f"{order} {value:.3f} ({value / limit[order.replace('window', 'whole')]:.2f})"
                for order, value in row.items()
                if order != "bytes"
            )
            print(f"  {name}: size {row['bytes']:.3f}, {told}")
    if options.json:
        write_json(options.json, {"images": len(rois), "rois": count, "layers": results})


if __name__ == "__main__":
    main()
