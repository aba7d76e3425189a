"""Tests of roiseg.train with every way of drawing: runs that go on as if nothing was, noise in training only, the table of ROIs."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from store_factory import Project, sampler_params, shared_project
from trainer_factory import TRAIN, Crash, files_of, loss_params, rows_of, run_of, task_of

from roiseg.batches import Loading, dequantise
from roiseg.errors import AnnotationError
from roiseg.evaluate.infer import Score, predictions
from roiseg.files import write_parquet
from roiseg.train import learner
from roiseg.train.checkpoint import BEST, load_checkpoint
from roiseg.train.loop import Trainer
from roiseg.train.params import TrainParams
from roiseg.train.train import TrainPaths, TrainSections, train_head


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


DRAWN: dict[str, Any] = {
    "balance": "crowdedness",
    "non_target_gamma": 1.0,
    "rois_per_image": 2,
    "extra_rois": 1,
    "crop": 0.7,
    "feature_noise": 0.3,
}


def test_resumed_is_unbroken_whatever_is_drawn(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"epochs": 3, "keep_checkpoints": 1}
    Trainer(run_of(project, sampler=DRAWN, **changes), tmp_path / "whole").fit()
    with monkeypatch.context() as patch:
        patch.setattr(learner, "dequantise", Crash(dequantise, 1 + 5 + 3, after=False))
        with pytest.raises(KeyboardInterrupt):
            Trainer(run_of(project, sampler=DRAWN, **changes), tmp_path / "killed").fit()
    torch.manual_seed(12345)  # another process starts with another state
    Trainer(run_of(project, sampler=DRAWN, **changes), tmp_path / "killed").fit()
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("key", DRAWN)
def test_each_way_of_drawing_changes_what_is_learnt(project: Project, tmp_path: Path, key: str) -> None:
    """Each is left out once; roi_crop draws nothing itself."""
    every = DRAWN | {"rois_per_image": 1}
    folders = tmp_path / "with", tmp_path / "without"
    for folder, sampler in zip(folders, (every, {name: value for name, value in every.items() if name != key}), strict=True):
        Trainer(run_of(project, "roi_crop", sampler=sampler, epochs=1), folder).fit()
    with_it, without = (rows_of(folder)[0]["train_total"] for folder in folders)
    assert with_it != without


def test_noise_is_of_training_only(project: Project, tmp_path: Path) -> None:
    run = run_of(project, "roi_crop", sampler={"feature_noise": 5.0}, epochs=1)
    Trainer(run, tmp_path).fit()
    found, task = rows_of(tmp_path)[0], task_of(run)
    head = task.build().eval()
    head.load_state_dict(dict(load_checkpoint(tmp_path / BEST).model))
    score = Score.empty()
    for prediction in predictions(head, task.val, torch.device("cpu"), Loading(2, 1, 1)):
        score.add(prediction)
    assert score.metrics.figures()["miou_fg_roi"] == pytest.approx(found["miou_fg_roi"])


def paths_of(project: Project, rois: Path) -> TrainPaths:
    return TrainPaths(project.statistics, rois, project.index, project.features, Path("out"), Path("live"))


def test_another_table_of_rois_is_another_run(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It mustn't go on where a run on the table of before was cut short; a run that needs none doesn't care."""
    monkeypatch.chdir(tmp_path)
    whole = pd.read_parquet(project.rois)
    found: dict[str, list[str]] = {}
    for name, drawn in (("plain", sampler_params()), ("keen", sampler_params(non_target_gamma=1.0))):
        sections = TrainSections(project.sections(), drawn, loss_params(), TrainParams.parse(TRAIN | {"epochs": 1}, "train"))
        for number in range(2):
            write_parquet(Path("rois.parquet"), whole.assign(n_non_target=whole["n_non_target"] + number))
            train_head(name, sections, paths_of(project, Path("rois.parquet")))
        found[name] = [path.name for path in Path(".work").glob(f"train-{name}-*")]
    assert {name: len(folders) for name, folders in found.items()} == {"plain": 1, "keen": 2}


def test_train_head_needs_its_table_of_rois(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = sampler_params(balance="crowdedness")
    sections = TrainSections(project.sections(), drawn, loss_params(), TrainParams.parse(TRAIN, "train"))
    with pytest.raises(AnnotationError, match=r"none\.parquet: no table of ROIs there; run `dvc repro analyze`"):
        train_head("x", sections, paths_of(project, Path("none.parquet")))
    assert not Path("out").exists()
