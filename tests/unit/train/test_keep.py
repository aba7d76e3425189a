"""Tests of runs that go on from kept ones: what is kept, what must be the same, and how the learning rate goes on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from store_factory import Project, shared_project
from trainer_factory import TRAIN, files_of, sections_of

from roiseg.errors import CheckpointError, ParamsError
from roiseg.params import NOTHING_KEPT
from roiseg.train.checkpoint import BEST, UNTRAINED, Checkpoint, by_epoch, load_checkpoint
from roiseg.train.keep import LAST, check_same, keep, kept_files, load_kept
from roiseg.train.train import TrainPaths, TrainSections, train_head

HEADS = Path("models/heads")
KEPT = "models/kept/long"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def train(project: Project, **changes: object) -> list[Mapping[str, float]]:
    """Train the head `default` in the current folder; its record."""
    train_sections(project, sections_of(project, **changes))
    return load_checkpoint(by_epoch(HEADS / "default/checkpoints")[-1]).rows  # type: ignore[return-value]


def train_sections(project: Project, sections: TrainSections) -> None:
    paths = TrainPaths(
        project.statistics, project.rois, project.index, project.features, HEADS / "default", Path("metrics/train/default")
    )
    train_head("default", sections, paths)


@pytest.fixture(scope="module")
def trained(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project with a trained head of four epochs, kept as `long`."""
    place = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.chdir(place)
    try:
        subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True)
        train(project)
        keep("long", ["default"], HEADS)
    finally:
        os.chdir(before)
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where the test works."""
    shutil.copytree(trained, tmp_path / "place")
    shutil.rmtree(tmp_path / "place/.work")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


# --- what is kept ---


def test_the_newest_and_the_best_are_kept_and_tracked(place: Path) -> None:
    newest = by_epoch(place / HEADS / "default/checkpoints")[-1]
    assert (place / KEPT / "default" / LAST).read_bytes() == newest.read_bytes()
    assert (place / KEPT / "default" / BEST).read_bytes() == (place / HEADS / "default" / BEST).read_bytes()
    assert "path: long" in (place / f"{KEPT}.dvc").read_text()


def test_keeping_again_replaces(place: Path) -> None:
    (place / KEPT / "other").mkdir()
    keep("long", ["default"], HEADS)
    assert sorted(path.name for path in (place / KEPT).iterdir()) == ["default"]


@pytest.mark.parametrize("name", ["nothing", "nobody", "", "../up", "a b", "x.dvc", "-x"])
def test_names_that_cant_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(ParamsError, match=r"can't be the name of a kept run, expected letters"):
        keep(name, ["default"], tmp_path)


def test_a_head_without_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"default/checkpoints: no checkpoint; train the head .*keep_checkpoints at least 1"):
        keep("x", ["default"], tmp_path)


def test_a_folder_that_dvc_refuses(place: Path) -> None:
    shutil.rmtree(place / ".dvc")
    with pytest.raises(CheckpointError, match=r"models/kept/again: `dvc add` failed, so nothing tracks it: .+; mend that"):
        keep("again", ["default"], HEADS)


def test_nothing_kept() -> None:
    assert kept_files(Path(NOTHING_KEPT), "default") == []
    assert load_kept([]) is None


def test_a_head_that_wasnt_kept(place: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"resume_from is 'models/kept/long', which .* 'other', only of default; `dvc pull` it"
    ):
        kept_files(Path(KEPT), "other")
    with pytest.raises(CheckpointError, match=r"only of none"):
        kept_files(Path("models/kept/gone"), "other")


# --- going on ---


def test_to_the_planned_end_it_is_the_unbroken_run(project: Project, place: Path) -> None:
    """Kept after two epochs of four: the same bytes as if it had never been stopped."""
    whole = {path.name: path.read_bytes() for path in by_epoch(place / HEADS / "default/checkpoints")}
    early = by_epoch(place / HEADS / "default/checkpoints")[1]
    best = max(by_epoch(place / HEADS / "default/checkpoints")[:2], key=lambda path: load_checkpoint(path).metrics["miou_fg_roi"])
    shutil.copyfile(early, place / KEPT / "default" / LAST)
    shutil.copyfile(best, place / KEPT / "default" / BEST)
    train(project, resume_from=KEPT)
    found = by_epoch(place / HEADS / "default/checkpoints")
    assert [load_checkpoint(path).epoch for path in found] == [3, 4]
    for path in found:
        one, other = load_checkpoint(path), place / "other.pth"
        other.write_bytes(whole[path.name])
        before = load_checkpoint(other)
        assert one.rows == before.rows
        assert all(torch.equal(value, before.live[name]) for name, value in one.live.items())
        assert all(torch.equal(value, before.model[name]) for name, value in one.model.items())
    assert not (place / HEADS / "default" / UNTRAINED).exists()


@pytest.mark.parametrize("policy", ["stretch", "restart", "hold"])
def test_longer_than_planned(project: Project, place: Path, policy: str) -> None:
    before = load_checkpoint(place / KEPT / "default" / LAST)
    rows = train(project, resume_from=KEPT, epochs=7, extend_policy=policy)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert rows[:4] == before.rows
    assert rows[-1]["train_lr"] == pytest.approx(TRAIN["min_lr"]) == pytest.approx(min(row["train_lr"] for row in rows))
    if policy != "hold":
        assert rows[5]["train_lr"] > 10 * TRAIN["min_lr"], "it learns again"
    best = load_checkpoint(place / HEADS / "default" / BEST)
    assert best.metrics["miou_fg_roi"] == max(row["miou_fg_roi"] for row in rows)


def test_additional_epochs(project: Project, place: Path) -> None:
    rows = train(project, resume_from=KEPT, epochs=1, additional_epochs=2)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_a_best_that_isnt_beaten_stays(project: Project, place: Path) -> None:
    last = load_checkpoint(place / KEPT / "default" / LAST)
    (place / KEPT / "default" / LAST).unlink()
    _save(place / KEPT / "default" / LAST, replace(last, best=2.0))
    train(project, resume_from=KEPT, epochs=5)
    assert (place / HEADS / "default" / BEST).read_bytes() == (place / KEPT / "default" / BEST).read_bytes()


def test_killed_while_it_goes_on(project: Project, place: Path) -> None:
    train(project, resume_from=KEPT, epochs=7)
    whole = files_of(place / HEADS)
    work = next((place / ".work").iterdir())
    for path in by_epoch(work / "checkpoints")[1:]:
        path.unlink()
    train(project, resume_from=KEPT, epochs=7)
    assert files_of(place / HEADS) == whole


def test_a_longer_run_goes_on_once_more(project: Project, place: Path) -> None:
    train(project, resume_from=KEPT, epochs=5)
    keep("longer", ["default"], HEADS)
    rows = train(project, resume_from="models/kept/longer", epochs=6, extend_policy="restart")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_patience_counts_from_where_it_goes_on(project: Project, place: Path) -> None:
    """The kept run may have been without a gain for long; the new one has a chance of its own."""
    last = load_checkpoint(place / KEPT / "default" / LAST)
    stale = [{**row, "miou_fg_roi": 0.9 - row["epoch"] / 10} for row in last.rows]
    (place / KEPT / "default" / LAST).unlink()
    _save(place / KEPT / "default" / LAST, replace(last, rows=stale))
    stop = {"metric": "miou_fg_roi", "mode": "max", "patience": 1}
    rows = train(project, resume_from=KEPT, epochs=6, early_stop=stop)
    assert rows[-1]["epoch"] >= 5


def _save(path: Path, checkpoint: Checkpoint) -> None:
    from roiseg.train.checkpoint import save_checkpoint

    save_checkpoint(path, checkpoint)


# --- what must be the same ---


def test_all_that_differs_is_listed(project: Project, place: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        train(project, resume_from=KEPT, epochs=9, lr=0.5, optimizer="sgd")
    text = str(caught.value)
    assert "default/last.pth: a run goes on with the params and features that it began with, but 2 values" in text
    assert "train.optimizer: 'adamw' -> 'sgd'" in text
    assert "train.lr: 0.02 -> 0.5" in text
    assert "set train.resume_from to 'models/kept/nothing'" in text
    assert not (place / ".work").exists() or not any((place / ".work").rglob("*.pth"))


def test_another_model_is_listed(project: Project, place: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.head: 'roi_unet' -> 'roi_crop'(?s:.)*model\.blocks: not there -> "):
        train_sections(project, sections_of(project, "roi_crop", resume_from=KEPT, epochs=9))


def test_other_features_are_listed() -> None:
    made = _checkpoint({"train": {"lr": 0.1, "epochs": 3}}, {"dtype": "int8"})
    with pytest.raises(CheckpointError, match=r"1 value differs (?s:.)*dtype: 'int8' -> 'float16'"):
        check_same(made, {"train": {"lr": 0.1, "epochs": 9}}, {"dtype": "float16"}, 9, "x")


@pytest.mark.parametrize("epochs", [3, 4])
def test_nothing_left_to_do(project: Project, place: Path, epochs: int) -> None:
    with pytest.raises(CheckpointError, match=rf"has 4 epochs, and the run is to have {epochs}; raise train\.epochs, or set"):
        train(project, resume_from=KEPT, epochs=epochs)


def test_additional_epochs_of_nothing(project: Project, place: Path) -> None:
    with pytest.raises(ParamsError, match=r"train\.additional_epochs is 2, but train\.resume_from is 'models/kept/nothing'"):
        train(project, additional_epochs=2)


def _checkpoint(params: dict[str, Any], fingerprint: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        epoch=3,
        model={},
        live={},
        optimizer={},
        scaler={},
        rng={},
        loss=[],
        params=json.loads(json.dumps(params)),
        layers={},
        fingerprint=fingerprint,
        metrics={},
        best=0.5,
        rate=0.1,
        rows=[],
    )
