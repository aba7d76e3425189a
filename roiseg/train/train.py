"""The `train` stage: params and paths to a trained head."""

import errno
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from roiseg.dataset import RoiDataset
from roiseg.errors import ParamsError, RoisegError, UnwritableError
from roiseg.evaluate.pictures import load_fixed
from roiseg.files import new_folder, sha256_file
from roiseg.heads import build_head
from roiseg.losses import LossParams, MaskLoss, class_weights, needs_frames
from roiseg.params import NOTHING_KEPT, load_section
from roiseg.sampler import Sampler, SamplerParams
from roiseg.train.folder import RunFolder
from roiseg.train.keep import check_same, kept_files, load_kept
from roiseg.train.log import Observer, Row, write_live
from roiseg.train.loop import Trainer
from roiseg.train.monitor import report_lines, weight_report
from roiseg.train.params import PhaseParams, TrainParams
from roiseg.train.phases import resolve_phases
from roiseg.train.progress_plot import NAME as PROGRESS
from roiseg.train.progress_plot import progress_plot
from roiseg.train.run import Phase, Run
from roiseg.train.world import World, make_fabric
from roiseg.trained import HeadSections
from roiseg.work import claimed, link, link_tree, mark_done, work_folder

REFUSALS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSections:
    """The sections that a head is trained by."""

    head: HeadSections
    sampler: SamplerParams
    loss: LossParams
    train: TrainParams

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> "TrainSections":
        """From the whole params, a head's preset laid over them.

        Raises:
            ParamsError: any fault.
        """
        return cls(
            HeadSections.load(values),
            load_section(SamplerParams, "sampler", values),
            load_section(LossParams, "loss", values),
            load_section(TrainParams, "train", values),
        )

    def described(self) -> dict[str, Any]:
        """What the checkpoints keep: all that shapes the head, and nothing that only makes it fast."""
        head = {"dataset": self.head.dataset, "sampler": self.sampler, "model": self.head.model}
        parts = {**head, "loss": self.loss, "train": self.train}
        return {name: json.loads(part.model_dump_json()) for name, part in parts.items()}

    def phases(self) -> list[tuple[PhaseParams | None, "TrainSections"]]:
        """The sections of each phase.

        Raises:
            ParamsError: see `resolve_phases`.
        """
        found = resolve_phases(self.train, self.head.model, self.loss)
        return [(phase, replace(self, head=replace(self.head, model=model), loss=loss)) for phase, model, loss in found]


@dataclass(frozen=True)
class TrainPaths:
    """What the stage reads and writes.

    Attributes:
        statistics: data_analyze.json.
        rois: the table of training ROIs, read if the sampler needs it.
        index: `data/index`.
        features: `data/features`.
        out: `models/heads/{head}`: `best_model.pth`, `untrained_model.pth`, `checkpoints/`.
        live: `metrics/train/{head}`: DVCLive's files, and `pictures/`.
    """

    statistics: Path
    rois: Path
    index: Path
    features: Path
    out: Path
    live: Path


def train_head(head: str, sections: TrainSections, paths: TrainPaths, observers: Sequence[Observer] = ()) -> dict[str, float]:
    """Train a head, going on where an earlier run was cut short, or where a kept one ended.

    Args:
        head: its name, an entry of `heads`.
        sections: params.
        paths: what is read and written.
        observers: told of each epoch.

    Returns:
        Figures of the last epoch.

    Raises:
        ParamsError: see `TrainSections.phases` and `Sampler`; or `train.additional_epochs` without a run to go on from.
        CheckpointError: see `roiseg.train.keep`.
        AnnotationError, StoreMismatchError: see `Sampler`.
        TrainingError: see `Trainer`.
        UnwritableError: the file system refuses a file of the run, or the outs.
        WorkBusyError: another process trains the same.
    """
    fabric = make_fabric(sections.train)
    fabric.launch()
    world = World(fabric)
    kept = kept_files(Path(sections.train.resume_from), head)
    if not kept and sections.train.additional_epochs is not None:
        raise ParamsError(
            f"train.additional_epochs is {sections.train.additional_epochs}, but train.resume_from is {NOTHING_KEPT!r}; name a "
            "kept run there, or set train.additional_epochs to null"
        )
    run = make_run(sections, paths, kept)
    stage = f"train@{head}"
    folder = work_folder(stage, _fingerprint(sections, paths, run, kept))
    with refusal_is_said(folder), claimed(folder) if world.is_first else nullcontext():
        rows = Trainer(run, folder, fabric, observers).fit()
        if world.is_first:
            _publish(RunFolder(folder), rows, sections.train.keep_checkpoints, paths)
            mark_done(folder, stage, (paths.statistics, paths.live / "metrics.json"))
        world.wait()
    return rows[-1]


