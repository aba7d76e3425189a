"""Tests of heads that learn from a larger head: what they read, what the teacher sees, and teachers that can't be."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from head_factory import MODELS
from store_factory import Project, sampler_params, shared_project
from torch import Tensor
from trainer_factory import LOSS, files_of, sections_of

from roiseg.errors import CheckpointError, ParamsError, TrainingError
from roiseg.losses import LossParams
from roiseg.params import NOBODY
from roiseg.train.checkpoint import BEST, load_checkpoint, newest, save_checkpoint
from roiseg.train.taught_head_task import TaughtHeadTask
from roiseg.train.teacher_head import TeacherHead
from roiseg.train.train import TrainPaths, TrainSections, make_run, train_head

TEACHER = Path("models/kept/large/default") / BEST
DISTILL: dict[str, Any] = {"alpha": 0.7, "temperature": 4.0, "branches": 0.0, "classes": [1.0, 1.0, 1.0]}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def paths_of(project: Project, head: str) -> TrainPaths:
    live = Path("metrics/train") / head
    return TrainPaths(project.statistics, project.rois, project.index, project.features, Path("models/heads") / head, live)


@pytest.fixture(scope="module")
def large(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a hierarchical head of two layers was trained."""
    place = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train_head("large", sections_of(project, "hierarchical", epochs=2), paths_of(project, "large"))
    return place / "models/heads/large" / BEST


@pytest.fixture(autouse=True)
def place(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder where it is kept."""
    monkeypatch.chdir(tmp_path)
    TEACHER.parent.mkdir(parents=True)
    TEACHER.write_bytes(large.read_bytes())
    return tmp_path


def taught(project: Project, family: str = "roi_crop", distill: dict[str, Any] | None = None, **changes: object) -> TrainSections:
    """Sections of a head that learns from it."""
    loss = LossParams.parse(LOSS | {"distill": DISTILL | (distill or {})}, "loss")
    return replace(sections_of(project, family, **{"distill_from": str(TEACHER), "epochs": 2, **changes}), loss=loss)


def rewritten(**changes: Any) -> None:  # noqa: ANN401 - fields of any kind
    """The teacher's file with other fields."""
    save_checkpoint(TEACHER, replace(load_checkpoint(TEACHER), **changes))


def test_a_head_learns_from_a_larger_one(project: Project) -> None:
    train_head("default", taught(project), paths_of(project, "default"))
    found = newest(Path("models/heads/default/checkpoints"))
    assert found is not None
    first, last = load_checkpoint(found).rows
    for row in (first, last):
        share = 1 - DISTILL["alpha"]
        own = row["train_ce"] * row["weight_ce"] + row["train_dice"] * row["weight_dice"]
        assert row["weight_ce"] == pytest.approx(share)
        assert row["train_total"] == pytest.approx(own + DISTILL["alpha"] * row["train_distill"], rel=1e-4)
    assert 0 < last["train_distill"] < first["train_distill"]
    trained = load_checkpoint(Path("models/heads/default") / BEST)
    assert trained.params["loss"]["distill"] == DISTILL
    assert not any(name.startswith(("teacher", "_teacher")) for name in trained.model), "the teacher is no part of what is learnt"


def test_two_runs_give_the_same_bytes_and_another_teacher_others(project: Project, place: Path) -> None:
    for name in ("a", "b", "c"):
        if name == "c":
            rewritten(model={key: value * 1.5 for key, value in load_checkpoint(TEACHER).model.items()})
        train_head(name, taught(project, epochs=1), paths_of(project, name))
    first, second, third = (files_of(place / "models/heads" / name) for name in ("a", "b", "c"))
    assert first == second
    assert first[BEST] != third[BEST], "a run of another teacher isn't taken for the same"


def test_layers_of_both_heads_are_read(project: Project) -> None:
    run = make_run(taught(project), paths_of(project, "default"), ())
    (phase,) = run.phases
    student, teacher = MODELS["roi_crop"]["layers"], MODELS["hierarchical"]["layers"]
    assert set(phase.task.layers) == set(student) | set(teacher)
    assert list(phase.task.layers)[: len(student)] == list(student)
    assert isinstance(phase.task, TaughtHeadTask)
    assert list(phase.task.val.layers) == list(student)


def test_the_teacher_sees_features_without_noise(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Tensor]] = []
    plain = TeacherHead.__call__

    def spied(self: TeacherHead, features: dict[str, Tensor], boxes: Tensor) -> Any:  # noqa: ANN401 - as it is
        seen.append({name: value.clone() for name, value in features.items()})
        return plain(self, features, boxes)

    monkeypatch.setattr(TeacherHead, "__call__", spied)
    for noise in (0.0, 0.5):
        torch.manual_seed(0)
        sections = replace(taught(project, epochs=1, warmup_epochs=0.0), sampler=sampler_params(feature_noise=noise))
        train_head(f"noise_{noise}", sections, paths_of(project, f"noise_{noise}"))
    half = len(seen) // 2
    assert half > 1
    for before, after in zip(seen[:half], seen[half:], strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_teacher_stands_still_and_draws_nothing(project: Project) -> None:
    """Dropout is off, nothing wants a gradient, and torch's generator is left as it was."""
    run = make_run(taught(project), paths_of(project, "default"), ())
    task = run.phases[0].task
    assert isinstance(task, TaughtHeadTask)
    store = task.stores["train"]
    features = {name: torch.randn(1, *store.shapes[name]) for name in task.layers}
    boxes = torch.tensor([[0.0, 0.1, 0.1, 0.6, 0.9]])
    before = torch.get_rng_state()
    first, second = task.teacher(features, boxes), task.teacher(features, boxes)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.mask_logits, second.mask_logits)
    assert not first.mask_logits.requires_grad


