"""Decode -> infer -> write, overlapped through bounded queues.

Threads decode image files ahead of the session; others run it, several batches side by side on a processor, because two runs on a
core each take less time than one after the other on both; one thread compresses and writes, image by image, into the open shard.
What waits between them is bounded: a few batches of uint8 images, and a fixed set of output buffers that goes round.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from roiseg.cache.writer import OpenShard, StoreWriter
from roiseg.errors import RoisegError, StoreError
from roiseg.extractor.clock import Clock
from roiseg.extractor.detections import read_detections
from roiseg.extractor.inputs import ImageFile, Images, batches
from roiseg.extractor.params import ExtractorParams
from roiseg.extractor.session import Backbone
from roiseg.files import write_parquet
from roiseg.network_input import Pixels, as_input
from roiseg.progress import progress
from roiseg.types import IMAGE, MIRRORED, PLAIN, View, array_name

logger = logging.getLogger(__name__)

WRITES_AHEAD = 2
"""Batches of outputs that wait for the writer."""

Values = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Inferred:
    """What the detector gave for a batch.

    Attributes:
        files: images of the batch.
        values: array -> (batch_size, C, H, W), in buffers that go round.
        boxes: per image (k, 5), see `read_detections`.
    """

    files: Sequence[ImageFile]
    values: Values
    boxes: Sequence[NDArray[Any]]


@dataclass
class Extraction:
    """One run over a split: what it reads, runs and writes, and what it counted."""

    backbone: Backbone
    writer: StoreWriter
    params: ExtractorParams
    folder: Path

    def __post_init__(self) -> None:
        self.clock = Clock()
        self._boxes = self.folder / "detections"
        self._boxes.mkdir(exist_ok=True)
        self._broken = False
        self._arrays = [array.name for array in self.writer.computed]
        # Each buffer is computed on, waits for its turn, or is being written.
        count = self.backbone.side_by_side + 1 + WRITES_AHEAD
        self._free: SimpleQueue[Values] = SimpleQueue()
        for _ in range(count):
            self._free.put(self._buffers())

    def _layers(self, view: View) -> dict[str, str]:
        """Array -> layer, of the arrays of a view that the detector gives."""
        names = {array_name(layer, view): layer for layer in self.backbone.digests}
        return {name: layer for name, layer in names.items() if name in self._arrays}

    def _buffers(self) -> Values:
        values: Values = {}
        for view in (PLAIN, MIRRORED):
            names = self._layers(view)
            made = self.backbone.buffers(names.values(), self.params.batch_size)
            values |= {name: made[layer] for name, layer in names.items()}
        if IMAGE in self._arrays:
            values[IMAGE] = np.empty((self.params.batch_size, 3, *self.params.input_hw), dtype=np.uint8)
        return values

    def run(self, files: Sequence[ImageFile], threads: int, images: Images | None = None) -> None:
        """Fill every missing shard.

        Args:
            files: all images in row order.
            threads: decoding threads.
            images: where they come from; None: their files.

        Raises:
            ImageReadError, MissingImageError: with all finished shards kept.
            StoreError: the network gave values that the stored type can't hold.
            DiskSpaceError: the disk ran full.
        """
        wanted = [files[row] for shard in self.writer.missing() for row in self.writer.rows(shard)]
        if len(wanted) < len(files):
            logger.info("%s: %d of %d images are there already", self.folder, len(files) - len(wanted), len(files))
        writing: deque[Future[None]] = deque()
        with _Filling(self.writer, self._boxes) as filling, ThreadPoolExecutor(1) as pool, progress("extract", len(wanted)) as tick:
            for inferred in self._infer_all(wanted, threads, images):
                writing.append(pool.submit(self._write, filling, inferred))
                tick(len(inferred.files))
                with self.clock("wait for the writer"):
                    while len(writing) > WRITES_AHEAD:
                        writing.popleft().result()
            while writing:
                writing.popleft().result()
        self._log_times()

    def _infer_all(self, files: Sequence[ImageFile], threads: int, images: Images | None) -> Iterator[Inferred]:
        """Batches in order; an image that can't be read stops them only after all before it."""
        source = batches(files, self.params, threads, self.clock, images)
        running: deque[Future[Inferred]] = deque()
        stop: RoisegError | None = None
        with ThreadPoolExecutor(self.backbone.side_by_side) as pool:
            while True:
                try:
                    batch = next(source, None)
                except RoisegError as error:
                    stop = error
                    break
                if batch is None:
                    break
                running.append(pool.submit(self._infer, *batch))
                if len(running) > self.backbone.side_by_side:
                    yield self._next(running)
            while running:
                yield self._next(running)
        if stop is not None:
            raise stop

    def _next(self, running: "deque[Future[Inferred]]") -> Inferred:
        with self.clock("wait for the detector"):
            return running.popleft().result()

    def _infer(self, files: Sequence[ImageFile], images: Pixels) -> Inferred:
        values = self._free.get()
        with self.clock("infer"):
            plain = {layer: values[name] for name, layer in self._layers(PLAIN).items()}
            raw = None
            detect = self.params.detections is not None
            if plain or (detect and self.backbone.info.detections):
                raw = self.backbone.run_into(as_input(images, self.params.input_rule()), plain, detect=detect)
            mirrored = {layer: values[name] for name, layer in self._layers(MIRRORED).items()}
            if mirrored:
                self.backbone.run_into(as_input(images[..., ::-1], self.params.input_rule()), mirrored, detect=False)
        if IMAGE in values:
            values[IMAGE][...] = images if self.params.color == "rgb" else images[:, ::-1]
        return Inferred(files, values, self._split_boxes(raw, files))

    def _split_boxes(self, raw: NDArray[Any] | None, part: Sequence[ImageFile]) -> list[NDArray[Any]]:
        """The detector's boxes of each image; none where the graph or the params have none."""
        if raw is None or self.params.detections is None:
            return [np.zeros((0, 5))] * len(part)
        return read_detections(raw, self.params.detections.rule(), [file.image_hw for file in part], self.params.input_rule())

    def _write(self, filling: "_Filling", inferred: Inferred) -> None:
        try:
            if self._broken:
                return
            self._broken = True
            with self.clock("write"):
                for number, file in enumerate(inferred.files):
                    values = {name: item[number] for name, item in inferred.values.items()}
                    for name, item in values.items():
                        _check_finite(name, item, file.row)
                    filling.add(file.row, values, inferred.boxes[number])
            # Only now: the batches that wait behind one that failed must not be written into its shard.
            self._broken = False
        finally:
            # A run that waits for them would never end.
            self._free.put(inferred.values)

    def _log_times(self) -> None:
        """Which side made the others wait; to the log only, for times differ between equal runs."""
        logger.info("seconds: %s", ", ".join(f"{name} {value:.1f}" for name, value in self.clock.seconds.items()))

    def detections(self, image_ids: NDArray[np.int64]) -> pd.DataFrame:
        """All boxes of the split: row, image_id, x0, y0, x1, y1 (unit frame), score."""
        parts = [pd.read_parquet(self._boxes / f"{shard}.parquet") for shard in range(self.writer.count)]
        table = pd.concat(parts, ignore_index=True)
        table.insert(1, "image_id", image_ids[table["row"].to_numpy(dtype=np.int64)])
        return table


