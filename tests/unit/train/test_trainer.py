"""Tests of roiseg.train: a tiny run learns, leaves its files, goes on after a kill as if nothing was, and says why it can't."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from head_factory import MODELS
from store_factory import STATISTICS, Project, sampler_params, shared_project
from torch import nn
from trainer_factory import EPOCHS, LOSS, TRAIN, files_of, learner_of, loss_params, rows_of, run_of, task_of

from roiseg.batches import Loading
from roiseg.errors import CheckpointError, TrainingError
from roiseg.evaluate.infer import Score, predictions
from roiseg.evaluate.pictures import draw_validation
from roiseg.train.checkpoint import BEST, NAME, load_checkpoint, newest
from roiseg.train.learner import Learner
from roiseg.train.loop import Trainer
from roiseg.train.optimizer import parameter_groups
from roiseg.train.params import TrainParams
from roiseg.train.train import TrainPaths, TrainSections, train_head
from roiseg.trained import load_head


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


@pytest.fixture(scope="module")
def unbroken(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    Trainer(run_of(project), folder).fit()
    return folder


# --- what a run leaves ---


def test_masks_get_better(project: Project, tmp_path: Path) -> None:
    Trainer(run_of(project, "roi_crop", lr=0.05), tmp_path).fit()
    rows = rows_of(tmp_path)
    assert rows[-1]["iou_target_roi"] > rows[0]["iou_target_roi"] + 0.04


def test_loss_goes_down(unbroken: Path) -> None:
    rows = rows_of(unbroken)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["train_total"] < 0.85 * rows[0]["train_total"]
    assert {"train_ce", "train_dice", "train_mean_pixel_weight", "train_grad_norm", "train_lr", "never_class_2_miou_fg_roi"} <= set(
        rows[0]
    )
    assert rows[-1]["train_lr"] == pytest.approx(TRAIN["min_lr"])
    assert rows[0]["train_lr"] == pytest.approx(TRAIN["lr"])


def test_one_checkpoint_an_epoch_named_by_its_score(unbroken: Path) -> None:
    rows = rows_of(unbroken)
    matches = [NAME.match(path.name) for path in sorted((unbroken / "checkpoints").iterdir())]
    found = [(match["epoch"], match["height"], match["width"], match["score"]) for match in matches if match]
    assert found == [(f"{row['epoch']:04d}", "12", "10", f"{int(row['miou_fg_roi'] * 10_000):04d}") for row in rows]


def test_best_is_the_best(unbroken: Path) -> None:
    scores = {row["epoch"]: row["miou_fg_roi"] for row in rows_of(unbroken)}
    best = load_checkpoint(unbroken / "best_model.pth")
    assert scores[best.epoch] == max(scores.values()) == best.best
    newest_path = newest(unbroken / "checkpoints")
    assert newest_path is not None
    last = load_checkpoint(newest_path)
    assert (last.epoch, last.best) == (EPOCHS, best.best)
    assert last.metrics["miou_fg_roi"] == scores[EPOCHS]


def test_best_stays_when_later_epochs_are_worse(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.2, 0.6, 0.4])
    monkeypatch.setattr(Trainer, "validate", lambda *_: {"miou_fg_roi": next(scores)})
    Trainer(run_of(project, "roi_crop", epochs=3), tmp_path).fit()
    assert load_checkpoint(tmp_path / "best_model.pth").epoch == 2
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert [name[-8:-4] for name in names] == ["2000", "6000", "4000"]
    assert [load_checkpoint(tmp_path / "checkpoints" / name).best for name in names] == [0.2, 0.6, 0.6]


def test_a_checkpoint_holds_what_was_validated(project: Project, unbroken: Path) -> None:
    task, checkpoint = task_of(run_of(project)), load_checkpoint(unbroken / "best_model.pth")
    head = task.build().eval()
    head.load_state_dict(dict(checkpoint.model))
    score = Score.empty()
    for prediction in predictions(head, task.val, torch.device("cpu"), Loading(2, 1, 1)):
        score.add(prediction)
    assert score.metrics.figures()["miou_fg_roi"] == pytest.approx(checkpoint.metrics["miou_fg_roi"])
    assert checkpoint.layers == {"layer_34": [6, 8.0, 8.0], "layer_3": [4, 4.0, 4.0]}
    assert checkpoint.fingerprint == task.dataset.store.asked
    assert any(not torch.equal(checkpoint.model[name], checkpoint.live[name]) for name in checkpoint.model), "nothing was averaged"


def test_a_picture_an_epoch(project: Project, unbroken: Path) -> None:
    paths = sorted((unbroken / "pictures").iterdir())
    assert [path.name for path in paths] == [f"validation_all_images_epoch_{epoch:04d}.png" for epoch in range(1, EPOCHS + 1)]
    run = run_of(project)
    task = task_of(run)
    head, val = task.build().eval(), task.val
    for path, kept in zip(paths, sorted((unbroken / "checkpoints").iterdir()), strict=True):
        checkpoint = load_checkpoint(kept)
        head.load_state_dict(dict(checkpoint.model))
        title = f"epoch {checkpoint.epoch}: miou_fg_roi {checkpoint.metrics['miou_fg_roi']:.4f}"
        expected = draw_validation(head, val, list(task.fixed), torch.device("cpu"), title, "two_row")
        np.testing.assert_array_equal(np.asarray(cv2.imread(str(path))), expected)


# --- go on; kills at any moment are in test_sudden_ends.py ---


def test_finished_run_does_nothing_more(project: Project, unbroken: Path) -> None:
    before = files_of(unbroken)
    Trainer(run_of(project), unbroken).fit()
    assert files_of(unbroken) == before


def test_torn_checkpoint_is_named(project: Project, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "checkpoint_epoch_0002.pth").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(CheckpointError, match=r"checkpoint_epoch_0002\.pth"):
        Trainer(run_of(project), tmp_path).fit()


# --- memory ---


def test_the_step_before_the_first_leaves_no_trace(
    project: Project, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "rehearse", lambda self: None)
    Trainer(run_of(project), tmp_path).fit()
    assert files_of(tmp_path) == files_of(unbroken)
    monkeypatch.undo()
    made = learner_of(run_of(project))
    state, before = torch.get_rng_state(), {name: item.clone() for name, item in made.head.state_dict().items()}
    made.rehearse()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(item, before[name]) for name, item in made.head.state_dict().items())
    assert all(item.grad is None for item in made.head.parameters())


# --- how long, and what is kept ---


def test_early_stop(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epoch 2 is the best; two epochs without a gain end it, and a run that goes on stops at once."""
    scores = {1: 0.2, 2: 0.6, 3: 0.4, 4: 0.6, 5: 0.9}
    epochs: list[int] = []

    def validate(*_: object) -> dict[str, float]:
        epochs.append(len(epochs) + 1)
        return {"miou_fg_roi": scores[len(epochs)]}

    monkeypatch.setattr(Trainer, "validate", validate)
    stop = {"metric": "miou_fg_roi", "mode": "max", "patience": 2}
    run = run_of(project, "roi_crop", epochs=5, early_stop=stop)
    Trainer(run, tmp_path).fit()
    assert epochs == [1, 2, 3, 4]
    Trainer(run_of(project, "roi_crop", epochs=5, early_stop=stop), tmp_path).fit()
    assert epochs == [1, 2, 3, 4]
    assert load_checkpoint(tmp_path / "best_model.pth").epoch == 2


