"""Tests of roiseg.train: a tiny run learns, leaves its files, goes on after a kill as if nothing was, and says why it can't."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from store_factory import MODELS, STATISTICS, Project, make_project, shared_project
from torch import Tensor, nn
from train_params import EPOCHS, TRAIN

from roiseg.batches import Loading, dequantise, training_batches
from roiseg.dataset import Targets
from roiseg.errors import CheckpointError, ProviderError, TrainingError
from roiseg.evaluate.infer import Score, predictions
from roiseg.evaluate.pictures import draw_validation, load_fixed
from roiseg.heads import build_head
from roiseg.losses import LossParams, MaskLoss
from roiseg.nn.outputs import HeadOutput
from roiseg.train import loop
from roiseg.train.checkpoint import NAME, load_checkpoint, newest
from roiseg.train.log import MetricsLog
from roiseg.train.loop import Run, Trainer
from roiseg.train.optimizer import parameter_groups
from roiseg.train.params import TrainParams
from roiseg.train.train import TrainSections, train_head
from roiseg.trained import load_head

LOSS: dict[str, Any] = {
    "ce": 1.0,
    "dice": 1.0,
    "dice_classes": [1],
    "dice_smooth": 1.0,
    "class_weights": {"mode": "separation", "values": None},
    "boundary_weight": 2.0,
    "boundary_width": 3.0,
    "instance_sep_weight": 3.0,
    "near_px": 3.0,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def loss_params() -> LossParams:
    return LossParams.parse(LOSS, "loss")


def run_of(project: Project, family: str = "roi_unet", loss: MaskLoss | None = None, **changes: object) -> Run:
    """Fresh weights each time; roi_unet has dropout, so torch's generator counts."""
    params = TrainParams.parse(TRAIN | changes, "train")
    sections = project.sections(MODELS[family])
    train, val = project.open("train", MODELS[family]), project.open("val", MODELS[family])
    torch.manual_seed(params.seed)
    head = build_head(sections.model, train.store.specs)
    fixed = load_fixed(project.index / "val" / "pictures", val)
    chosen = loss or MaskLoss(loss_params(), (2.0, 0.5, 2.0))
    return Run(head, chosen, train, val, fixed, params, sections.reader, {"model": json.loads(sections.model.model_dump_json())})


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def unbroken(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    Trainer(run_of(project), folder).fit()
    return folder


# --- what a run leaves ---


def test_masks_get_better(project: Project, tmp_path: Path) -> None:
    Trainer(run_of(project, "roi_crop", lr=0.05), tmp_path).fit()
    rows = json.loads((tmp_path / "metrics.json").read_text())
    assert rows[-1]["iou_target_roi"] > rows[0]["iou_target_roi"] + 0.04


def test_loss_goes_down(unbroken: Path) -> None:
    rows = json.loads((unbroken / "metrics.json").read_text())
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["train_total"] < 0.85 * rows[0]["train_total"]
    assert {"train_ce", "train_dice", "train_mean_pixel_weight", "train_grad_norm", "train_lr", "never_class_2_miou_fg_roi"} <= set(
        rows[0]
    )
    assert rows[-1]["train_lr"] == pytest.approx(TRAIN["min_lr"])
    assert rows[0]["train_lr"] == pytest.approx(TRAIN["lr"])


def test_one_checkpoint_an_epoch_named_by_its_score(unbroken: Path) -> None:
    rows = json.loads((unbroken / "metrics.json").read_text())
    matches = [NAME.match(path.name) for path in sorted((unbroken / "checkpoints").iterdir())]
    found = [(match["epoch"], match["height"], match["width"], match["score"]) for match in matches if match]
    assert found == [(f"{row['epoch']:04d}", "12", "10", f"{int(row['miou_fg_roi'] * 10_000):04d}") for row in rows]


def test_best_is_the_best(unbroken: Path) -> None:
    scores = {row["epoch"]: row["miou_fg_roi"] for row in json.loads((unbroken / "metrics.json").read_text())}
    best = load_checkpoint(unbroken / "best.pth")
    assert scores[best.epoch] == max(scores.values()) == best.best
    newest_path = newest(unbroken / "checkpoints")
    assert newest_path is not None
    last = load_checkpoint(newest_path)
    assert (last.epoch, last.best) == (EPOCHS, best.best)
    assert last.metrics["miou_fg_roi"] == scores[EPOCHS]


def test_best_stays_when_later_epochs_are_worse(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.2, 0.6, 0.4])
    monkeypatch.setattr(Trainer, "_validate", lambda self: {"miou_fg_roi": next(scores)})
    Trainer(run_of(project, "roi_crop", epochs=3), tmp_path).fit()
    assert load_checkpoint(tmp_path / "best.pth").epoch == 2
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert [name[-8:-4] for name in names] == ["2000", "6000", "4000"]
    assert [load_checkpoint(tmp_path / "checkpoints" / name).best for name in names] == [0.2, 0.6, 0.6]