class _Filling:
    """The shard that is open, and the boxes of its images."""

    def __init__(self, writer: StoreWriter, boxes: Path) -> None:
        self._writer, self._folder = writer, boxes
        self._opened: OpenShard | None = None
        self._boxes: list[NDArray[Any]] = []

    def __enter__(self) -> "_Filling":
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.abandon()

    def add(self, row: int, values: Values, boxes: NDArray[Any]) -> None:
        """Append the image of a row; rows of a shard come in order, and the last one closes it."""
        shard = row // self._writer.per_shard
        rows = self._writer.rows(shard)
        if self._opened is None:
            self._opened, self._boxes = self._writer.open_shard(shard), []
        if row != rows.start + len(self._boxes):
            raise StoreError(f"row {row} came where row {rows.start + len(self._boxes)} was due; nothing of its shard is kept")
        self._opened.append(values)
        self._boxes.append(boxes)
        if row == rows[-1]:
            self._write_boxes(shard, rows)
            self._opened.close()
            self._opened = None

    def _write_boxes(self, shard: int, rows: range) -> None:
        counts = np.array([len(boxes) for boxes in self._boxes], dtype=np.int64)
        table = pd.DataFrame(np.concatenate(self._boxes).reshape(-1, 5), columns=["x0", "y0", "x1", "y1", "score"])
        table.insert(0, "row", np.repeat(np.arange(rows.start, rows.stop), counts))
        write_parquet(self._folder / f"{shard}.parquet", table)


def _check_finite(name: str, values: NDArray[Any], row: int) -> None:
    """float16 must be finite; integers always are."""
    if values.dtype != np.float16:
        return
    bad = (values.view(np.uint16) & 0x7C00) == 0x7C00
    if bad.any():
        raise StoreError(
            f"layer {name!r}, row {row}: {int(bad.sum())} values don't fit float16 (infinite or not a number); "
            "set cache.dtype: int8, or look at the detector's input rule (extractor.pixel_max, extractor.color)"
        )
