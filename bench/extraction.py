"""Extraction against its limit: the whole pipeline beside the bare session on the same batches, in one run.

    python -m bench.extraction

Prints seconds an image of each side and the share of the session's speed that the pipeline reaches. Needs the outs of `dvc repro`;
writes only to a temporary folder.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from roiseg.cache.params import CacheParams
from roiseg.cache.scales import load_scales
from roiseg.cache.writer import StoreWriter
from roiseg.coco import DataParams
from roiseg.extractor.inputs import batches, image_files
from roiseg.extractor.params import ExtractorParams
from roiseg.extractor.pipeline import Extraction
from roiseg.extractor.session import Backbone
from roiseg.params import load_section

ROUNDS = 3
THREADS = 2


def main() -> None:
    """Alternate the two sides, so that a noisy machine disturbs both alike."""
    extractor, cache = load_section(ExtractorParams, "extractor"), load_section(CacheParams, "cache")
    scales = load_scales(Path("data/scales.npz"))
    backbone = Backbone(Path("data/backbone.onnx"), extractor.provider, extractor.precision, scales)
    images = pd.read_parquet("data/index/val/images.parquet")
    files = image_files(images, Path(load_section(DataParams, "data").val.images))
    inputs = [batch for _, batch in batches(files, extractor, THREADS, Counter())]
    backbone(inputs[0])
    bare, whole = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for batch in inputs:
            backbone(batch)
        bare.append((time.perf_counter() - began) / len(files))
        with tempfile.TemporaryDirectory() as folder:
            ids = images["image_id"].to_numpy(dtype=np.int64)
            writer = StoreWriter(Path(folder), backbone.info.layers, ids, cache, scales, {"input": extractor.input_rule()}, {})
            began = time.perf_counter()
            Extraction(backbone, writer, extractor, Path(folder)).run(files, THREADS)
            writer.finish()
            whole.append((time.perf_counter() - began) / len(files))
    session, pipeline = float(np.median(bare)), float(np.median(whole))
    print(f"bare session {session * 1e3:.1f} ms an image; decode, run, compress and write {pipeline * 1e3:.1f} ms an image")
    setting = f"{backbone.runtime.provider}, {cache.dtype}, {cache.codec}"
    print(f"the pipeline runs at {session / pipeline:.2f} of the session's speed ({setting})")


if __name__ == "__main__":
    main()
