"""Tests of mixed precision and of compiled heads: a run learns, goes on as if nothing was, and says what it lacks."""

from pathlib import Path

import pytest
import torch
from store_factory import Project, shared_project
from torch import Tensor
from trainer_factory import Poisoned, files_of, learner_of, loss_params, rows_of, run_of, task_of

from roiseg.dataset import Targets
from roiseg.errors import TrainingError
from roiseg.losses import MaskLoss
from roiseg.nn.outputs import HeadOutput
from roiseg.train.checkpoint import by_epoch, load_checkpoint
from roiseg.train.learner import CompilerError, Learner
from roiseg.train.loop import Trainer


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_learns_and_resumes(project: Project, tmp_path: Path, precision: str) -> None:
    Trainer(run_of(project, "roi_crop", precision=precision), tmp_path / "whole").fit()
    rows = rows_of(tmp_path / "whole")
    assert rows[-1]["train_total"] < 0.9 * rows[0]["train_total"]
    Trainer(run_of(project, "roi_crop", precision=precision), tmp_path / "killed").fit()
    for path in by_epoch(tmp_path / "killed/checkpoints")[2:]:
        path.unlink()
    Trainer(run_of(project, "roi_crop", precision=precision), tmp_path / "killed").fit()
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_mixed_precision_computes_in_few_bits(project: Project) -> None:
    """The heads' outputs, seen before Fabric makes them float32 again."""
    seen: dict[str, torch.dtype] = {}
    for precision in ("32-true", "bf16-mixed", "16-mixed"):
        made = learner_of(run_of(project, "roi_crop", precision=precision))
        last = [module for module in made.head.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        last.register_forward_hook(lambda *args, name=precision: seen.update({name: args[2].dtype}))
        made.rehearse()
    assert seen == {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Steep(MaskLoss):
    """A loss whose gradients are beyond float16 until the scaler gives way."""

    def __call__(self, output: HeadOutput, target: Targets, teacher: HeadOutput | None = None) -> dict[str, Tensor]:
        parts = super().__call__(output, target, teacher)
        parts["total"] = parts["total"] * 100.0
        return parts


def test_the_scaler_gives_way_and_its_state_is_kept(project: Project, tmp_path: Path) -> None:
    """Infinite gradients that the scaler's factor makes are no fault of the run."""
    Trainer(run_of(project, "roi_crop", Steep(loss_params(), (1.0, 1.0, 1.0)), precision="16-mixed"), tmp_path).fit()
    found = [load_checkpoint(path) for path in by_epoch(tmp_path / "checkpoints")]
    assert found[-1].scaler["scale"] < 65536
    assert [row["skipped_steps"] for row in found[-1].rows] == [0, 0, 0, 0]


def test_a_loss_that_isnt_finite_is_a_fault_with_a_scaler_too(project: Project, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"epoch \d: the norm of the gradients is (nan|inf)"):  # once the factor is down to 1
        Trainer(run_of(project, "roi_crop", Poisoned(1, 1e30, gradient_only=True), precision="16-mixed"), tmp_path).fit()
    with pytest.raises(TrainingError, match=r"epoch 1: the loss is nan"):
        Trainer(run_of(project, "roi_crop", Poisoned(1, float("nan")), precision="16-mixed"), tmp_path / "nan").fit()


@pytest.mark.slow
def test_a_compiled_head_learns_the_same(project: Project, tmp_path: Path) -> None:
    for name, compiled in (("plain", False), ("compiled", True)):
        Trainer(run_of(project, "roi_crop", compile=compiled, epochs=2), tmp_path / name).fit()
    plain, fast = (rows_of(tmp_path / name) for name in ("plain", "compiled"))
    assert fast[-1] == pytest.approx(plain[-1], rel=0.02, abs=0.02)
    assert (
        load_checkpoint(by_epoch(tmp_path / "compiled/checkpoints")[0]).live.keys()
        == dict(task_of(run_of(project, "roi_crop")).build().state_dict()).keys()
    )


def test_nothing_to_compile_with(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise CompilerError("no C++ compiler")

    monkeypatch.setattr(Learner, "losses", fail)
    with pytest.raises(TrainingError, match=r"train\.compile is true, but .* \(no C\+\+ compiler\).*or set it to false"):
        Trainer(run_of(project, compile=True), tmp_path).fit()
