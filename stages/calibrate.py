"""Stage `calibrate`: per-channel int8 scales, the same for both splits (empty for float16)."""

from pathlib import Path

from roiseg.cache.params import ReaderParams
from roiseg.cache.scales import save_scales
from roiseg.calibrate import CalibrateParams, calibrate
from roiseg.coco import DataParams
from roiseg.console import run_stage
from roiseg.extractor.params import ExtractorParams
from roiseg.params import load_section


def main() -> None:
    """Write `data/scales.npz`."""
    scales = calibrate(
        load_section(CalibrateParams, "calibrate"),
        load_section(ExtractorParams, "extractor"),
        Path("data/backbone.onnx"),
        Path("data/index/train/images.parquet"),
        Path(load_section(DataParams, "data").train.images),
        load_section(ReaderParams, "reader").decode_threads,
    )
    save_scales(Path("data/scales.npz"), scales)


if __name__ == "__main__":
    run_stage("calibrate", main)
