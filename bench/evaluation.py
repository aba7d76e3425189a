"""Evaluation beside a training epoch over the same images, and its memory for many predictions.

    python -m bench.evaluation [--rounds 5] [--rois 5000 50000] [--json FILE]

In turn, in one process, with the head of `models/heads/default`: an epoch of the run with its validation, an epoch of training on
the validation images, and all that the stage `evaluate` does with them, first to last file. Told apart are the pass, in which
everything is measured, and what is shown of it: pictures, charts and the page, which cost the same for any number of images.

Memory: the validation images again and again until they have so many ROIs, and predictions that are drawn by rule instead of by a
head. The peak is of RssAnon + RssShmem of a process of its own. Needs the outs of `dvc repro`.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.memory import SOURCE, peak_mb, repeat_index
from bench.places import PATHS
from roiseg.cache.source import FeatureSource
from roiseg.coco import DataParams, load_prepared, to_coco
from roiseg.dataset import RoiDataset
from roiseg.evaluate import evaluate as stage
from roiseg.evaluate.checkpoints import paths_in
from roiseg.evaluate.chosen import SplitFiles
from roiseg.evaluate.evaluate import Trained, evaluate
from roiseg.evaluate.params import EvaluateParams
from roiseg.files import write_json
from roiseg.index import Index
from roiseg.nn.outputs import HeadOutput
from roiseg.params import load_params, load_section
from roiseg.previews import IMAGES_PER_GROUP, PREVIEWS_FILE
from roiseg.progress import Ticker
from roiseg.train.checkpoint import BEST
from roiseg.train.loop import Trainer
from roiseg.train.train import TrainPaths, TrainSections, make_run
from roiseg.train.world import deterministic
from roiseg.trained import FEATURES, HEADS, HeadSections, load_head
from roiseg.types import PLAIN, FeatureSpec, View, Window
from roiseg.work import WORK

HEAD = "default"


def val_files(values: Mapping[str, Any]) -> SplitFiles:
    """What `prepare` wrote of the validation images."""
    return SplitFiles.of("val", load_section(DataParams, "data", values))


@contextmanager
def clocked(seconds: dict[str, float]) -> Iterator[None]:
    """What `evaluate` shows, timed apart."""
    show = stage._show

    def timed(*arguments: Any) -> None:  # noqa: ANN401 - passed on as they come
        began = time.monotonic()
        show(*arguments)
        seconds["shown"] = time.monotonic() - began

    with mock.patch.object(stage, "_show", timed):
        yield


def trainer_on_val(root: Path, values: dict[str, Any]) -> Trainer:
    """A trainer whose training images are the validation images.

    Args:
        root: an empty folder.
        values: params; are changed.
    """
    for split in ("train", "val"):
        for kind, source in (("index", SOURCE), ("features", FEATURES / "val.zarr")):
            target = root / kind / (f"{split}.zarr" if kind == "features" else split)
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(source.resolve(), target_is_directory=True)
    # The table of ROIs is of the training images, and these are validation images.
    values["sampler"] |= {"non_target_gamma": 0.0, "balance": "none"}
    where = TrainPaths(PATHS.statistics, PATHS.rois, root / "index", root / "features", root, root)
    return Trainer(make_run(TrainSections.load(values), where, []), root / "run")


def compare(root: Path, rounds: int) -> dict[str, Any]:
    """Median seconds of an epoch, of the pass and of what is shown, and their ratios.

    Args:
        root: an empty folder.
        rounds: how often each is timed, after one that isn't.
    """
    values = load_params(HEAD)
    sections = HeadSections.load(values)
    dataset = sections.open_split("val")
    params = load_section(EvaluateParams, "evaluate", values)
    module, _ = load_head(HEADS / HEAD, params.checkpoint, sections, dataset)
    paths = paths_in(root / "out", HEAD, val_files(values), Path(params.detections), pictures=True)
    values["train"] |= {"epochs": rounds + 1, "device": "auto", "devices": 1, "phases": []}
    own = Trainer(make_run(TrainSections.load(values), PATHS, []), root / "own")
    trainers = {"own_epoch": own, "epoch": trainer_on_val(root, values)}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spent: dict[str, list[float]] = {name: [] for name in ("own_epoch", "epoch", "pass", "shown")}
    with deterministic():
        learners = {name: trainer.learner(1, None) for name, trainer in trainers.items()}
        for epoch in range(1, rounds + 2):
            for name, trainer in trainers.items():
                began = time.monotonic()
                trainer.train_epoch(learners[name], epoch, Ticker("bench", 1, None))
                if name == "own_epoch":
                    trainer.validate(learners[name])
                spent[name].append(time.monotonic() - began)
            began, part = time.monotonic(), {"shown": 0.0}
            with clocked(part):
                evaluate(Trained(module, HEAD, BEST), dataset, params, sections.reader, paths, device=device)
            spent["shown"].append(part["shown"])
            spent["pass"].append(time.monotonic() - began - part["shown"])
    seconds = {name: median(times[1:]) for name, times in spent.items()}
    whole = seconds["pass"] + seconds["shown"]
    return {
        "images": len(dataset.index),
        "rois": int(dataset.index.rois_per_image.sum()),
        "seconds": seconds,
        "pass_over_epoch": seconds["pass"] / seconds["epoch"],
        "evaluation_over_epoch": whole / seconds["epoch"],
        "evaluation_over_own_epoch": whole / seconds["own_epoch"],
    }


class Repeated(FeatureSource):
    """A store whose images come again and again."""

    def __init__(self, source: FeatureSource, count: int) -> None:
        """Stretch a store to `count` images, numbered from 0."""
        self._source, self._count, self.path = source, count, source.path

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """0, 1, ..."""
        return np.arange(self._count)

    @property
    def views(self) -> tuple[View, ...]:
        """Those of the store."""
        return self._source.views

    @property
    def specs(self) -> Mapping[str, FeatureSpec]:
        """Those of the store."""
        return self._source.specs

    @property
    def shapes(self) -> Mapping[str, tuple[int, int, int]]:
        """Those of the store."""
        return self._source.shapes

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """Those of the store."""
        return self._source.dtypes

    @property
    def scales(self) -> Mapping[str, NDArray[np.float32]]:
        """Those of the store."""
        return self._source.scales

    @property
    def asked(self) -> dict[str, Any]:
        """Those of the store."""
        return self._source.asked

    @property
    def found(self) -> dict[str, Any]:
        """Those of the store."""
        return self._source.found

    def read_into(self, row: int, layer: str, out: NDArray[Any], view: View = PLAIN) -> None:
        """As the store."""
        self._source.read_into(row % len(self._source), layer, out, view)

    def read_window_into(self, row: int, layer: str, window: Window, out: NDArray[Any], view: View = PLAIN) -> None:
        """As the store."""
        self._source.read_window_into(row % len(self._source), layer, window, out, view)


class Ruled(nn.Module):
    """Sees an ellipse in each ROI and somebody else on its left, the surer the larger the ROI is."""

    def __init__(self, mask_hw: tuple[int, int]) -> None:
        super().__init__()
        y, x = (torch.linspace(-1, 1, count) for count in mask_hw)
        self.inside = 1 - (y**2)[:, None] - (x**2)[None]
        self.left = (-x - 0.6)[None].expand(*mask_hw)

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> HeadOutput:
        """Logits by rule, whatever the features."""
        sure = 1 + 5 * (boxes[:, 3] - boxes[:, 1]).reshape(-1, 1, 1)
        return HeadOutput(torch.stack([torch.zeros_like(sure * self.inside), sure * self.inside, sure * self.left], dim=1), {})


def repeat_annotations(out: Path, annotations: Path, count: int) -> None:
    """The annotations to `repeat_index`."""
    people = load_prepared(annotations)
    rows = {int(item["id"]): row for row, item in enumerate(people.images)}
    step = max(int(item["id"]) for item in people.annotations) + 1
    images, found = [], []
    for start in range(0, count, len(rows)):
        images += [item | {"id": rows[int(item["id"])] + start} for item in people.images]
        found += [
            item | {"id": int(item["id"]) + start // len(rows) * step, "image_id": rows[int(item["image_id"])] + start}
            for item in people.annotations
        ]
    kept = to_coco(replace(people, images=images[:count], annotations=[item for item in found if item["image_id"] < count]))
    write_json(out, kept, indent=None)


def repeat_previews(out: Path, count: int) -> None:
    """The previews to `repeat_index`."""
    source = pq.read_table(SOURCE / PREVIEWS_FILE)
    with pq.ParquetWriter(out, source.schema, compression="none") as writer:
        for start in range(0, count, IMAGES_PER_GROUP):
            ids = np.arange(start, min(start + IMAGES_PER_GROUP, count))
            part = source.take(ids % len(source))
            writer.write_table(part.set_column(0, "image_id", pa.array(ids)), row_group_size=IMAGES_PER_GROUP)


def run_evaluation(root: Path) -> None:
    """Evaluate `Ruled` on what lies in `root`."""
    torch.set_num_threads(1)
    values = load_params(HEAD)
    sections = HeadSections.load(values)
    plain = sections.open_split("val")
    index = Index(root / "index/val", sections.extractor.input_hw, sections.extractor.resize)
    layer = min(plain.layers, key=lambda name: int(np.prod(plain.store.shapes[name])))
    dataset = RoiDataset(index, Repeated(plain.store, len(index)), sections.dataset, [layer], sections.model.mask_hw)
    read = SplitFiles(root / "index/val", root / "people.json")
    paths = replace(paths_in(root / "out", HEAD, read, root / "boxes.parquet", pictures=True), pictures=None)
    params = load_section(EvaluateParams, "evaluate", values)
    evaluate(
        Trained(Ruled(sections.model.mask_hw), HEAD, "by rule"), dataset, params, sections.reader, paths, device=torch.device("cpu")
    )


def memory(root: Path, rois: int) -> dict[str, float]:
    """Peak of an evaluation of so many ROIs, and as many detected boxes.

    Args:
        root: an empty folder.
        rois: how many, at least.
    """
    values = load_params(HEAD)
    plain = HeadSections.load(values).open_split("val")
    count = -(-rois // int(plain.index.rois_per_image.sum())) * len(plain.index)
    repeat_index(root / "index", count)
    repeat_annotations(root / "people.json", val_files(values).annotations, count)
    repeat_previews(root / "index/val" / PREVIEWS_FILE, count)
    people = pq.read_table(root / "index/val/people.parquet", columns=["row", "image_id", "x0", "y0", "x1", "y1", "drop_reason"])
    kept = people.filter(pa.compute.is_null(people["drop_reason"])).drop_columns(["drop_reason"])
    pq.write_table(kept.append_column("score", pa.array(np.linspace(0.9, 0.1, len(kept)))), root / "boxes.parquet")
    began = time.monotonic()
    peak = peak_mb(run_evaluation, root)
    return {"rois": len(kept), "images": count, "peak_mb": peak, "seconds": time.monotonic() - began}


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rois", type=int, nargs="*", default=[5000, 50000])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    found: dict[str, Any] = {}
    if options.rounds:
        with tempfile.TemporaryDirectory(dir=WORK) as temporary:
            found |= compare(Path(temporary), options.rounds)
        seconds = ", ".join(f"{name} {value:.2f} s" for name, value in found["seconds"].items())
        print(f"{found['images']} images, {found['rois']} ROIs: {seconds}")
        print(f"evaluation over an epoch of the run and its validation: {found['evaluation_over_own_epoch']:.2f}; over one of")
        print(f"training on the same images: {found['evaluation_over_epoch']:.2f}, its pass alone: {found['pass_over_epoch']:.2f}")
    found["memory"] = []
    for rois in options.rois:
        with tempfile.TemporaryDirectory(dir=WORK) as temporary:
            row = memory(Path(temporary), rois)
        print(f"{row['rois']} ROIs, as many detected boxes: peak {row['peak_mb']:.0f} MB, {row['seconds']:.0f} s")
        found["memory"].append(row)
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
