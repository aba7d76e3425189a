"""Training from the cache against training with live extraction: the same head, images, batches, order and ROIs, in one run.

    python -m bench.training [--images 16] [--layers layer_34 ...] [--width 1.0] [--json FILE]

The head is the preset `roi_crop` on a detector as large as YOLOv9-E (bench/full_size.py), which first fills a store in the form of
params.yaml. Then epochs alternate. Both sides rasterise targets ahead in threads, dequantise, and make the same optimiser steps
from the same weights. From the cache, features are read ahead too; live, images are decoded ahead and the session runs between the
steps, on the very batches of the training; its int8 or float16 features pass through the processor's memory as cached ones do.

Prints milliseconds an image of each, their ratio, and the shares of their seconds in the session, in the head's step, and waiting
for data. Needs the outs of `dvc repro`; writes only to a temporary folder in `.work`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import pandas as pd
import torch

from bench.extraction import Detector
from bench.full_size import LAYERS, full_size_params, make_full_size
from bench.memory import repeat_index
from roiseg.batches import Batch, Loading, collate
from roiseg.cache.reader import FeatureStore
from roiseg.coco import DataParams
from roiseg.dataset import RoiDataset
from roiseg.extractor.inputs import ImageFile, image_files
from roiseg.extractor.inputs import batches as image_batches
from roiseg.files import write_json
from roiseg.heads import build_head
from roiseg.index import Index
from roiseg.losses import MaskLoss, class_weights
from roiseg.network_input import as_input
from roiseg.params import load_params, load_section
from roiseg.sampler import Sampler, Turns, training_batches
from roiseg.train.head_task import HeadTask
from roiseg.train.learner import Learner
from roiseg.train.loop import Clocked
from roiseg.train.run import Phase
from roiseg.train.step import Sums
from roiseg.train.train import TrainSections
from roiseg.train.world import World, deterministic, make_fabric
from roiseg.types import PLAIN
from roiseg.work import WORK

HEAD = "roi_crop"
ROUNDS = 3
EPOCH = 1
SAME_LOSS = 0.05
"""Largest difference of a step's losses between the sides, as a share: a GPU rounds an image otherwise in another batch."""


def load_sections(layers: list[str] | None) -> TrainSections:
    """The head's sections; `layers` in place of its own, where there are any."""
    values = load_params(HEAD)
    if layers:
        values["model"] |= {"layers": layers}
    # The table of ROIs is of the training images, and these are validation images. The store will hold plain views only.
    values["sampler"] |= {"non_target_gamma": 0.0, "balance": "none", "views": None}
    return TrainSections.load(values)


class Steps:
    """Steps of a head with fresh weights, the same each time, as `roiseg.train.loop` makes them but for its bookkeeping."""

    def __init__(self, sections: TrainSections, sampler: Sampler) -> None:
        """Set up on the device of `train.device`."""
        fabric = make_fabric(sections.train)
        torch.manual_seed(sections.train.seed)
        weights = class_weights(sections.loss.class_weights, json.loads(Path("metrics/data_analyze.json").read_text()))
        build = partial(build_head, sections.head.model, sampler.dataset.store.specs)
        phase = Phase(None, None, HeadTask(build, MaskLoss(sections.loss, weights), sampler, sampler.dataset), {})
        self._learner, self.device = Learner(fabric, World(fabric), phase, sections.train), fabric.device

    def step(self, batch: Batch) -> float:
        """Forward, backward, optimiser; returns the loss once the device is done."""
        sums = Sums()
        if wrong := self._learner.stepper.step([batch], sums):
            sys.exit(f"the {wrong.what} is {wrong.value} on rows {list(wrong.rows)}")
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return sums.means()["total"]


@dataclass(frozen=True)
class Epoch:
    """What an epoch took and did.

    Attributes:
        seconds: in the `session`, in the `head`'s step, waiting for `data`.
        steps: rows and loss of each batch.
    """

    seconds: Mapping[str, float]
    steps: Sequence[tuple[Sequence[int], float]]


class Sides:
    """An epoch from the cache and an epoch with live extraction."""

    def __init__(self, sections: TrainSections, detector: Detector, dataset: RoiDataset, files: Sequence[ImageFile]) -> None:
        """Join what both sides use.

        Args:
            sections: of the head.
            detector: whose batch size is that of the training.
            dataset: index, and store of the same images.
            files: the images, in row order.
        """
        self.detector, self.dataset = detector, dataset
        self._sampler = Sampler(dataset, sections.sampler, Path("data/rois.parquet"))
        self._sections, self._files = sections, files
        self._seed = sections.train.seed
        self._out = detector.buffers()

    def cached(self) -> Epoch:
        """As `Trainer` does it."""
        steps_of, reader = Steps(self._sections, self._sampler), self._sections.head.reader
        count, pinned = self._sections.train.images_per_batch, steps_of.device.type == "cuda"
        loading = Loading(count, reader.load_threads, reader.ahead, pinned=pinned)
        batches = Clocked(training_batches(self._sampler, loading, seed=self._seed, epoch=EPOCH))
        began = time.perf_counter()
        steps = [(batch.rows, steps_of.step(batch)) for batch in batches]
        taken = time.perf_counter() - began
        return Epoch({"head": taken - batches.waited, "data": batches.waited}, steps)

    def live(self) -> Epoch:
        """Decode, run the session, make the step; order and draws are those of `training_batches`, which `check` proves."""
        steps_of, reader = Steps(self._sections, self._sampler), self._sections.head.reader
        turns = Turns(self._sampler, self._seed, EPOCH)
        files = [self._files[row] for row in turns.rows.tolist()]
        seconds, steps = {"session": 0.0, "head": 0.0, "data": 0.0}, []
        with ThreadPoolExecutor(reader.load_threads) as pool:
            began = time.perf_counter()
            drawn = pool.map(turns.sample, range(len(files)))
            for part, images in image_batches(files, self.detector.extractor, reader.decode_threads):
                samples = list(islice(drawn, len(part)))
                loaded = time.perf_counter()
                self.detector.run(as_input(images, self.detector.extractor.input_rule()), self._out)
                inferred = time.perf_counter()
                features = {name: torch.from_numpy(self._out[name][: len(part)]) for name in self.dataset.layers}
                batch = collate(samples, features)
                steps.append((batch.rows, steps_of.step(batch)))
                seconds["data"] += loaded - began
                seconds["session"] += inferred - loaded
                began = time.perf_counter()
                seconds["head"] += began - inferred
        return Epoch(seconds, steps)


