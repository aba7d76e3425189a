"""What people type to train on, or to learn from a trained head: keep a run, reproduce; on a new machine the kept run is pulled."""

import shlex
import shutil

import pytest
from dvc.utils.hydra import apply_overrides
from dvc_project import Project, readme_commands

pytestmark = pytest.mark.pipeline


def test_a_kept_run_is_trained_on(finished: Project) -> None:
    """Two epochs, kept, then two more; `dvc repro` does no more than that, and a change of params is refused."""
    first = (finished.root / "dvc.lock").read_text()
    try:
        printed = finished.run("roiseg", "train", "keep", "long")
        assert "models/kept/long: default; to go on from it: train.resume_from: models/kept/long" in printed
        assert finished.stages_run(finished.dvc("repro")) == [], "keeping a run makes nothing stale"
        assert "models/kept/long.dvc" in finished.run("git", "status", "--short", "-uall")
        finished.set_params({"train": {"resume_from": "models/kept/long", "additional_epochs": 2}})
        printed = finished.dvc("repro", "train@default")
        assert finished.stages_run(printed) == ["train@default"]
        assert "going on after epoch 2" in printed
        assert "epoch 4: loss" in printed
        assert "epoch 2: loss" not in printed
        assert "models/kept/long" in (finished.root / "dvc.lock").read_text()
        finished.dvc("checkout", "models/heads/default")
        shutil.rmtree(finished.root / "models/kept/long")
        finished.dvc("checkout", "models/kept/long.dvc")
        assert finished.stages_run(finished.dvc("repro", "train@default")) == []
        finished.set_params({"train": {"lr": 0.5, "additional_epochs": 3}})
        assert "train.lr: 0.003 -> 0.5" in finished.dvc("repro", "train@default", ok=False)
        finished.run("git", "checkout", "-q", "--", "params.yaml")
        _is_taught_by_the_kept_run(finished)
    finally:
        finished.run("git", "checkout", "-q", "--", ".")
        finished.run("git", "clean", "-fdq", "models/kept")
        shutil.rmtree(finished.root / "models/kept/long", ignore_errors=True)
        finished.dvc("checkout")
    assert (finished.root / "dvc.lock").read_text() == first
    assert finished.stages_run(finished.dvc("repro")) == []


def _is_taught_by_the_kept_run(project: Project) -> None:
    """The README's command, its params set as DVC does, for one epoch of the kept run's own head."""
    (line,) = (line for line in readme_commands() if "train.distill_from=" in line)
    words = shlex.split(line)
    overrides = [word.replace("kept/large", "kept/long") for word in words[words.index("-S") + 1 :: 2]]
    apply_overrides(project.root / "params.yaml", [*overrides, "heads=[default]", "train.epochs=1"])
    assert "distill" in project.params()["loss"]
    printed = project.dvc("repro", "train@default")
    assert project.stages_run(printed) == ["train@default"]
    assert "models/kept/long/default/best_model.pth" in (project.root / "dvc.lock").read_text()
    assert "distill" in (project.root / "metrics/train/default/curves/loss.tsv").read_text()
