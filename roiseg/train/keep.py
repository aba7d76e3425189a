"""Kept heads: copies that DVC tracks apart from the stage that trained them, for a later run to go on from.

DVC deletes a stage's outs before it runs the stage, so a run can't go on from them.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from roiseg.errors import CheckpointError, ParamsError
from roiseg.files import new_folder
from roiseg.params import NOBODY, NOTHING_KEPT
from roiseg.train.checkpoint import BEST, Checkpoint, differing, load_checkpoint, newest
from roiseg.train.params import CONTINUATION
from roiseg.train.run import Kept

KEPT = Path(NOTHING_KEPT).parent
LAST = "last.pth"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


def keep(name: str, heads: Sequence[str], trained: Path, kept: Path = KEPT) -> Path:
    """Copy the newest and the best checkpoint of some heads, and hand the copy to DVC.

    Args:
        name: of the copy; one of that name is replaced.
        heads: names of trained heads.
        trained: `models/heads`.
        kept: `models/kept`.

    Returns:
        The folder, with one for each head in it.

    Raises:
        ParamsError: a name that can't be one.
        CheckpointError: a head without a checkpoint, or DVC refuses the folder.
    """
    if not _NAME.match(name) or name.endswith(".dvc") or kept / name in (Path(NOTHING_KEPT), Path(NOBODY)):
        raise ParamsError(
            f"{name!r} can't be the name of a kept run, expected letters, digits, '.', '_' and '-', and neither a name on .dvc nor "
            f"{Path(NOTHING_KEPT).name!r} or {Path(NOBODY).name!r}"
        )
    found = {head: newest(trained / head / "checkpoints") for head in heads}
    for head, path in found.items():
        if path is None:
            raise CheckpointError(
                f"{trained / head / 'checkpoints'}: no checkpoint; train the head (`dvc repro train`), with train.keep_checkpoints "
                "at least 1"
            )
    with new_folder(kept / name) as folder:
        for head, path in found.items():
            (folder / head).mkdir()
            shutil.copyfile(str(path), folder / head / LAST)
            if (best := trained / head / BEST).is_file():
                shutil.copyfile(best, folder / head / BEST)
    _track(kept / name)
    return kept / name


def _track(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", "add", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise CheckpointError(f"{folder}: `dvc add` failed, so nothing tracks it: {said}; mend that and keep it again")


def kept_files(folder: Path, head: str) -> list[Path]:
    """Files of a kept head; none where `folder` says that nothing is kept.

    Raises:
        CheckpointError: the head isn't among those that were kept.
    """
    if folder == Path(NOTHING_KEPT):
        return []
    if not (folder / head / LAST).is_file():
        heads = sorted(path.parent.name for path in folder.glob(f"*/{LAST}"))
        raise CheckpointError(
            f"train.resume_from is {str(folder)!r}, which has no checkpoint of head {head!r}, only of {', '.join(heads) or 'none'};"
            f" `dvc pull` it, keep the head by `roiseg train keep {folder.name}`, or set train.resume_from to {NOTHING_KEPT!r}"
        )
    return [path for path in (folder / head / LAST, folder / head / BEST) if path.is_file()]


def load_kept(files: Sequence[Path]) -> Kept | None:
    """What `kept_files` found, read.

    Raises:
        CheckpointError: damaged.
    """
    by_name = {path.name: path for path in files}
    return Kept(load_checkpoint(by_name[LAST]), by_name.get(BEST)) if by_name else None


def check_same(checkpoint: Checkpoint, params: Mapping[str, Any], fingerprint: Mapping[str, Any], epochs: int, where: str) -> None:
    """See that a run can go on from a checkpoint: with its params, on its features, to a later end.

    Args:
        checkpoint: of the kept run.
        params: today's sections as plain values, see `Checkpoint.params`.
        fingerprint: of the store to train on.
        epochs: of the whole run.
        where: names the checkpoint in messages.

    Raises:
        CheckpointError: every key that differs, with both values; or the run is as long as asked already.
    """
    free = {f"train.{name}" for name in CONTINUATION}
    lines = [*differing(checkpoint.params, params, free), *differing(checkpoint.fingerprint, fingerprint)]
    if lines:
        raise CheckpointError(
            f"{where}: a run goes on with the params and features that it began with, but {len(lines)} "
            f"value{'s differ' if len(lines) > 1 else ' differs'} (then -> now); put them back, or set train.resume_from to "
            f"{NOTHING_KEPT!r} for a run of its own:\n  " + "\n  ".join(lines)
        )
    if checkpoint.epoch >= epochs:
        raise CheckpointError(
            f"{where}: has {checkpoint.epoch} epochs, and the run is to have {epochs}; raise train.epochs, or set "
            "train.additional_epochs"
        )