def test_branches_of_two_hierarchical_heads(project: Project) -> None:
    train_head("default", taught(project, "hierarchical", {"branches": 0.3}, epochs=1), paths_of(project, "default"))
    (row,) = load_checkpoint(Path("models/heads/default") / BEST).rows
    assert {"train_distill", "train_distill_bg_fg", "train_distill_target_non_target"} <= set(row)
    assert row["weight_distill_bg_fg"] == pytest.approx(0.3)


def test_phases_share_the_teacher(project: Project) -> None:
    phases = [{"name": "truth", "until": 1, "model": {}, "loss": {"distill": None}}]
    train_head("default", taught(project, phases=phases), paths_of(project, "default"))
    found = newest(Path("models/heads/default/checkpoints"))
    assert found is not None
    first, last = load_checkpoint(found).rows
    assert "train_distill" not in first
    assert last["train_distill"] > 0


# --- what can't be ---


def refused(project: Project, message: str, sections: TrainSections | None = None) -> None:
    with pytest.raises(CheckpointError, match=message):
        train_head("default", sections or taught(project), paths_of(project, "default"))
    assert not Path("models/heads/default").exists()


def test_nobody_to_learn_from(project: Project) -> None:
    with pytest.raises(
        ParamsError, match=r"^train\.distill_from: value is 'models/kept/nobody', but loss\.distill asks for a teacher"
    ):
        train_head("default", taught(project, distill_from=NOBODY), paths_of(project, "default"))


def test_a_file_that_isnt_there(project: Project) -> None:
    refused(project, r"gone\.pth: no such checkpoint", taught(project, distill_from="gone.pth"))


def test_a_checkpoint_of_something_else(project: Project) -> None:
    rewritten(params={"unet": {"model": {}}})
    refused(project, r"best_model\.pth: holds no head, so no head can learn from it; name a file of models/heads")


@pytest.mark.parametrize(
    ("section", "key", "line"),
    [("dataset", "roi_padding", r"dataset\.roi_padding: 0\.5 -> "), ("loss", "non_target", r"loss\.non_target: 0\.5 -> 'own'")],
)
def test_a_teacher_of_other_rois_or_classes(project: Project, section: str, key: str, line: str) -> None:
    params = json.loads(json.dumps(load_checkpoint(TEACHER).params))
    params[section][key] = 0.5
    rewritten(params=params)
    refused(project, rf"has learnt other features, ROIs or classes .* name another in distill_from, .*\n  {line}")


def test_a_teacher_of_other_features(project: Project) -> None:
    fingerprint = json.loads(json.dumps(load_checkpoint(TEACHER).fingerprint))
    fingerprint["images"] = "others"
    rewritten(fingerprint=fingerprint)
    refused(project, r"other features, ROIs or classes .*\n  images: 'others' -> ")


def test_a_teacher_without_the_outputs(project: Project) -> None:
    train_head("small", sections_of(project, "roi_crop", epochs=1), paths_of(project, "small"))
    small = str(Path("models/heads/small") / BEST)
    sections = taught(project, "hierarchical", {"branches": 0.3}, distill_from=small)
    refused(
        project, r"a head 'roi_crop' without the outputs bg_fg, target_non_target, which loss\.distill\.branches reads", sections
    )


def test_weights_of_other_sizes(project: Project) -> None:
    rewritten(model={"stem.weight": torch.zeros(2)})
    refused(project, r"best_model\.pth: its weights don't fit the model")


def test_the_loop_says_what_lacks(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TeacherHead, "__call__", lambda *_: None)
    with pytest.raises(TrainingError, match=r"no teacher's answers"):
        train_head("default", taught(project), paths_of(project, "default"))
