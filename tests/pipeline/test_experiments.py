"""What people type: `dvc exp run -S`, `dvc metrics diff`, `dvc params diff`, `dvc exp show`."""

import json

import pytest
from dvc_project import EXP_SHOW, Project, copy_of

from roiseg.coco import load_prepared

pytestmark = pytest.mark.pipeline


LEADING = {
    "miou_fg_roi",
    "iou_target_roi",
    "iou_nontarget_roi",
    "boundary_iou_crop",
    "separation_accuracy",
    "oracle_box_ap",
    "detector_box_ap",
}


def test_a_loss_trains_evaluates_and_exports_only(finished: Project) -> None:
    """And other detections evaluate only."""
    printed = finished.dvc("exp", "run", "-n", "sharper", "-S", "loss.boundary_weight=3.0")
    try:
        assert finished.stages_run(printed) == ["train@default", "evaluate@default", "export@default"]
        assert "loss.boundary_weight" in finished.dvc("params", "diff")
        assert "3.0" in finished.dvc("params", "diff")
        assert "miou_fg_roi" in finished.dvc("metrics", "diff")
        people = load_prepared(finished.root / "data/annotations/instances_val_person_only_no_crowd.json")
        found = [
            {key: person[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for person in people.annotations
        ]
        (finished.root / "data/found.json").write_text(json.dumps(found))
        printed = finished.dvc("exp", "run", "-S", "evaluate.detections=data/found.json")
        assert finished.stages_run(printed) == ["evaluate@default"]
        figures = json.loads((finished.root / "metrics/evaluate/default.json").read_text())
        assert figures["detector_boxes"] == len(found)
        assert json.loads((finished.root / "data/predictions/default.detector.json").read_text())
        shown = finished.run("bash", "-c", f"{EXP_SHOW} --csv")
        assert "sharper" in shown
        columns = next(line for line in shown.splitlines() if line.startswith("Experiment,")).split(",")
        assert columns[0] == "Experiment"
        assert set(columns[-2:]) == {"evaluate.detections", "loss.boundary_weight"}
        assert set(columns[1:-2]) == LEADING
    finally:
        finished.run("git", "checkout", "-q", "--", ".")
        (finished.root / "data/found.json").unlink(missing_ok=True)
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


@pytest.mark.thorough
def test_a_queue_of_experiments(finished: Project) -> None:
    """Of the quickest stage; a sweep over heads is the slow test's."""
    try:
        queued = finished.dvc("exp", "run", "--queue", "-S", "evaluate.images_per_batch=2,3")
        assert queued.count("Queued experiment") == 2
        printed = finished.dvc("exp", "run", "--run-all")
        assert finished.stages_run(printed) == ["evaluate@default"] * 2
        assert finished.dvc("queue", "status").count("Success") == 2
    finally:
        finished.run("git", "checkout", "-q", "--", ".")
        finished.dvc("checkout")


@pytest.mark.slow
def test_a_sweep_over_presets_and_then_both_in_one_run(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Narrow heads, for time. What was run in the queue is taken over by the run of both."""
    copy = copy_of(finished, tmp_path_factory.mktemp("sweep") / "project")
    heads = ("baseline", "multiscale")
    for name in heads:
        preset = copy.root / f"roiseg/presets/{name}.yaml"
        narrow = "  mask_hw: [28, 28]\n  mid_channels: 8\n  inputs: {roi_hw: [14, 14]}\nloss:\n"
        preset.write_text(preset.read_text().replace("loss:\n", narrow))
    copy.set_params({"export": {"variants": [], "end_to_end": []}})
    copy.commit()
    queued = copy.dvc("exp", "run", "--queue", "-S", "heads=[baseline],[multiscale]")
    assert queued.count("Queued experiment") == 2
    printed = copy.dvc("exp", "run", "--run-all")
    assert copy.stages_run(printed) == [f"{stage}@{name}" for name in heads for stage in ("train", "evaluate", "export")]
    assert copy.dvc("queue", "status").count("Success") == 2
    printed = copy.dvc("exp", "run", "-S", "heads=[baseline,multiscale]")
    assert copy.stages_run(printed) == []
    assert printed.count("is cached - skipping run") == 6
    scores = [json.loads((copy.root / f"metrics/evaluate/{name}.json").read_text()) for name in heads]
    assert scores[0] != scores[1]