def test_a_figure_to_stop_by_that_isnt_there(project: Project, tmp_path: Path) -> None:
    run = run_of(project, early_stop={"metric": "miou_fg_roy", "mode": "max", "patience": 1})
    with pytest.raises(
        TrainingError, match=r"early_stop\.metric is 'miou_fg_roy', which validation doesn't give; did you mean 'miou"
    ):
        Trainer(run, tmp_path).fit()


@pytest.mark.parametrize(("keep", "left"), [(None, [1, 2, 3, 4]), (3, [2, 3, 4]), (1, [4]), (0, [4])])
def test_the_last_checkpoints_are_kept(project: Project, unbroken: Path, tmp_path: Path, keep: int | None, left: list[int]) -> None:
    """The newest stays in the work folder in any case: a killed run goes on from it."""
    Trainer(run_of(project, keep_checkpoints=keep), tmp_path).fit()
    found = sorted((tmp_path / "checkpoints").iterdir())
    assert [load_checkpoint(path).epoch for path in found] == left
    assert (tmp_path / "best_model.pth").read_bytes() == (unbroken / "best_model.pth").read_bytes()


# --- parts ---


def test_parameter_groups_decay_weights_only(project: Project) -> None:
    head = task_of(run_of(project)).build()
    decays, rests = parameter_groups(head, 0.1, {})
    assert (decays["weight_decay"], rests["weight_decay"]) == (0.1, 0.0)
    assert all(item.ndim > 1 for item in decays["params"])
    assert {id(item) for group in (decays, rests) for item in group["params"]} == {id(item) for item in head.parameters()}
    free = {id(item) for module in head.modules() if isinstance(module, nn.GroupNorm) for item in module.parameters()}
    free |= {id(item) for name, item in head.named_parameters() if name.endswith("bias")}
    assert {id(item) for item in rests["params"]} == free


