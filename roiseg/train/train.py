"""The `train` stage: params and paths to a trained head."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from roiseg.evaluate.pictures import load_fixed
from roiseg.files import new_folder, sha256_file
from roiseg.heads import build_head
from roiseg.losses import LossParams, MaskLoss, class_weights
from roiseg.train.checkpoint import BEST, by_epoch
from roiseg.train.log import MetricsLog, write_live
from roiseg.train.loop import Run, Trainer
from roiseg.train.params import TrainParams
from roiseg.trained import HeadSections
from roiseg.work import claimed, link_tree, mark_done, work_folder


@dataclass(frozen=True)
class TrainSections:
    """The sections that a head is trained by."""

    head: HeadSections
    loss: LossParams
    train: TrainParams

    def described(self) -> dict[str, Any]:
        """What the checkpoints keep: all that shapes the head, and nothing that only makes it fast."""
        parts = {"dataset": self.head.dataset, "model": self.head.model, "loss": self.loss, "train": self.train}
        return {name: json.loads(part.model_dump_json()) for name, part in parts.items()}


def train_head(
    stage: str, sections: TrainSections, statistics: Path, index: Path, features: Path, out: Path, live: Path
) -> dict[str, float]:
    """Train a head, going on where an earlier run was cut short.

    Args:
        stage: name of the stage in dvc.yaml.
        sections: params.
        statistics: data_analyze.json.
        index: `data/index`.
        features: `data/features`.
        out: `models/heads/{head}`: `best.pth`, `checkpoints/`.
        live: `metrics/train/{head}`: DVCLive's files, and `pictures/`.

    Returns:
        Figures of the last epoch.

    Raises:
        TrainingError: see `Trainer.fit`.
        WorkBusyError: another process trains the same.
    """
    train, val = (sections.head.open_split(split, index, features) for split in ("train", "val"))
    weights = class_weights(sections.loss.class_weights, json.loads(statistics.read_text()))
    fingerprint = {
        "params": sections.described(),
        "weights": list(weights),
        "stores": {name: [part.store.asked, part.store.found] for name, part in (("train", train), ("val", val))},
        "index": {
            f"{name}/{table}": sha256_file(index / name / f"{table}.parquet")
            for name in ("train", "val")
            for table in ("images", "people")
        },
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    folder = work_folder(stage, fingerprint)
    torch.manual_seed(sections.train.seed)
    head = build_head(sections.head.model, train.store.specs)
    fixed = load_fixed(index / "val" / "pictures", val)
    run = Run(
        head,
        MaskLoss(sections.loss, weights),
        train,
        val,
        fixed,
        sections.train,
        sections.head.reader,
        sections.described(),
    )
    with claimed(folder):
        Trainer(run, folder).fit()
        rows = MetricsLog(folder / "metrics.json").rows
        _publish(folder, rows, sections.train.keep_checkpoints, out, live)
        mark_done(folder, stage, (statistics, live / "metrics.json"))
    return rows[-1]


def _publish(folder: Path, rows: list[dict[str, float]], keep: int | None, out: Path, live: Path) -> None:
    models = folder / "models"
    shutil.rmtree(models, ignore_errors=True)
    (models / "checkpoints").mkdir(parents=True)
    kept = by_epoch(folder / "checkpoints")
    for path in kept if keep is None else kept[len(kept) - min(keep, len(kept)) :]:
        (models / "checkpoints" / path.name).hardlink_to(path)
    (models / BEST).hardlink_to(folder / BEST)
    link_tree(models, out)
    with new_folder(live) as aside:
        write_live(rows, aside)
        if (folder / "pictures").is_dir():
            shutil.copytree(folder / "pictures", aside / "pictures")