def test_a_checkpoint_holds_what_was_validated(project: Project, unbroken: Path) -> None:
    run, checkpoint = run_of(project), load_checkpoint(unbroken / "best.pth")
    run.head.load_state_dict(dict(checkpoint.model))
    score = Score.empty()
    for prediction in predictions(run.head.eval(), run.val, torch.device("cpu"), Loading(2, 1, 1)):
        score.add(prediction)
    assert score.metrics.figures()["miou_fg_roi"] == pytest.approx(checkpoint.metrics["miou_fg_roi"])
    assert checkpoint.layers == {"layer_34": [6, 8.0, 8.0], "layer_3": [4, 4.0, 4.0]}
    assert checkpoint.fingerprint == run.train.store.asked
    assert any(not torch.equal(checkpoint.model[name], checkpoint.live[name]) for name in checkpoint.model), "nothing was averaged"


def test_a_picture_an_epoch(project: Project, unbroken: Path) -> None:
    paths = sorted((unbroken / "pictures").iterdir())
    assert [path.name for path in paths] == [f"validation_all_images_epoch_{epoch:04d}.png" for epoch in range(1, EPOCHS + 1)]
    run = run_of(project)
    for path, kept in zip(paths, sorted((unbroken / "checkpoints").iterdir()), strict=True):
        checkpoint = load_checkpoint(kept)
        run.head.load_state_dict(dict(checkpoint.model))
        title = f"epoch {checkpoint.epoch}: miou_fg_roi {checkpoint.metrics['miou_fg_roi']:.4f}"
        expected = draw_validation(run.head.eval(), run.val, list(run.fixed), torch.device("cpu"), title)
        np.testing.assert_array_equal(np.asarray(cv2.imread(str(path))), expected)


# --- kill and go on ---


@dataclass
class Crash:
    """Calls through a number of times, then fails before or after the call."""

    function: Callable[..., Any]
    calls: int
    after: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self.calls -= 1
        if self.calls or self.after:
            value = self.function(*args, **kwargs)
        if not self.calls:
            raise KeyboardInterrupt
        return value


CRASHES = {
    "in the middle of epoch 3": ("dequantise", 2 * 5 + 3, False),
    "before the picture of epoch 3": ("write_png", 3, False),
    "before the first file of epoch 1": ("save_checkpoint", 1, False),
    "between best and checkpoint": ("save_checkpoint", 1, True),
    "right after the checkpoint of epoch 1": ("save_checkpoint", 2, True),
}


