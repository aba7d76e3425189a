"""Decode -> infer -> write, overlapped through bounded queues.

Threads decode image files ahead of the session, the calling thread runs the session, and one thread compresses and writes
finished shards. What waits between them is bounded: a few batches of inputs, and two shards of outputs.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from roiseg.cache.writer import StoreWriter
from roiseg.errors import StoreError
from roiseg.extractor.detections import read_detections
from roiseg.extractor.inputs import ImageFile, batches
from roiseg.extractor.params import ExtractorParams
from roiseg.extractor.session import Backbone
from roiseg.files import write_json, write_parquet
from roiseg.progress import progress

logger = logging.getLogger(__name__)


@dataclass
class Extraction:
    """One run over a split: what it reads, runs and writes, and what it counted."""

    backbone: Backbone
    writer: StoreWriter
    params: ExtractorParams
    folder: Path

    def __post_init__(self) -> None:
        self._clock: Counter[str] = Counter()
        self._boxes = self.folder / "detections"
        self._boxes.mkdir(exist_ok=True)
        self._int8 = self.backbone.info.dtype == "int8"

    def run(self, files: Sequence[ImageFile], threads: int) -> None:
        """Fill every missing shard.

        Args:
            files: all images in row order.
            threads: decoding threads.

        Raises:
            ImageReadError, MissingImageError: with all finished shards kept.
            StoreError: the network gave values that the stored type can't hold.
        """
        todo = [self.writer.rows(shard) for shard in self.writer.missing()]
        wanted = [files[row] for rows in todo for row in rows]
        if len(wanted) < len(files):
            logger.info("%s: %d of %d images are there already", self.folder, len(files) - len(wanted), len(files))
        with ThreadPoolExecutor(1) as pool, progress("extract", len(wanted)) as tick:
            source = self._rows(wanted, threads, tick)
            pending: Future[None] | None = None
            for shard in self.writer.missing():
                rows = self.writer.rows(shard)
                filled = self._gather(source, len(rows))
                pending = self._hand_over(pending, pool, shard, rows, filled)
            self._hand_over(pending, pool, None, range(0), {})
        self._log_times()

    def _rows(self, files: Sequence[ImageFile], threads: int, tick: Callable[[int], None]) -> Iterator[dict[str, NDArray[Any]]]:
        for part, inputs in batches(files, self.params, threads, self._clock):
            began = time.monotonic()
            outputs = self.backbone(inputs)
            self._clock["infer"] += int((time.monotonic() - began) * 1e6)
            boxes = self._split_boxes(outputs, part)
            for number in range(len(part)):
                yield {layer.name: outputs[layer.name][number] for layer in self.backbone.info.layers} | {"boxes": boxes[number]}
            tick(len(part))

    def _split_boxes(self, outputs: dict[str, NDArray[Any]], part: Sequence[ImageFile]) -> list[NDArray[Any]]:
        """The detector's boxes of each image; none where the graph or the params have none."""
        name, rule = self.backbone.info.detections, self.params.detections
        if name is None or rule is None:
            return [np.zeros((0, 5))] * len(part)
        return read_detections(outputs[name], rule, [file.image_hw for file in part], self.params)

    def _gather(self, source: Iterator[dict[str, NDArray[Any]]], count: int) -> dict[str, Any]:
        filled: dict[str, Any] = {
            layer.name: np.empty((count, layer.channels, *layer.hw), dtype=self.backbone.info.dtype)
            for layer in self.backbone.info.layers
        }
        boxes = []
        for position in range(count):
            item = next(source)
            for layer in self.backbone.info.layers:
                filled[layer.name][position] = item[layer.name]
            boxes.append(item["boxes"])
        return filled | {"boxes": boxes}

    def _hand_over(
        self,
        pending: "Future[None] | None",
        pool: ThreadPoolExecutor,
        shard: int | None,
        rows: range,
        filled: dict[str, Any],
    ) -> "Future[None] | None":
        """Wait for the shard before, then let the writer have this one."""
        began = time.monotonic()
        if pending is not None:
            pending.result()
        self._clock["write_wait"] += int((time.monotonic() - began) * 1e6)
        return None if shard is None else pool.submit(self._write, shard, rows, filled)

    def _write(self, shard: int, rows: range, filled: dict[str, Any]) -> None:
        began = time.monotonic()
        saturated = 0
        for layer in self.backbone.info.layers:
            saturated += self._check_values(layer.name, filled[layer.name], rows)
        counts = np.array([len(boxes) for boxes in filled["boxes"]], dtype=np.int64)
        table = pd.DataFrame(np.concatenate(filled["boxes"]).reshape(-1, 5), columns=["x0", "y0", "x1", "y1", "score"])
        table.insert(0, "row", np.repeat(np.arange(rows.start, rows.stop), counts))
        write_parquet(self._boxes / f"{shard}.parquet", table)
        write_json(self._boxes / f"{shard}.json", {"saturated": saturated})
        self.writer.write(shard, filled)
        self._clock["write"] += int((time.monotonic() - began) * 1e6)

    def _check_values(self, name: str, values: NDArray[Any], rows: range) -> int:
        """Number of saturated int8 values; float16 must be finite."""
        if self._int8:
            return int(np.count_nonzero(values == 127) + np.count_nonzero(values == -127))
        bad = (values.view(np.uint16) & 0x7C00) == 0x7C00
        if bad.any():
            row = rows.start + int(np.flatnonzero(bad.reshape(len(values), -1).any(axis=1))[0])
            raise StoreError(
                f"layer {name!r}, row {row}: {int(bad.sum())} values don't fit float16 (infinite or not a number); "
                "set cache.dtype: int8, or look at the detector's input rule (extractor.pixel_max, extractor.color)"
            )
        return 0

    def _log_times(self) -> None:
        """Which side made the others wait; to the log only, for times differ between equal runs."""
        logger.info("seconds: %s", ", ".join(f"{name} {value / 1e6:.1f}" for name, value in sorted(self._clock.items())))

    def detections(self, image_ids: NDArray[np.int64]) -> pd.DataFrame:
        """All boxes of the split: row, image_id, x0, y0, x1, y1 (unit frame), score."""
        parts = [pd.read_parquet(self._boxes / f"{shard}.parquet") for shard in range(self.writer.count)]
        table = pd.concat(parts, ignore_index=True)
        table.insert(1, "image_id", image_ids[table["row"].to_numpy(dtype=np.int64)])
        return table

    def saturated(self) -> int:
        """Number of int8 values at the end of their range, over all shards."""
        records = (json.loads((self._boxes / f"{shard}.json").read_text()) for shard in range(self.writer.count))
        return sum(int(record["saturated"]) for record in records)
