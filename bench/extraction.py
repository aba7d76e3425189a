"""Extraction against its limits: the whole pipeline, a bare loop and the session alone, on the same images in one run.

    python -m bench.extraction [--images N] [--full-size [--layers layer_34 ...]] [--json FILE]

The bare loop decodes, prepares and runs one batch after the other, each on all cores, and writes nothing; the session alone gets
inputs that are ready, and runs as many side by side as the pipeline (`reader.concurrent_runs`). Prints milliseconds an image of
each, the shares of their speeds that the pipeline reaches, which also compresses and writes, and the bytes that it writes a second.
With `--full-size` the detector is as large as YOLOv9-E (bench/full_size.py): a second an image and more on two cores, so it takes
16 images where `--images` says nothing. Needs the outs of `dvc repro`; writes only to a temporary folder in `.work`.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.full_size import BACKBONE, LAYERS, SCALES, full_size_params, make_full_size
from roiseg.cache.layout import stored_arrays
from roiseg.cache.params import CacheParams, ReaderParams, asked_fields
from roiseg.cache.race import race
from roiseg.cache.scales import load_scales
from roiseg.cache.writer import StoreWriter
from roiseg.coco import DataParams
from roiseg.extractor.images import decode, read_bytes
from roiseg.extractor.inputs import ImageFile, batches, image_files
from roiseg.extractor.params import ExtractorParams
from roiseg.extractor.pipeline import Extraction
from roiseg.extractor.session import Backbone
from roiseg.files import write_json
from roiseg.network_input import as_input, to_input
from roiseg.params import load_section
from roiseg.work import WORK

ROUNDS = 3
FULL_SIZE_IMAGES = 16
INDEX = Path("data/index/val/images.parquet")


@dataclass(frozen=True)
class Detector:
    """A cut detector, open, and how it is fed and stored.

    Attributes:
        backbone: the session.
        scales: layer -> (C,) float32 for int8, else empty.
        extractor: its section; the input rule and the batch size.
        cache: its section; what is stored, and how.
        reader: its section; threads.
    """

    backbone: Backbone
    scales: Mapping[str, NDArray[np.float32]]
    extractor: ExtractorParams
    cache: CacheParams
    reader: ReaderParams

    @classmethod
    def open(cls, folder: Path, extractor: ExtractorParams, cache: CacheParams, reader: ReaderParams, runs: int) -> "Detector":
        """From `backbone.onnx` and `scales.npz` in a folder, with so many runs side by side."""
        scales = load_scales(folder / SCALES)
        backbone = Backbone(folder / BACKBONE, extractor.provider, extractor.precision, scales, runs)
        return cls(backbone, scales, extractor, cache, reader)

    def buffers(self) -> dict[str, NDArray[Any]]:
        """Layer -> outputs of a batch, to be filled again and again."""
        return self.backbone.buffers(self.extractor.layers, self.extractor.batch_size)

    def run(self, batch: NDArray[np.float32], out: Mapping[str, NDArray[Any]]) -> None:
        """A batch (batch_size, 3, H, W) into `buffers`."""
        self.backbone.run_into(batch, out, detect=self.extractor.detections is not None)

    def fill(self, folder: Path, files: Sequence[ImageFile]) -> tuple[Path, int]:
        """What the stage does, but for hashing the images.

        Args:
            folder: empty; work folder of the writer.
            files: images in row order.

        Returns:
            The complete store, and its bytes.
        """
        ids = np.array([file.image_id for file in files], dtype=np.int64)
        asked = asked_fields(self.extractor, self.cache)
        arrays = stored_arrays(self.backbone.info.layers, self.extractor.input_hw, self.cache)
        writer = StoreWriter(folder, arrays, ids, self.cache, self.scales, asked, {})
        Extraction(self.backbone, writer, self.extractor, folder).run(files, self.reader.decode_threads)
        return writer.path, sum(writer.finish().values())

    def __str__(self) -> str:
        layers = ", ".join(f"{item.name} {item.channels} x {item.hw[0]} x {item.hw[1]}" for item in self.backbone.info.layers)
        runtime = self.backbone.runtime
        device = " on ".join(dict.fromkeys((runtime.provider, runtime.device)))
        return f"{device}, {layers}, {self.cache.dtype}, {self.cache.codec}"


class Sides:
    """The three ways to run a detector over images."""

    def __init__(self, detector: Detector, alone: Detector, files: Sequence[ImageFile]) -> None:
        """Prepare all inputs of the session's side, and run each detector once.

        Args:
            detector: runs as the pipeline does.
            alone: the same, one run at a time.
            files: images.
        """
        self.detector, self.files = detector, files
        self.stored = 0
        self._alone, self._out = alone, alone.buffers()
        extractor = detector.extractor
        rule, threads = extractor.input_rule(), detector.reader.decode_threads
        self._ready = [as_input(batch, rule) for _, batch in batches(files, extractor, threads)]
        self._free: SimpleQueue[Mapping[str, NDArray[Any]]] = SimpleQueue()
        for _ in range(detector.backbone.side_by_side):
            self._free.put(detector.buffers())
        self._run(self._ready[0])
        alone.run(self._ready[0], self._out)

    def _run(self, batch: NDArray[np.float32]) -> None:
        out = self._free.get()
        self.detector.run(batch, out)
        self._free.put(out)

    def session(self) -> None:
        """Run inputs that are ready."""
        with ThreadPoolExecutor(self.detector.backbone.side_by_side) as pool:
            list(pool.map(self._run, self._ready))

    def _input(self, file: ImageFile) -> NDArray[np.float32]:
        return to_input(decode(read_bytes(file.path), str(file.path), file.image_hw), self.detector.extractor.input_rule())

    def loop(self) -> None:
        """Decode, prepare, run, one after the other."""
        size = self.detector.extractor.batch_size
        for start in range(0, len(self.files), size):
            part = [self._input(file) for file in self.files[start : start + size]]
            self._alone.run(np.stack(part + part[:1] * (size - len(part))), self._out)

    def pipeline(self) -> None:
        """The whole, into a store that goes away again."""
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            _, self.stored = self.detector.fill(Path(folder), self.files)


def open_detectors(folder: Path, images: Path, layers: Sequence[str] | None) -> tuple[Detector, Detector]:
    """The project's own detector, or one of full size: as the pipeline runs it, and one run at a time.

    Args:
        folder: where the full-size one is written.
        images: folder of the validation images.
        layers: layers of the full-size one; None for the project's own.
    """
    extractor, cache = load_section(ExtractorParams, "extractor"), load_section(CacheParams, "cache")
    reader = load_section(ReaderParams, "reader")
    if layers is None:
        folder = Path("data")
    else:
        extractor = full_size_params(extractor, layers)
        make_full_size(folder, extractor, cache.dtype, INDEX, images, reader.decode_threads)
    detector = Detector.open(folder, extractor, cache, reader, reader.concurrent_runs)
    if detector.backbone.side_by_side == 1:
        return detector, detector
    return detector, Detector.open(folder, extractor, cache, reader, 1)


def measure(sides: Sides) -> dict[str, object]:
    """Race the sides and print; returns what goes into the JSON."""
    runs: dict[str, Callable[[], None]] = {"session": sides.session, "loop": sides.loop, "pipeline": sides.pipeline}
    count = len(sides.files)
    seconds = {name: taken / count for name, taken in race(runs, ROUNDS).items()}
    print(f"{count} images, {sides.detector}: " + ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in seconds.items()))
    ratios = {f"pipeline_over_{name}": seconds[name] / seconds["pipeline"] for name in ("session", "loop")}
    for name, value in ratios.items():
        print(f"{name}: {value:.2f}")
    layers = sides.detector.backbone.info.layers
    values = sum(item.channels * item.hw[0] * item.hw[1] for item in layers) * np.dtype(sides.detector.cache.dtype).itemsize
    speeds = {
        "pipeline_written_gb_per_second": sides.stored / count / seconds["pipeline"] / 1e9,
        "pipeline_uncompressed_gb_per_second": values / seconds["pipeline"] / 1e9,
    }
    for name, value in speeds.items():
        print(f"{name}: {value:.3g}")
    return {"images": count, "setting": str(sides.detector), **ratios, **speeds}


def main() -> None:
    """Choose detector and images, measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int)
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--layers", nargs="+", default=["layer_34"], choices=LAYERS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = Path(load_section(DataParams, "data").val.images)
    files = image_files(pd.read_parquet(INDEX), folder)[: options.images or (FULL_SIZE_IMAGES if options.full_size else None)]
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as temporary:
        detectors = open_detectors(Path(temporary), folder, options.layers if options.full_size else None)
        result = measure(Sides(*detectors, files))
    if options.json:
        write_json(options.json, {"full_size": options.full_size, **result})


if __name__ == "__main__":
    main()