@pytest.mark.parametrize("name", CRASHES)
def test_resumed_is_unbroken(project: Project, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    attribute, calls, after = CRASHES[name]
    with monkeypatch.context() as patch:
        patch.setattr(loop, attribute, Crash(getattr(loop, attribute), calls, after))
        with pytest.raises(KeyboardInterrupt):
            Trainer(run_of(project), tmp_path).fit()
    torch.manual_seed(12345)  # another process starts with another state
    Trainer(run_of(project), tmp_path).fit()
    expected, found = files_of(unbroken), files_of(tmp_path)
    assert found.keys() == expected.keys()
    assert [path for path in expected if found[path] != expected[path]] == []


def test_finished_run_does_nothing_more(project: Project, unbroken: Path) -> None:
    before = files_of(unbroken)
    Trainer(run_of(project), unbroken).fit()
    assert files_of(unbroken) == before


def test_torn_checkpoint_is_named(project: Project, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "checkpoint_epoch_0002.pth").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(CheckpointError, match=r"checkpoint_epoch_0002\.pth"):
        Trainer(run_of(project), tmp_path).fit()


def test_metrics_log_forgets_what_wasnt_finished(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.json")
    for epoch in (1, 2, 3):
        log.add({"epoch": epoch, "x": epoch / 3})
    again = MetricsLog(tmp_path / "metrics.json")
    assert again.rows == log.rows
    again.keep_until(1)
    again.add({"epoch": 2, "x": 0.5})
    assert json.loads((tmp_path / "metrics.json").read_text()) == [{"epoch": 1, "x": 1 / 3}, {"epoch": 2, "x": 0.5}]


# --- memory ---


def test_the_step_before_the_first_leaves_no_trace(
    project: Project, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_rehearse", lambda self: None)
    Trainer(run_of(project), tmp_path / "without").fit()
    assert files_of(tmp_path / "without") == files_of(unbroken)
    monkeypatch.undo()
    run = run_of(project)
    trainer, state = Trainer(run, tmp_path / "with"), torch.get_rng_state()
    before = {name: item.clone() for name, item in run.head.state_dict().items()}
    trainer._rehearse()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(item, before[name]) for name, item in run.head.state_dict().items())
    assert all(item.grad is None for item in run.head.parameters())


# --- how long, and what is kept ---


def test_early_stop(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epoch 2 is the best; two epochs without a gain end it, and a run that goes on stops at once."""
    scores = {1: 0.2, 2: 0.6, 3: 0.4, 4: 0.6, 5: 0.9}
    epochs: list[int] = []

    def validate(_: Trainer) -> dict[str, float]:
        epochs.append(len(epochs) + 1)
        return {"miou_fg_roi": scores[len(epochs)]}

    monkeypatch.setattr(Trainer, "_validate", validate)
    stop = {"metric": "miou_fg_roi", "mode": "max", "patience": 2}
    run = run_of(project, "roi_crop", epochs=5, early_stop=stop)
    Trainer(run, tmp_path).fit()
    assert epochs == [1, 2, 3, 4]
    Trainer(run_of(project, "roi_crop", epochs=5, early_stop=stop), tmp_path).fit()
    assert epochs == [1, 2, 3, 4]
    assert load_checkpoint(tmp_path / "best.pth").epoch == 2


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
    assert (tmp_path / "best.pth").read_bytes() == (unbroken / "best.pth").read_bytes()


# --- steps ---


def test_accumulated_gradients_are_averaged(project: Project, tmp_path: Path) -> None:
    """One step over all five batches, against their gradients one by one."""
    plain: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 1e9, "warmup_epochs": 0.0}
    changes: dict[str, Any] = {**plain, "accumulate": 5, "epochs": 1, "scheduler": "none", "lr": 0.5}
    run = run_of(project, "roi_crop", **changes)
    trainer = Trainer(run, tmp_path)
    before = {name: weight.detach().clone() for name, weight in run.head.named_parameters()}
    expected = {name: torch.zeros_like(weight) for name, weight in before.items()}
    run.head.train()
    for batch in training_batches(run.train, Loading(1, 1, 1), seed=0, epoch=1):
        run.head.zero_grad()
        torch.autograd.backward(trainer._losses(batch)["total"])
        for name, weight in run.head.named_parameters():
            assert weight.grad is not None
            expected[name] += weight.grad / 5
    run.head.zero_grad()
    trainer.fit()
    for name, weight in run.head.named_parameters():
        torch.testing.assert_close(weight.detach(), before[name] - 0.5 * expected[name], rtol=1e-4, atol=1e-6)


def test_an_epoch_has_fewer_steps_where_batches_are_accumulated(project: Project, tmp_path: Path) -> None:
    trainer = Trainer(run_of(project, accumulate=2), tmp_path)
    assert (trainer._batches, trainer._steps) == (5, 3)
    trainer.fit()
    rows = json.loads((tmp_path / "metrics.json").read_text())
    assert rows[-1]["train_lr"] == pytest.approx(TRAIN["min_lr"])


def test_steps_that_arent_finite_are_left_out_and_counted(project: Project, tmp_path: Path) -> None:
    """The third call is the second step of epoch 1 (the rehearsal is the first); weights stay finite, and the run ends."""

    class Once(Poisoned):
        def __call__(self, output: HeadOutput, target: Targets) -> dict[str, Tensor]:
            parts = super().__call__(output, target)
            self.at = 10**6 if self.at < 0 else self.at
            return parts

    Trainer(run_of(project, "roi_crop", Once(2, float("nan")), max_skipped_steps=1), tmp_path).fit()
    rows = json.loads((tmp_path / "metrics.json").read_text())
    assert [row["skipped_steps"] for row in rows] == [1, 0, 0, 0]
    assert all(np.isfinite(row["train_total"]) for row in rows)
    assert all(torch.isfinite(values).all() for values in load_checkpoint(tmp_path / "best.pth").live.values())


def test_skipped_steps_of_earlier_epochs_count(project: Project, tmp_path: Path) -> None:
    """Two of epoch 1 are let pass; the next one, in epoch 2, is one too many, though a kill lay between."""

    class At(Poisoned):
        def __init__(self, calls: set[int]) -> None:
            super().__init__(10**6, 1.0)
            self.calls, self.made = calls, 0

        def __call__(self, output: HeadOutput, target: Targets) -> dict[str, Tensor]:
            parts = super().__call__(output, target)
            self.made += 1
            if self.made in self.calls:
                parts["total"] = parts["total"] * float("nan")
            return parts

    Trainer(run_of(project, "roi_crop", At({3, 5}), max_skipped_steps=2, epochs=1), tmp_path).fit()
    with pytest.raises(TrainingError, match=r"epoch 2: the loss is nan .*, and 3 steps of this run were left out .* \(2\)"):
        Trainer(run_of(project, "roi_crop", At({2}), max_skipped_steps=2), tmp_path).fit()


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("scheduler", ["cosine_restarts", "step", "exponential", "plateau", "none"])
def test_resumed_is_unbroken_whatever_the_schedule(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, scheduler: str
) -> None:
    changes: dict[str, Any] = {"optimizer": optimizer, "scheduler": scheduler, "epochs": 3, "keep_checkpoints": 1}
    Trainer(run_of(project, "roi_crop", **changes), tmp_path / "whole").fit()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "dequantise", Crash(dequantise, 1 + 5 + 3, after=False))
        with pytest.raises(KeyboardInterrupt):
            Trainer(run_of(project, "roi_crop", **changes), tmp_path / "killed").fit()
    Trainer(run_of(project, "roi_crop", **changes), tmp_path / "killed").fit()
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


# --- what can't go on ---


class Poisoned(MaskLoss):
    """Spoils the loss, or its gradient alone, from some step on."""

    def __init__(self, at: int, factor: float, *, gradient_only: bool = False) -> None:
        super().__init__(loss_params(), (1.0, 1.0, 1.0))
        self.at: int = at
        self.factor, self.gradient_only = factor, gradient_only

    def __call__(self, output: HeadOutput, target: Targets) -> dict[str, Tensor]:
        parts = super().__call__(output, target)
        self.at -= 1
        if self.at < 0:
            spoilt = parts["total"] * self.factor
            parts["total"] = spoilt - spoilt.detach() if self.gradient_only else spoilt
        return parts


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_loss_that_isnt_finite_names_its_epoch(project: Project, tmp_path: Path, factor: float) -> None:
    with pytest.raises(TrainingError, match=r"epoch 2: the loss is (nan|inf) on rows \[\d.*lower train\.lr"):
        Trainer(run_of(project, "roi_crop", Poisoned(7, factor)), tmp_path).fit()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1, "finished epochs are kept"


def test_gradient_that_isnt_finite_names_its_epoch(project: Project, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"epoch 1: the norm of the gradients is (nan|inf)"):
        Trainer(run_of(project, "roi_crop", Poisoned(1, 1e30, gradient_only=True)), tmp_path).fit()


def test_nobody_to_learn_from(tmp_path: Path) -> None:
    empty = make_project(tmp_path / "project", images=(2, 2), min_box_px=500.0)
    with pytest.raises(TrainingError, match=r"no image of the training split .* data\.min_box_px"):
        Trainer(run_of(empty, "roi_crop"), tmp_path / "run").fit()


def test_cuda_that_isnt_there(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ProviderError, match=r"train\.device is 'cuda'.*'auto' or 'cpu'"):
        Trainer(run_of(project, device="cuda"), tmp_path)


def test_deterministic_mode_ends_with_the_run(project: Project, tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        Trainer(run_of(project, "roi_crop", Poisoned(0, float("nan"))), tmp_path).fit()
    assert not torch.are_deterministic_algorithms_enabled()


# --- parts ---


def test_parameter_groups_decay_weights_only(project: Project) -> None:
    head = run_of(project).head
    decays, rests = parameter_groups(head, 0.1, {})
    assert (decays["weight_decay"], rests["weight_decay"]) == (0.1, 0.0)
    assert all(item.ndim > 1 for item in decays["params"])
    assert {id(item) for group in (decays, rests) for item in group["params"]} == {id(item) for item in head.parameters()}
    free = {id(item) for module in head.modules() if isinstance(module, nn.GroupNorm) for item in module.parameters()}
    free |= {id(item) for name, item in head.named_parameters() if name.endswith("bias")}
    assert {id(item) for item in rests["params"]} == free


def test_seed_changes_the_run(project: Project, unbroken: Path, tmp_path: Path) -> None:
    Trainer(run_of(project, seed=1, epochs=1), tmp_path).fit()
    first, other = (json.loads((folder / "metrics.json").read_text())[0]["train_total"] for folder in (unbroken, tmp_path))
    assert first != other


# --- the stage ---


def test_train_head_publishes_the_same_bytes_each_time(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = TrainSections(project.sections(), loss_params(), TrainParams.parse(TRAIN | {"epochs": 2}, "train"))
    published = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        last = train_head(
            "train@default",
            sections,
            project.statistics,
            project.index,
            project.features,
            Path("models/heads/default"),
            Path("metrics/train/default"),
        )
        published.append(files_of(Path("models")) | files_of(Path("metrics")))
    assert published[0] == published[1]
    names = set(published[0])
    assert {"heads/default/best.pth", "train/default/metrics.json"} <= names
    assert sum(name.startswith("heads/default/checkpoints/") for name in names) == 2
    assert sum(name.startswith("train/default/pictures/") for name in names) == 2
    assert any(name.startswith("train/default/plots/metrics/train/total") for name in names)
    live = json.loads(published[0]["train/default/metrics.json"])
    assert live["val"]["miou_fg_roi"] == pytest.approx(last["miou_fg_roi"])
    head, checkpoint = load_head(Path("models/heads/default"), project.sections(), project.open("val"))
    assert checkpoint.params["loss"]["boundary_weight"] == LOSS["boundary_weight"]
    assert not head.training
    other = replace(project.sections(), model=project.sections({**MODELS["roi_crop"], "mid_channels": 4}).model)
    with pytest.raises(CheckpointError, match=r"another model \(mid_channels differ\); run `dvc repro train`"):
        load_head(Path("models/heads/default"), other, project.open("val"))


def test_train_head_needs_its_class_weights(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "statistics.json").write_text(json.dumps({"recommended_class_weights": STATISTICS["recommended_class_weights"]}))
    sections = TrainSections(project.sections(), loss_params(), TrainParams.parse(TRAIN, "train"))
    with pytest.raises(ValueError, match="no 'separation_aware_weights'"):
        train_head("train@x", sections, Path("statistics.json"), project.index, project.features, Path("out"), Path("live"))
    assert not Path("out").exists()
