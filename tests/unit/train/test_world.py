"""Tests of roiseg.train.world: a run in two processes gives what it gives in one, and says what it can't do."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from store_factory import Project, shared_project
from trainer_factory import files_of, run_of, with_everything

from roiseg.errors import ProviderError, TrainingError
from roiseg.train.checkpoint import BEST, UNTRAINED, Checkpoint, by_epoch, load_checkpoint
from roiseg.train.loop import Trainer

TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def train(
    project: Project, place: Path, model: Mapping[str, Any] | None = None, loss: Mapping[str, Any] | None = None, **changes: object
) -> subprocess.CompletedProcess[str]:
    """A run with changes to section `train`, of a model and with changes to section `loss`."""
    place.mkdir(exist_ok=True)
    texts = [json.dumps(part) for part in (changes, model or {}, loss or {})]
    command = [sys.executable, str(TESTS / "several_processes.py"), str(project.root), ".", *texts]
    environment = os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=300)


def checkpoints(place: Path) -> list[Checkpoint]:
    return [load_checkpoint(path) for path in by_epoch(place / "head/checkpoints")]


SHARED: dict[str, Any] = {"images_per_batch": 2, "epochs": 3, "optimizer": "sgd", "lr": 0.05}
"""Five images in batches of two: of the last batch the second process has none."""


@pytest.fixture(scope="module")
def alone(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("alone")
    done = train(project, place, **SHARED)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def together(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("together")
    done = train(project, place, devices=2, **SHARED)
    assert done.returncode == 0, done.stderr
    return place


def test_two_processes_learn_what_one_does(alone: Path, together: Path) -> None:
    """`roi_crop` drops nothing at random, so that only the order of sums differs."""
    ones, twos = checkpoints(alone), checkpoints(together)
    assert [item.epoch for item in ones] == [item.epoch for item in twos] == [1, 2, 3]
    for one, two in zip(ones, twos, strict=True):
        assert two.metrics == pytest.approx(one.metrics, abs=0.005)
        figures, expected = dict(two.rows[-1]), dict(one.rows[-1])
        # A share of answers, which the smallest difference turns where two are as likely.
        name = "train_boundary_accuracy"
        assert figures.pop(name) == pytest.approx(expected.pop(name), abs=0.03)
        assert figures == pytest.approx(expected, rel=1e-3, abs=0.005)
    fresh = load_checkpoint(alone / "head" / UNTRAINED)
    for name, weight in ones[0].live.items():
        moved = (weight - fresh.live[name]).norm()
        assert (twos[0].live[name] - weight).norm() <= 0.01 * moved, f"{name}: gradients must be weighted by ROIs"


def test_one_process_writes_and_speaks(together: Path) -> None:
    log = (together / "logs/train@default.log").read_text()
    assert [log.count(f"epoch {epoch}: loss") for epoch in (1, 2, 3)] == [1, 1, 1]
    assert {path.name for path in (together / "live/pictures").iterdir()} == {
        "training_progress.png",
        *(f"validation_all_images_epoch_000{epoch}.png" for epoch in (1, 2, 3)),
    }


def test_resumed_is_unbroken(project: Project, together: Path, tmp_path: Path) -> None:
    shutil.copytree(together / ".work", tmp_path / ".work")
    for path in by_epoch(next((tmp_path / ".work").iterdir()) / "checkpoints")[1:]:
        path.unlink()
    done = train(project, tmp_path, devices=2, **SHARED)
    assert done.returncode == 0, done.stderr
    assert "going on after epoch 1" in (tmp_path / "logs/train@default.log").read_text()
    assert files_of(tmp_path / "head") == files_of(together / "head")


def test_states_of_all_processes_are_kept(together: Path) -> None:
    first, second = load_checkpoint(together / "head" / BEST).rng["cpu"]
    assert not torch.equal(first, second)


# --- branches ---


@pytest.mark.slow
@pytest.mark.parametrize("family", ["hierarchical", "positional"])
def test_branches_learn_in_two_processes(project: Project, tmp_path: Path, family: str) -> None:
    """torch stops a run whose loss leaves out a weight; a coefficient of 0 doesn't."""
    model, loss = with_everything(family)
    done = train(project, tmp_path, model, loss, devices=2, **SHARED | {"epochs": 1})
    assert done.returncode == 0, done.stderr


# --- what can't be ---


def test_more_processes_than_images_in_a_batch(project: Project, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"train\.devices is 3, but a batch has 2 images.*lower it or raise train\.images_per_batch"
    ):
        Trainer(run_of(project, devices=3, images_per_batch=2), tmp_path)


def test_more_devices_than_there_are(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ProviderError, match=r"train\.devices is 2, but torch finds 1 CUDA devices here; lower it"):
        Trainer(run_of(project, device="cuda", devices=2, images_per_batch=2), tmp_path)


def test_a_fault_ends_all_processes(project: Project, tmp_path: Path) -> None:
    done = train(project, tmp_path, devices=2, **SHARED | {"lr": 1e30, "max_skipped_steps": 0})
    assert done.returncode != 0
    assert "more than train.max_skipped_steps (0)" in done.stderr