def check(cached: Epoch, live: Epoch) -> float:
    """Largest difference of a step's loss between two epochs, as a share of it; ends the program if they didn't do the same."""
    if [list(rows) for rows, _ in cached.steps] != [list(rows) for rows, _ in live.steps]:
        sys.exit("the sides trained on different batches: training_batches draws otherwise than this bench does")
    largest = max(abs(ours - theirs) / ours for (_, ours), (_, theirs) in zip(cached.steps, live.steps, strict=True))
    if not largest <= SAME_LOSS:
        sys.exit(f"a step's losses differ by {largest:.3f}, expected at most {SAME_LOSS}: the sides saw different features")
    return largest


def open_sides(root: Path, count: int, layers: list[str] | None, width: float) -> Sides:
    """Write the detector and fill a store with its features of the first validation images.

    Args:
        root: empty folder.
        count: images; the validation images again and again, where there are fewer.
        layers: in place of the head's own.
        width: factor on the channels of the detector.
    """
    sections = load_sections(layers)
    chosen = sections.head.model.layers
    if alien := set(chosen) - set(LAYERS):
        sys.exit(f"the detector has no {', '.join(sorted(alien))}; choose --layers out of {', '.join(LAYERS)}")
    extractor = full_size_params(sections.head.extractor, chosen)
    extractor = extractor.model_copy(update={"batch_size": sections.train.images_per_batch})
    folder, reader = Path(load_section(DataParams, "data").val.images), sections.head.reader
    # Nobody runs a live detector on both views of an image.
    cache = sections.head.cache.model_copy(update={"views": (PLAIN,), "image": False})
    repeat_index(root / "index", count)
    table = root / "index/train/images.parquet"
    make_full_size(root, extractor, cache.dtype, table, folder, reader.decode_threads, width)
    detector = Detector.open(root, extractor, cache, reader, 1)
    files = image_files(pd.read_parquet(table), folder)
    (root / "work").mkdir()
    path, _ = detector.fill(root / "work", files)
    index = Index(root / "index/train", extractor.input_hw, extractor.resize)
    store = FeatureStore(path, checksums=reader.checksums)
    dataset = RoiDataset(index, store, sections.head.dataset, chosen, sections.head.model.mask_hw)
    return Sides(sections, detector, dataset, files)


def measure(sides: Sides) -> dict[str, object]:
    """Alternate the sides, so that a noisy machine disturbs both alike, and print; returns what goes into the JSON."""
    epochs: dict[str, list[Epoch]] = {"cached": [], "live": []}
    with deterministic():
        sides.cached()  # warms the head; the session is warm from filling the store
        for _ in range(ROUNDS):
            epochs["cached"].append(sides.cached())
            epochs["live"].append(sides.live())
    count, difference = len(sides.dataset.rows), check(epochs["cached"][-1], epochs["live"][-1])
    setting = f"{count} images, {sides.detector}"
    print(f"{setting}: head {HEAD}, median of {ROUNDS} epochs")
    taken = {name: statistics.median(sum(item.seconds.values()) for item in done) for name, done in epochs.items()}
    shares: dict[str, dict[str, float]] = {}
    for name, done in epochs.items():
        total = sum(sum(item.seconds.values()) for item in done)
        shares[name] = {part: sum(item.seconds[part] for item in done) / total for part in done[0].seconds}
        shown = ", ".join(f"{part} {share:.1%}" for part, share in shares[name].items())
        print(f"{name:7}{taken[name] / count * 1e3:10.1f} ms an image: {shown}")
    ratio = taken["live"] / taken["cached"]
    print(f"live over cached: {ratio:.2f}; cached waits for data {shares['cached']['data']:.1%}; losses differ by {difference:.1e}")
    return {"images": count, "setting": setting, "live_over_cached": ratio, "loss_difference": difference, "shares": shares}


def main() -> None:
    """Fill a store, measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--layers", nargs="+")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as temporary:
        sides = open_sides(Path(temporary), options.images, options.layers, options.width)
        result = measure(sides)
    if options.json:
        write_json(options.json, {"width": options.width, **result})


if __name__ == "__main__":
    main()
