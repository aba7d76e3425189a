"""One split from images to a published store."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from roiseg.cache.layout import stored_arrays
from roiseg.cache.params import CacheParams, ReaderParams, asked_fields
from roiseg.cache.reuse import previous_store, take_over
from roiseg.cache.scales import load_scales
from roiseg.cache.space import check_space, estimate_bytes, links_into
from roiseg.cache.writer import StoreWriter
from roiseg.extractor.inputs import ImageFolder, Images, image_files
from roiseg.extractor.params import ExtractorParams
from roiseg.extractor.pipeline import Extraction
from roiseg.extractor.session import Backbone
from roiseg.files import sha256_file, sha256_json, write_parquet
from roiseg.types import IMAGE, StoredArray, array_name
from roiseg.work import claimed, dvc_cache, link_tree, mark_done, work_folder


@dataclass(frozen=True)
class ExtractPaths:
    """Files of one split.

    Attributes:
        images: folder of the images.
        index: `data/index/{split}/images.parquet`.
        backbone: the cut ONNX.
        scales: per-channel scales; None for float16.
        store: out.
        detections: out; None for a graph that finds no boxes.
    """

    images: Path
    index: Path
    backbone: Path
    scales: Path | None
    store: Path
    detections: Path | None


def extract(
    stage: str,
    paths: ExtractPaths,
    extractor: ExtractorParams,
    cache: CacheParams,
    reader: ReaderParams,
    source: Images | None = None,
) -> dict[str, float]:
    """Fill the store of a split, going on where an earlier run was cut short.

    Args:
        stage: name of the stage in dvc.yaml, which the work folder is named after.
        paths: inputs and outs.
        extractor: section of the params.
        cache: section of the params.
        reader: section of the params.
        source: where images come from; None: their files.

    Returns:
        Flat figures: images, bytes raw and stored, their ratio, share of saturated values.

    Raises:
        GraphError: the batch size isn't one that the ONNX takes.
        DiskSpaceError: the disk is too small, or ran full.
        ImageReadError, MissingImageError, ProviderError, StoreError, WorkBusyError: see the modules below.
    """
    images = pd.read_parquet(paths.index)
    files = image_files(images, paths.images)
    scales = load_scales(paths.scales) if paths.scales is not None else {}
    backbone = Backbone(paths.backbone, extractor.provider, extractor.precision, scales, reader.concurrent_runs)
    backbone.info.check_batch(extractor.batch_size)
    source = source or ImageFolder(extractor.input_rule())
    image_ids = images["image_id"].to_numpy(dtype=np.int64)
    drawn = {
        "batch_size": extractor.batch_size,
        "image_ids": sha256_json(image_ids.tolist()),
        "images": source.digest(files, reader.decode_threads),
    }
    asked = (
        asked_fields(extractor, cache)
        | {
            "graph": sha256_file(paths.backbone),
            "scales": sha256_file(paths.scales) if paths.scales and scales else None,
        }
        | cache.form()
        | drawn
    )
    found = asdict(backbone.runtime)
    origins = _origins(backbone, scales, {"input": extractor.input_rule().plain(), **drawn, "found": found}, cache)
    arrays = stored_arrays(backbone.info.layers, extractor.input_hw, cache, origins)
    folder = work_folder(stage, {"asked": asked, "found": found})
    with claimed(folder):
        writer = StoreWriter(folder, arrays, image_ids, cache, scales, asked, found)
        if not writer.begun:
            previous = previous_store(stage, paths.store, folder / "previous.zarr")
            if previous is not None:
                take_over(previous, writer)
                shutil.rmtree(previous.path)
        left = sum(len(writer.rows(shard)) for shard in writer.missing())
        copies = 1 if links_into(dvc_cache(), folder) else 2
        check_space(folder, estimate_bytes(writer.computed, left, cache), copies)
        extraction = Extraction(backbone, writer, extractor, folder)
        extraction.run(files, reader.decode_threads, source)
        stored = sum(writer.finish().values())
        if paths.detections is not None:
            write_parquet(paths.detections, extraction.detections(image_ids))
        link_tree(writer.path, paths.store)
        known_by = (paths.backbone, paths.scales, paths.index, paths.detections)
        mark_done(folder, stage, (*(path for path in known_by if path is not None), paths.store / "zarr.json"))
        return _figures(arrays, len(files), stored, writer.saturated)


def _origins(
    backbone: Backbone, scales: Mapping[str, NDArray[np.float32]], shared: Mapping[str, Any], cache: CacheParams
) -> dict[str, str]:
    """Array -> digest of all that decides its bytes but the size of shards.

    Two stores that agree on it hold the same values there, whatever their other layers are.
    """
    form = {"codec": cache.codec_rule(), "tile_hw": cache.form()["tile_hw"]}
    origins = {IMAGE: sha256_json({**shared, **form})}
    for layer in backbone.info.layers:
        scale = scales[layer.name].tobytes().hex() if layer.name in scales else None
        for view in cache.views:
            fields = {"tensor": backbone.digests[layer.name], "scale": scale, "dtype": cache.dtype, "view": view}
            origins[array_name(layer.name, view)] = sha256_json({**shared, **form, **fields})
    return origins


def _figures(arrays: Sequence[StoredArray], images: int, stored: int, saturated: int) -> dict[str, float]:
    values = images * sum(int(np.prod(array.shape)) for array in arrays if array.name != IMAGE)
    raw = images * sum(int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize for array in arrays)
    return {
        "images": images,
        "bytes_raw": raw,
        "bytes_stored": stored,
        "compression": round(raw / stored, 4),
        "saturated_share": saturated / values,
    }
