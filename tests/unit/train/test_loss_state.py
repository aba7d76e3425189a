"""Tests of losses that change over a run: what they have seen is part of a checkpoint, and a rehearsal shows them nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loss_factory import FULL
from store_factory import Project, shared_project
from torch import Tensor, nn
from trainer_factory import EPOCHS, LOSS, Crash, files_of, learner_of, rows_of, run_of, task_of

from roiseg.batches import dequantise
from roiseg.losses import LossParams, MaskLoss
from roiseg.nn.outputs import HeadOutput
from roiseg.train import learner
from roiseg.train.checkpoint import load_checkpoint
from roiseg.train.head_task import HeadTask
from roiseg.train.loop import Trainer
from roiseg.train.run import Run

CHANGING = {
    "hierarchical": FULL["hierarchical"],
    "adaptive": {"curve": "linear", "end_boundary_weight": 1.4, "end_instance_sep_weight": 1.5},
}


class InTwoSteps(nn.Module):
    """A head that also says its logits in two steps."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: dict[str, Tensor], boxes: Tensor) -> HeadOutput:
        logits = self.head(features, boxes).mask_logits
        first = torch.stack([logits[:, 0], logits[:, 1:].logsumexp(1)], dim=1)
        return HeadOutput(logits, {"bg_fg": first, "target_non_target": logits[:, 1:]})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def changing_run(project: Project) -> Run:
    run = run_of(project, loss=MaskLoss(LossParams.parse(LOSS | CHANGING, "loss"), (2.0, 0.5, 2.0)))
    phase, task = run.phases[0], task_of(run)
    return replace(run, phases=[replace(phase, task=HeadTask(lambda: InTwoSteps(task.build()), task.loss, task.sampler, task.val))])


def test_a_killed_run_goes_on_with_what_its_loss_has_seen(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(changing_run(project), tmp_path / "unbroken").fit()
    with monkeypatch.context() as patch:
        patch.setattr(learner, "dequantise", Crash(dequantise, 1 + 2 * 5 + 3, False))
        with pytest.raises(KeyboardInterrupt):
            Trainer(changing_run(project), tmp_path / "killed").fit()
    Trainer(changing_run(project), tmp_path / "killed").fit()
    expected, found = files_of(tmp_path / "unbroken"), files_of(tmp_path / "killed")
    assert [path for path in expected if found.get(path) != expected[path]] == []
    states = [load_checkpoint(path).loss for path in sorted((tmp_path / "unbroken" / "checkpoints").iterdir())]
    assert [sorted(state[0]) for state in states] == [["bg", "fg", "non_target", "target"]] * EPOCHS
    assert len({tuple(state[0].values()) for state in states}) == EPOCHS


def test_weights_go_from_the_first_epoch_to_the_last(project: Project, tmp_path: Path) -> None:
    Trainer(changing_run(project), tmp_path).fit()
    rows = rows_of(tmp_path)
    assert [row["weight_boundary"] for row in rows] == pytest.approx([2.0, 1.8, 1.6, 1.4])
    assert [row["weight_instance_sep"] for row in rows] == pytest.approx([3.0, 2.5, 2.0, 1.5])
    assert [row["weight_bg_fg"] for row in rows] == pytest.approx([2.0] * EPOCHS)
    assert len({row["weight_hier_fg"] for row in rows}) == EPOCHS


def test_a_run_begins_with_nothing_seen_and_a_rehearsal_shows_nothing(project: Project) -> None:
    run = changing_run(project)
    loss = task_of(run).loss
    loss.load_state({"bg": 3.0})
    made = learner_of(run)
    assert loss.state() == {}
    made.rehearse()
    assert loss.state() == {}
