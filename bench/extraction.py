"""Extraction against its limits: the whole pipeline, a bare loop and the session alone, on the same images in one run.

    python -m bench.extraction [--json FILE]

The bare loop decodes, prepares and runs one batch after the other and writes nothing; the session alone gets inputs that are ready.
Prints milliseconds an image of each, and the shares of their speeds that the pipeline reaches, which also compresses and writes.
Needs the outs of `dvc repro`; writes only to a temporary folder.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from roiseg.cache.params import CacheParams
from roiseg.cache.scales import load_scales
from roiseg.cache.writer import StoreWriter
from roiseg.coco import DataParams
from roiseg.extractor.images import decode, read_bytes, to_input
from roiseg.extractor.inputs import ImageFile, batches, image_files
from roiseg.extractor.params import ExtractorParams
from roiseg.extractor.pipeline import Extraction
from roiseg.extractor.session import Backbone
from roiseg.files import write_json
from roiseg.params import load_section

ROUNDS = 3
THREADS = 2


class Sides:
    """The three ways to run the detector over the validation images."""

    def __init__(self) -> None:
        """Open the detector and prepare all inputs of the session's side."""
        self.extractor, self.cache = load_section(ExtractorParams, "extractor"), load_section(CacheParams, "cache")
        self.scales = load_scales(Path("data/scales.npz"))
        self.backbone = Backbone(Path("data/backbone.onnx"), self.extractor.provider, self.extractor.precision, self.scales)
        images = pd.read_parquet("data/index/val/images.parquet")
        self.ids = images["image_id"].to_numpy(dtype=np.int64)
        self.files = image_files(images, Path(load_section(DataParams, "data").val.images))
        self._ready = [batch for _, batch in batches(self.files, self.extractor, THREADS, Counter())]
        self.backbone(self._ready[0])

    def session(self) -> None:
        """Run inputs that are ready."""
        for batch in self._ready:
            self.backbone(batch)

    def _input(self, file: ImageFile) -> NDArray[np.float32]:
        return to_input(decode(read_bytes(file.path), str(file.path), file.image_hw), self.extractor)

    def loop(self) -> None:
        """Decode, prepare, run, one after the other."""
        size = self.extractor.batch_size
        for start in range(0, len(self.files), size):
            part = [self._input(file) for file in self.files[start : start + size]]
            self.backbone(np.stack(part + part[:1] * (size - len(part))))

    def pipeline(self) -> None:
        """What the stage does, but for hashing the images."""
        with tempfile.TemporaryDirectory() as folder:
            asked = {"input": self.extractor.input_rule(), "dtype": self.cache.dtype}
            writer = StoreWriter(Path(folder), self.backbone.info.layers, self.ids, self.cache, self.scales, asked, {})
            Extraction(self.backbone, writer, self.extractor, Path(folder)).run(self.files, THREADS)
            writer.finish()


def main() -> None:
    """Alternate the sides, so that a noisy machine disturbs all alike; medians count."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sides = Sides()
    runs: dict[str, Callable[[], None]] = {"session": sides.session, "loop": sides.loop, "pipeline": sides.pipeline}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            taken[name].append((time.perf_counter() - began) / len(sides.files))
    seconds = {name: float(np.median(times)) for name, times in taken.items()}
    setting = f"{sides.backbone.runtime.provider}, {sides.cache.dtype}, {sides.cache.codec}"
    print(f"{len(sides.files)} images, {setting}: " + ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in seconds.items()))
    ratios = {f"pipeline_over_{name}": seconds[name] / seconds["pipeline"] for name in ("session", "loop")}
    for name, value in ratios.items():
        print(f"{name}: {value:.2f}")
    if options.json:
        write_json(options.json, {"images": len(sides.files), "setting": setting, **ratios})


if __name__ == "__main__":
    main()