def test_seed_changes_the_run(project: Project, unbroken: Path, tmp_path: Path) -> None:
    Trainer(run_of(project, seed=1, epochs=1), tmp_path).fit()
    first, other = (rows_of(folder)[0]["train_total"] for folder in (unbroken, tmp_path))
    assert first != other


# --- the stage ---


def test_train_head_publishes_the_same_bytes_each_time(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = TrainSections(project.sections(), sampler_params(), loss_params(), TrainParams.parse(TRAIN | {"epochs": 2}, "train"))
    published = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        paths = TrainPaths(
            project.statistics,
            project.rois,
            project.index,
            project.features,
            Path("models/heads/default"),
            Path("metrics/train/default"),
        )
        last = train_head("default", sections, paths)
        published.append(files_of(Path("models")) | files_of(Path("metrics")))
    assert published[0] == published[1]
    names = set(published[0])
    assert {"heads/default/best_model.pth", "train/default/metrics.json"} <= names
    assert sum(name.startswith("heads/default/checkpoints/") for name in names) == 2
    assert sum(name.startswith("train/default/pictures/validation_all_images_epoch_") for name in names) == 2
    assert {"train/default/pictures/training_progress.png", "train/default/weights.json"} <= names
    assert any(name.startswith("train/default/plots/metrics/train/total") for name in names)
    live = json.loads(published[0]["train/default/metrics.json"])
    assert live["val"]["miou_fg_roi"] == pytest.approx(last["miou_fg_roi"])
    head, checkpoint = load_head(Path("models/heads/default"), BEST, project.sections(), project.open("val"))
    assert checkpoint.params["loss"]["boundary_weight"] == LOSS["boundary_weight"]
    assert not head.training
    other = replace(project.sections(), model=project.sections({**MODELS["roi_crop"], "mid_channels": 4}).model)
    with pytest.raises(CheckpointError, match=r"another model \(mid_channels differ\); train it again \(`dvc repro`\)"):
        load_head(Path("models/heads/default"), BEST, other, project.open("val"))


def test_train_head_needs_its_class_weights(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "statistics.json").write_text(json.dumps({"recommended_class_weights": STATISTICS["recommended_class_weights"]}))
    sections = TrainSections(project.sections(), sampler_params(), loss_params(), TrainParams.parse(TRAIN, "train"))
    with pytest.raises(ValueError, match="no 'separation_aware_weights'"):
        train_head(
            "x",
            sections,
            TrainPaths(Path("statistics.json"), project.rois, project.index, project.features, Path("out"), Path("live")),
        )
    assert not Path("out").exists()
