"""Tests of what a run does in a step, and of what it says when it can't go on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from store_factory import Project, make_project, shared_project
from torch import Tensor
from trainer_factory import TRAIN, Poisoned, learner_of, rows_of, run_of, task_of

from roiseg.batches import Loading
from roiseg.dataset import Targets
from roiseg.errors import ProviderError, TrainingError
from roiseg.nn.outputs import HeadOutput
from roiseg.sampler import training_batches
from roiseg.train.checkpoint import load_checkpoint
from roiseg.train.folder import RunFolder
from roiseg.train.learner import Learner
from roiseg.train.loop import Trainer


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


# --- steps ---


def test_accumulated_gradients_are_averaged(project: Project, tmp_path: Path) -> None:
    """One step over all five batches, against their gradients one by one."""
    plain: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 1e9, "warmup_epochs": 0.0}
    changes: dict[str, Any] = {**plain, "accumulate": 5, "epochs": 1, "scheduler": "none", "lr": 0.5}
    run = run_of(project, "roi_crop", **changes)
    made = learner_of(run)
    before = {name: weight.detach().clone() for name, weight in made.head.named_parameters()}
    expected = {name: torch.zeros_like(weight) for name, weight in before.items()}
    made.wrapped.train()
    for batch in training_batches(task_of(run).sampler, Loading(1, 1, 1), seed=0, epoch=1):
        made.head.zero_grad()
        torch.autograd.backward(made.losses(batch)["total"])
        for name, weight in made.head.named_parameters():
            assert weight.grad is not None
            expected[name] += weight.grad / 5
    Trainer(run, tmp_path).fit()
    newest = RunFolder(tmp_path).last()
    assert newest is not None
    for name, start in before.items():
        torch.testing.assert_close(newest.live[name], start - 0.5 * expected[name], rtol=1e-4, atol=1e-6)


def test_an_epoch_has_fewer_steps_where_batches_are_accumulated(project: Project, tmp_path: Path) -> None:
    trainer = Trainer(run_of(project, accumulate=2), tmp_path)
    assert (trainer._batches, trainer._steps) == (5, 3)
    trainer.fit()
    rows = rows_of(tmp_path)
    assert rows[-1]["train_lr"] == pytest.approx(TRAIN["min_lr"])


def test_steps_that_arent_finite_are_left_out_and_counted(project: Project, tmp_path: Path) -> None:
    """The third call is the second step of epoch 1 (the rehearsal is the first); weights stay finite, and the run ends."""

    class Once(Poisoned):
        def __call__(self, output: HeadOutput, target: Targets, teacher: HeadOutput | None = None) -> dict[str, Tensor]:
            parts = super().__call__(output, target, teacher)
            self.at = 10**6 if self.at < 0 else self.at
            return parts

    Trainer(run_of(project, "roi_crop", Once(2, float("nan")), max_skipped_steps=1), tmp_path).fit()
    rows = rows_of(tmp_path)
    assert [row["skipped_steps"] for row in rows] == [1, 0, 0, 0]
    assert all(np.isfinite(row["train_total"]) for row in rows)
    assert all(torch.isfinite(values).all() for values in load_checkpoint(tmp_path / "best_model.pth").live.values())


def test_skipped_steps_of_earlier_epochs_count(project: Project, tmp_path: Path) -> None:
    """Two of epoch 1 are let pass; the next one, in epoch 2, is one too many, though a kill lay between."""

    class At(Poisoned):
        def __init__(self, calls: set[int]) -> None:
            super().__init__(10**6, 1.0)
            self.calls, self.made = calls, 0

        def __call__(self, output: HeadOutput, target: Targets, teacher: HeadOutput | None = None) -> dict[str, Tensor]:
            parts = super().__call__(output, target, teacher)
            self.made += 1
            if self.made in self.calls:
                parts["total"] = parts["total"] * float("nan")
            return parts

    Trainer(run_of(project, "roi_crop", At({3, 5}), max_skipped_steps=2, epochs=1), tmp_path).fit()
    with pytest.raises(TrainingError, match=r"epoch 2: the loss is nan .*, and 3 steps of this run were left out .* \(2\)"):
        Trainer(run_of(project, "roi_crop", At({2}), max_skipped_steps=2), tmp_path).fit()


# --- what can't go on ---


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_loss_that_isnt_finite_names_its_epoch(project: Project, tmp_path: Path, factor: float) -> None:
    with pytest.raises(TrainingError, match=r"epoch 2: the loss is (nan|inf) on rows \[\d.*lower train\.lr"):
        Trainer(run_of(project, "roi_crop", Poisoned(7, factor)), tmp_path).fit()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1, "finished epochs are kept"


def test_gradient_that_isnt_finite_names_its_epoch(project: Project, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"epoch 1: the norm of the gradients is (nan|inf)"):
        Trainer(run_of(project, "roi_crop", Poisoned(1, 1e30, gradient_only=True)), tmp_path).fit()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "cpu"],
)
def test_a_lack_of_memory_comes_with_advice(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Learner, "losses", fail)
    with pytest.raises(TrainingError, match=r"a batch of 1 images and \d ROIs, .* doesn't fit .*lower train\.images_per_batch"):
        Trainer(run_of(project), tmp_path).fit()
    monkeypatch.setattr(Learner, "losses", lambda *_: {"ce": None}["total"])
    with pytest.raises(KeyError):
        Trainer(run_of(project), tmp_path).fit()


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