@contextmanager
def refusal_is_said(folder: Path) -> Iterator[None]:
    """Turn the file system's refusal into an error that says where, and what is kept.

    Args:
        folder: named where the system names no file, as for a full disk.

    Raises:
        UnwritableError: no room, no right, or something else under a name.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, RoisegError) or error.errno not in REFUSALS:
            raise
        raise UnwritableError(
            f"{error.filename2 or error.filename or folder}: can't be written ({error.strerror}); see that nothing else has its "
            "name, that you may write there and that the disk has room, and run again: it goes on after the last finished epoch"
        ) from error


def make_run(sections: TrainSections, paths: TrainPaths, kept: Sequence[Path]) -> Run:
    """What to train on what.

    Args:
        sections: params.
        paths: what is read; what is written isn't looked at.
        kept: files of a run to go on from, see `roiseg.train.keep.kept_files`.

    Raises:
        ParamsError, CheckpointError, AnnotationError, StoreMismatchError: see `train_head`.
    """
    parts = sections.phases()
    train, val = (sections.head.open_split(split, paths.index, paths.features) for split in ("train", "val"))
    sampler = Sampler(train, sections.sampler, paths.rois)
    statistics = json.loads(paths.statistics.read_text())
    phases = [_make_phase(params, part, sampler, val, statistics) for params, part in parts]
    fixed = load_fixed(paths.index / "val" / "pictures", val)
    run = Run(phases, fixed, sections.train, sections.head.reader, load_kept(kept))
    if run.kept is not None:
        phase = run.phase_of(run.kept.last.epoch)
        check_same(run.kept.last, phase.described, phase.train.store.asked, run.epochs, str(kept[0]))
    return run


def _make_phase(
    params: PhaseParams | None, sections: TrainSections, sampler: Sampler, val: RoiDataset, statistics: Mapping[str, Any]
) -> Phase:
    model = sections.head.model
    # A head that decodes the whole map does so on the grid of its first layer.
    frame_hw = val.store.shapes[model.layers[0]][1:] if needs_frames(sections.loss) else None
    return Phase(
        name=params.name if params else None,
        until=params.until if params else None,
        build=partial(build_head, model, val.store.specs),
        loss=MaskLoss(sections.loss, class_weights(sections.loss.class_weights, statistics)),
        sampler=sampler.read_by(model.layers, model.mask_hw, frame_hw),
        val=val.read_by(model.layers, model.mask_hw),
        described=sections.described(),
    )


def _fingerprint(sections: TrainSections, paths: TrainPaths, run: Run, kept: Sequence[Path]) -> dict[str, Any]:
    stores = {"train": run.phases[-1].train.store, "val": run.phases[-1].val.store}
    return {
        "params": [phase.described for phase in run.phases],
        "statistics": sha256_file(paths.statistics),
        "rois": sha256_file(paths.rois) if sections.sampler.needs_shares else None,
        "stores": {name: [store.asked, store.found] for name, store in stores.items()},
        "index": {
            f"{name}/{table}": sha256_file(paths.index / name / f"{table}.parquet")
            for name in ("train", "val")
            for table in ("images", "people")
        },
        "kept": {path.name: sha256_file(path) for path in kept},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _publish(folder: RunFolder, rows: list[Row], keep: int | None, paths: TrainPaths) -> None:
    models = folder.path / "models"
    shutil.rmtree(models, ignore_errors=True)
    (models / "checkpoints").mkdir(parents=True)
    for path in folder.to_publish(keep):
        link(str(folder.path / path), str(models / path))
    link_tree(models, paths.out)
    with new_folder(paths.live) as aside:
        write_live(rows, aside)
        if folder.pictures.is_dir():
            shutil.copytree(folder.pictures, aside / "pictures")
        progress_plot(rows, aside / "pictures" / PROGRESS)
    for line in report_lines(weight_report(rows)):
        logger.info(line)
