"""What people type: `dvc exp run -S`, `dvc metrics diff`, `dvc params diff`, `dvc exp show`."""

import pytest
from dvc_project import EXP_SHOW, Project

pytestmark = pytest.mark.pipeline


def test_a_loss_trains_evaluates_and_exports_only(finished: Project) -> None:
    printed = finished.dvc("exp", "run", "-n", "sharper", "-S", "loss.boundary_weight=3.0")
    try:
        assert finished.stages_run(printed) == ["train@default", "evaluate@default", "export@default"]
        assert "loss.boundary_weight" in finished.dvc("params", "diff")
        assert "3.0" in finished.dvc("params", "diff")
        assert "miou_fg_roi" in finished.dvc("metrics", "diff")
        shown = finished.run("bash", "-c", f"{EXP_SHOW} --csv")
        assert "sharper" in shown
        columns = next(line for line in shown.splitlines() if line.startswith("Experiment,")).split(",")
        assert {"miou_fg_roi", "iou_target_roi", "loss.boundary_weight"} <= set(columns)
        assert len(columns) <= 16, "a table that nobody reads"
    finally:
        finished.run("git", "checkout", "-q", "--", ".")
        finished.dvc("checkout")
    assert finished.stages_run(finished.dvc("repro")) == []


def test_wrong_key_is_answered_with_the_nearest(finished: Project) -> None:
    finished.set_params({"train": {"epochs": "many"}, "loss": {"boundary_wieght": 3.0}})
    try:
        printed = finished.dvc("repro", ok=False)
        assert "2 faults in the params" in printed
        assert "loss.boundary_wieght: unknown key; did you mean 'boundary_weight'" in printed
        assert "train.epochs: value is 'many'" in printed
    finally:
        finished.run("git", "checkout", "-q", "--", ".")
        finished.dvc("checkout")
    # DVC deletes a stage's outs before it runs the stage, but keeps what they held.
    assert (finished.root / "models/heads/default/best_model.pth").is_file()
