"""Stage `backbone`: cuts the detector to the cached tensors."""

import logging
from pathlib import Path

from roiseg.backbone import make_backbone
from roiseg.cache.params import CacheParams
from roiseg.console import run_stage
from roiseg.extractor.params import ExtractorParams
from roiseg.params import load_section


def main() -> None:
    """Write `data/backbone.onnx`."""
    extractor = load_section(ExtractorParams, "extractor")
    dtype = load_section(CacheParams, "cache").dtype
    info = make_backbone(
        Path(extractor.onnx),
        extractor.layers,
        extractor.input_hw,
        dtype,
        extractor.detections,
        Path("data/backbone.onnx"),
    )
    for layer in info.layers:
        logging.getLogger("backbone").info("%s: %d x %d x %d, %s", layer.name, layer.channels, *layer.hw, dtype)


if __name__ == "__main__":
    run_stage("backbone", main)
