"""Tests of a training that may not write: it says where and what to do, and the next one goes on after what was finished."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_factory import Project, sampler_params, shared_project
from trainer_factory import EPOCHS, TRAIN, files_of, loss_params

from roiseg.console import run_stage
from roiseg.train.params import TrainParams
from roiseg.train.train import TrainPaths, TrainSections, train_head

pytestmark = pytest.mark.usefixtures("stage_folder")

LOG = Path("logs/train@default.log")
OUT, LIVE = Path("models/heads/default"), Path("metrics/train/default")
REMEDY = (
    "see that nothing else has its name, that you may write there and that the disk has room, and run again: it goes on after the "
    "last finished epoch"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


@pytest.fixture(scope="module")
def whole(project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run leaves that may write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        train(project)
        return published()


def train(project: Project) -> None:
    sections = TrainSections(project.sections(), sampler_params(), loss_params(), TrainParams.parse(TRAIN, "train"))
    train_head("default", sections, TrainPaths(project.statistics, project.rois, project.index, project.features, OUT, LIVE))


def stage(project: Project) -> list[int]:
    """Run the stage; returns the epochs that it trained."""
    before = len(LOG.read_text()) if LOG.exists() else 0
    run_stage(LOG.stem, lambda: train(project))
    return trained(LOG.read_text()[before:])


def refused(project: Project, capsys: pytest.CaptureFixture[str]) -> tuple[list[int], str]:
    """Run the stage where it may not write; returns the epochs that it trained, and its last word."""
    with pytest.raises(SystemExit) as caught:
        stage(project)
    assert caught.value.code == 1
    said = LOG.read_text()
    assert "Traceback" not in said + capsys.readouterr().err
    return trained(said), said.splitlines()[-1].partition("ERROR train@default: ")[2]


def trained(log: str) -> list[int]:
    return [int(number) for number in re.findall(r"epoch (\d+): [\d.]+ s, [\d.]+ images/s", log)]


def published() -> dict[str, bytes]:
    return {f"{top}/{name}": held for top in ("models", "metrics") for name, held in files_of(Path(top)).items()}


def refusing(function: Callable[..., Any], name: str, error: OSError) -> Callable[..., Any]:
    """A function of `os` that fails on files of this name."""

    def call(source: Any, target: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if re.fullmatch(name, Path(target).name):
            raise OSError(error.errno, error.strerror, str(source), None, str(target))
        return function(source, target, **kwargs)

    return call


def test_a_file_stands_where_the_out_belongs(project: Project, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    Path("models").write_text("mine")
    epochs, said = refused(project, capsys)
    assert epochs == list(range(1, EPOCHS + 1))
    assert said == f"UnwritableError: models/heads: can't be written (Not a directory); {REMEDY}"
    assert Path("models").read_text() == "mine"
    Path("models").unlink()
    assert stage(project) == []
    assert published() == whole


@pytest.mark.parametrize(
    ("name", "error", "epochs"),
    [
        (r"checkpoint_epoch_0002.*", OSError(errno.ENOSPC, "No space left on device"), [1, 2]),
        (r"validation_.*_0003\.png", OSError(errno.EACCES, "Permission denied"), [1, 2, 3]),
        (r"untrained_model\.pth", OSError(errno.EROFS, "Read-only file system"), []),
    ],
    ids=["checkpoint", "picture", "untrained"],
)
def test_a_file_of_the_run_is_refused(
    project: Project,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    error: OSError,
    epochs: list[int],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refusing(os.replace, name, error))
        found, said = refused(project, capsys)
    assert found == epochs
    assert re.fullmatch(
        rf"UnwritableError: \.work/train-default-\w+/\S*{name}: can't be written \({error.strerror}\); {REMEDY}", said
    )
    assert stage(project) == list(range(max(len(epochs), 1), EPOCHS + 1))
    assert published() == whole


def test_a_full_disk_names_no_file_so_the_stage_names_its_folder(
    project: Project, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        _, said = refused(project, capsys)
    assert re.fullmatch(rf"UnwritableError: \.work/train-default-\w+: can't be written \(No space left on device\); {REMEDY}", said)
    assert not list(Path(".work").rglob("*.partial"))
    stage(project)
    assert published() == whole


def test_other_faults_of_the_system_keep_their_traceback(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        stage(project)


def test_without_hard_links_the_head_is_copied(project: Project, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    stage(project)
    assert published() == whole


def test_the_out_can_be_replaced_only_whole(project: Project, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    """The stage that couldn't publish left what was there."""
    OUT.mkdir(parents=True)
    (OUT / "best_model.pth").write_text("of yesterday")
    OUT.with_name("default.tmp").write_text("mine")
    _, said = refused(project, capsys)
    assert said == f"UnwritableError: {OUT}.tmp: can't be written (File exists); {REMEDY}"
    assert (OUT / "best_model.pth").read_text() == "of yesterday"
    OUT.with_name("default.tmp").unlink()
    assert stage(project) == []
    assert published() == whole
