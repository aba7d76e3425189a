"""One split from images to a published store."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from roiseg.cache.params import CacheParams, ReaderParams, asked_fields
from roiseg.cache.scales import load_scales
from roiseg.cache.space import check_space, dvc_cache, estimate_bytes, links_into
from roiseg.cache.writer import StoreWriter
from roiseg.extractor.inputs import hash_images, image_files
from roiseg.extractor.params import ExtractorParams
from roiseg.extractor.pipeline import Extraction
from roiseg.extractor.session import Backbone
from roiseg.files import sha256_file, sha256_json, write_parquet
from roiseg.work import link_tree, mark_done, work_folder


@dataclass(frozen=True)
class ExtractPaths:
    """Files of one split.

    Attributes:
        images: folder of the images.
        index: `data/index/{split}/images.parquet`.
        backbone: the cut ONNX.
        scales: per-channel scales.
        store: out.
        detections: out.
    """

    images: Path
    index: Path
    backbone: Path
    scales: Path
    store: Path
    detections: Path


def extract(
    stage: str, paths: ExtractPaths, extractor: ExtractorParams, cache: CacheParams, reader: ReaderParams
) -> dict[str, float]:
    """Fill the store of a split, going on where an earlier run was cut short.

    Args:
        stage: name of the stage in dvc.yaml, which the work folder is named after.
        paths: inputs and outs.
        extractor: section of the params.
        cache: section of the params.
        reader: section of the params.

    Returns:
        Flat figures: images, bytes raw and stored, their ratio, share of saturated values.

    Raises:
        GraphError: the batch size isn't one that the ONNX takes.
        DiskSpaceError: the disk is too small, or ran full.
        ImageReadError, MissingImageError, ProviderError, StoreError: see the modules below.
    """
    images = pd.read_parquet(paths.index)
    files = image_files(images, paths.images)
    scales = load_scales(paths.scales)
    backbone = Backbone(paths.backbone, extractor.provider, extractor.precision, scales)
    backbone.info.check_batch(extractor.batch_size)
    image_ids = images["image_id"].to_numpy(dtype=np.int64)
    asked = asked_fields(extractor, cache) | {
        "graph": sha256_file(paths.backbone),
        "scales": sha256_file(paths.scales) if scales else None,
        "codec": cache.codec_rule(),
        "shard_mib": cache.shard_mib,
        "batch_size": extractor.batch_size,
        "image_ids": sha256_json(image_ids.tolist()),
        "images": hash_images(files, reader.decode_threads),
    }
    found = asdict(backbone.runtime)
    folder = work_folder(stage, {"asked": asked, "found": found})
    writer = StoreWriter(folder, backbone.info.layers, image_ids, cache, scales, asked, found)
    left = sum(len(writer.rows(shard)) for shard in writer.missing())
    copies = 1 if links_into(dvc_cache(), folder) else 2
    check_space(folder, estimate_bytes(backbone.info.layers, left, cache), copies)
    extraction = Extraction(backbone, writer, extractor, folder)
    extraction.run(files, reader.decode_threads)
    stored = sum(writer.finish().values())
    write_parquet(paths.detections, extraction.detections(image_ids))
    link_tree(writer.path, paths.store)
    mark_done(folder, stage, (paths.backbone, paths.scales, paths.index, paths.detections))
    raw = sum(layer.channels * layer.hw[0] * layer.hw[1] for layer in backbone.info.layers) * len(files)
    return _figures(len(files), raw, np.dtype(cache.dtype).itemsize, stored, extraction.saturated())


def _figures(images: int, values: int, itemsize: int, stored: int, saturated: int) -> dict[str, float]:
    return {
        "images": images,
        "bytes_raw": values * itemsize,
        "bytes_stored": stored,
        "compression": round(values * itemsize / stored, 4),
        "saturated_share": saturated / values,
    }
