"""A run as a DVC stage: a work folder to resume in, and outs that appear whole."""

import errno
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from roiseg.errors import RoisegError, UnwritableError
from roiseg.files import new_folder, sha256_file
from roiseg.train.folder import RunFolder
from roiseg.train.log import Observer, Row, write_live
from roiseg.train.loop import Trainer
from roiseg.train.monitor import report_lines, weight_report
from roiseg.train.progress_plot import NAME as PROGRESS
from roiseg.train.progress_plot import progress_plot
from roiseg.train.run import Run
from roiseg.train.task import Task
from roiseg.train.world import World
from roiseg.work import claimed, link, link_tree, mark_done, work_folder

REFUSALS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outs:
    """What a stage that trains writes.

    Attributes:
        models: `best_model.pth`, `untrained_model.pth`, `checkpoints/`.
        live: DVCLive's files, and `pictures/`.
        known_by: files whose hashes tell in `dvc.lock` that DVC has taken the outs over, beside `live/metrics.json`.
    """

    models: Path
    live: Path
    known_by: Sequence[Path]


def train_run(
    stage: str, run: Run, fingerprint: Mapping[str, Any], outs: Outs, fabric: Fabric, observers: Sequence[Observer] = ()
) -> list[Row]:
    """Train in a work folder and publish, going on where an earlier run was cut short.

    Args:
        stage: name in dvc.yaml.
        run: what to train on what.
        fingerprint: all that shapes the outcome; torch and its threads are added.
        outs: where to.
        fabric: launched.
        observers: told of each epoch.

    Returns:
        A row of figures for each epoch.

    Raises:
        TrainingError: see `Trainer`.
        UnwritableError: the file system refuses a file of the run, or the outs.
        WorkBusyError: another process trains the same.
    """
    world = World(fabric)
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    folder = work_folder(stage, {**fingerprint, **machine})
    with refusal_is_said(folder), claimed(folder) if world.is_first else nullcontext():
        rows = Trainer(run, folder, fabric, observers).fit()
        if world.is_first:
            _publish(RunFolder(folder), rows, run.params.keep_checkpoints, outs)
            mark_done(folder, stage, (*outs.known_by, outs.live / "metrics.json"))
        world.wait()
    return rows


def stores_of(task: Task) -> dict[str, Any]:
    """What both stores of a task say of themselves, for a fingerprint."""
    return {name: [store.asked, store.found] for name, store in task.stores.items()}


def hash_index(index: Path) -> dict[str, str]:
    """Hashes of the tables of both splits.

    Args:
        index: `data/index`.
    """
    return {
        f"{name}/{table}": sha256_file(index / name / f"{table}.parquet")
        for name in ("train", "val")
        for table in ("images", "people")
    }


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


def _publish(folder: RunFolder, rows: list[Row], keep: int | None, outs: Outs) -> None:
    models = folder.path / "models"
    shutil.rmtree(models, ignore_errors=True)
    (models / "checkpoints").mkdir(parents=True)
    for path in folder.to_publish(keep):
        link(str(folder.path / path), str(models / path))
    link_tree(models, outs.models)
    with new_folder(outs.live) as aside:
        write_live(rows, aside)
        if folder.pictures.is_dir():
            shutil.copytree(folder.pictures, aside / "pictures")
        progress_plot(rows, aside / "pictures" / PROGRESS)
    for line in report_lines(weight_report(rows)):
        logger.info(line)
