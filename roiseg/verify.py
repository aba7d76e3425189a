"""`roiseg cache info` and `roiseg cache verify`: what a store is, and the proof that it still is."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from roiseg.cache.layout import shard_key
from roiseg.cache.params import ReaderParams
from roiseg.cache.reader import FeatureStore
from roiseg.cache.scales import load_scales
from roiseg.coco import DataParams
from roiseg.errors import StoreDamagedError, StoreMismatchError
from roiseg.extractor.inputs import image_files
from roiseg.extractor.params import ExtractorParams
from roiseg.extractor.recompute import FLOAT16_RMS, INT8_STEPS, recompute
from roiseg.extractor.session import Backbone
from roiseg.files import sha256_file
from roiseg.index import Index
from roiseg.params import load_section
from roiseg.progress import progress
from roiseg.trained import FEATURES, INDEX


def describe(split: str) -> Iterator[str]:
    """Lines about the store of a split.

    Raises:
        StoreError, StoreDamagedError, StoreMismatchError: as `FeatureStore`.
    """
    store = FeatureStore(FEATURES / f"{split}.zarr")
    stored = sum(size for shards in store.shards.values() for size, _ in shards)
    raw = len(store) * sum(int(np.prod(store.shapes[name.rpartition("/")[2]])) for name in store.shards) * 2
    yield f"{store.path}: {len(store)} images, {stored / 1e6:,.1f} MB, {stored / raw:.3f} of raw float16"
    for name, shards in store.shards.items():
        layer = name.rpartition("/")[2]
        size = " x ".join(map(str, store.shapes[layer]))
        values = len(store) * int(np.prod(store.shapes[layer]))
        ends = f", {store.saturated[name] / values:.2e} saturated" if store.dtypes[layer] == np.int8 else ""
        stride = store.specs[layer].stride_hw[0]
        yield f"  {name}: {size} {store.dtypes[layer]}, stride {stride:g}, {len(shards)} shards{ends}"
    for title, fields in (("asked", store.asked), ("found", store.found)):
        for key, value in fields.items():
            yield f"  {title} {key}: {value}"


def damaged_shards(store: FeatureStore) -> list[Path]:
    """Shards whose bytes aren't those that were written, to the last bit; reads all of them."""
    found = []
    with progress("verify shards", sum(len(shards) for shards in store.shards.values())) as tick:
        for name, shards in store.shards.items():
            for number, (_, digest) in enumerate(shards):
                file = store.path / name / shard_key(number)
                if sha256_file(file) != digest:
                    found.append(file)
                tick(1)
    return found


def verify(split: str, images: int, seed: int) -> Iterator[str]:
    """Check a store byte by byte, then some of its images against the detector.

    Args:
        split: train or val.
        images: how many are computed anew; 0 leaves that out.
        seed: which ones.

    Yields:
        A line per finding.

    Raises:
        StoreDamagedError: shards were changed; all of them are named.
        StoreMismatchError: features computed now differ by more than the tolerance.
    """
    store = FeatureStore(FEATURES / f"{split}.zarr")
    broken = damaged_shards(store)
    if broken:
        raise StoreDamagedError(
            f"{store.path}: {len(broken)} shards were changed: {', '.join(map(str, broken))}; "
            "restore the store with `dvc checkout` or `dvc pull`"
        )
    yield f"{store.path}: all {sum(map(len, store.shards.values()))} shards as they were written"
    if not images:
        return
    extractor, data = load_section(ExtractorParams, "extractor"), load_section(DataParams, "data")
    index = Index(INDEX / split, extractor.input_hw, extractor.resize)
    store.check_rows(index.image_ids, str(INDEX / split))
    rows = np.sort(np.random.default_rng(seed).permutation(len(store))[:images])
    files = image_files(index.images.iloc[rows], Path(data.split(split).images))
    scales = load_scales(Path("data/scales.npz"))
    backbone = Backbone(Path("data/backbone.onnx"), extractor.provider, extractor.precision, scales)
    threads = load_section(ReaderParams, "reader").decode_threads
    unlike = []
    for name, found in recompute(store, backbone, files, rows.tolist(), extractor, threads).items():
        steps = store.dtype == np.int8
        limit = f"at most {INT8_STEPS:g} step" if steps else f"RMS at most {FLOAT16_RMS:g}"
        unit = "steps" if steps else "of the values' RMS"
        differs = f"largest difference {found.largest:.3g}, RMS {found.rms:.3g} {unit}"
        yield f"  {name}: {len(rows)} images computed anew: {differs} ({limit})"
        if not found.fits:
            unlike.append(name)
    if unlike:
        raise StoreMismatchError(
            f"{store.path}: {', '.join(unlike)} differ from what the detector gives now by more than the tolerance; "
            "the store belongs to other images, another ONNX or another device: run `dvc repro extract`"
        )
