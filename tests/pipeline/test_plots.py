"""The charts that dvc.yaml defines: `dvc plots show` and `diff` draw them, of a run that is over and of one that isn't."""

import json
import shutil
from typing import Any

import pytest
from dvc_project import Project

from roiseg.train.log import LiveCurves

pytestmark = pytest.mark.pipeline

CHARTS = {
    "loss": ("Loss of default", "mean over ROIs", {"total", "ce", "dice"}),
    "learning_rate": ("Learning rate of default", "learning rate of the epoch's last step", {"learning rate"}),
    "iou": (
        "IoU of default on the validation split",
        "IoU",
        {"miou_fg_roi", "iou_target_roi", "iou_nontarget_roi", "iou_bg", "never_class_2_miou_fg_roi"},
    ),
    "weights": ("Weights of the loss of default", "weight", {"ce", "dice", "boundary", "instance_sep"}),
}


def charts(project: Project, *arguments: str) -> dict[str, Any]:
    """Vega-Lite of every curve chart."""
    printed = project.dvc("plots", *arguments, "--json")
    found = json.JSONDecoder().raw_decode(printed[printed.index("{") :])[0]
    assert "errors" not in found
    return {name: parts[0]["content"] for name, parts in found["data"].items() if "/curves/" in name and parts}


@pytest.fixture(scope="module")
def copy(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    target = tmp_path_factory.mktemp("plots") / "project"
    shutil.copytree(finished.root, target, symlinks=True)
    return Project(target)


def test_every_chart_has_title_labels_and_all_its_curves(finished: Project) -> None:
    found = charts(finished, "show")
    assert set(found) == {f"metrics/train/default/curves/{name}.tsv" for name in CHARTS}
    for name, (title, label, curves) in CHARTS.items():
        content = found[f"metrics/train/default/curves/{name}.tsv"]
        assert content["title"]["text"] == title
        assert content["encoding"]["x"]["title"] == "epoch"
        assert content["encoding"]["y"]["title"] == label
        points = content["data"]["values"]
        assert curves <= {point["curve"] for point in points}
        assert {point["epoch"] for point in points} == {"1", "2"}


def test_no_table_of_a_single_figure_is_a_chart(finished: Project) -> None:
    assert "plots/metrics" not in finished.dvc("plots", "show", "--json")


def test_a_run_is_drawn_while_it_goes_on(copy: Project) -> None:
    """As DVC begins a stage: its outs are gone, and what is there is what the run has written so far."""
    folder = copy.root / "metrics/train/default"
    shutil.rmtree(folder)
    live = LiveCurves(folder)
    rows = [{"epoch": epoch, "train_total": 1 / epoch, "train_lr": 0.1} for epoch in (1, 2, 3)]
    live.begin([])
    assert "metrics/train/default/curves/loss.tsv" not in charts(copy, "show")
    for epoch in (1, 2, 3):
        live.epoch(rows[:epoch])
    found = charts(copy, "show")["metrics/train/default/curves/loss.tsv"]
    assert [float(point["value"]) for point in found["data"]["values"]] == [1, 1 / 2, 1 / 3]
    both = charts(copy, "diff", "HEAD")["metrics/train/default/curves/loss.tsv"]
    assert {point["rev"] for point in both["data"]["values"]} == {"workspace", "HEAD"}
