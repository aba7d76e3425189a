"""Stage `extract@{split}`: images to a feature store. Its only code dependency is `roiseg/cache/version.py`."""

import sys
from pathlib import Path

from roiseg.cache.params import CacheParams, ReaderParams
from roiseg.coco import DataParams
from roiseg.console import run_stage
from roiseg.extractor.extract import ExtractPaths, extract
from roiseg.extractor.params import ExtractorParams
from roiseg.files import write_json
from roiseg.params import load_section


def main(split: str) -> None:
    """Write `data/features/{split}.zarr`, `data/detections/{split}.parquet` and `metrics/extract_{split}.json`."""
    paths = ExtractPaths(
        images=Path(load_section(DataParams, "data").split(split).images),
        index=Path(f"data/index/{split}/images.parquet"),
        backbone=Path("data/backbone.onnx"),
        scales=Path("data/scales.npz"),
        store=Path(f"data/features/{split}.zarr"),
        detections=Path(f"data/detections/{split}.parquet"),
    )
    sections = (
        load_section(ExtractorParams, "extractor"),
        load_section(CacheParams, "cache"),
        load_section(ReaderParams, "reader"),
    )
    write_json(Path(f"metrics/extract_{split}.json"), extract(f"extract@{split}", paths, *sections))


if __name__ == "__main__":
    run_stage(f"extract@{sys.argv[1]}", lambda: main(sys.argv[1]))
