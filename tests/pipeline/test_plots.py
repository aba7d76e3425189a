"""The charts that dvc.yaml defines: `dvc plots show` and `diff` draw them, of a run that is over and of one that isn't."""

import csv
import json
import shutil
from typing import Any

import pytest
from dvc_project import Project

from roiseg.train.log import LiveCurves

pytestmark = pytest.mark.pipeline

TRAINING = {
    "loss": ("Loss of default", "mean over ROIs", {"total", "ce", "dice"}),
    "learning_rate": ("Learning rate of default", "learning rate of the epoch's last step", {"learning rate"}),
    "iou": (
        "IoU of default on the validation split",
        "IoU",
        {"miou_fg_roi", "iou_target_roi", "iou_nontarget_roi", "iou_bg", "never_class_2_miou_fg_roi"},
    ),
    "weights": ("Weights of the loss of default", "weight", {"ce", "dice", "boundary", "instance_sep"}),
}
EVALUATION = {
    "pr": ("Precision and recall of default", ("recall", "recall"), ("precision", "precision")),
    "iou_histogram": ("Target IoU of default", ("iou", "target IoU"), ("share", "share of the ROIs")),
    "calibration": (
        "Calibration of default",
        ("probability", "predicted probability of the target"),
        ("share", "share that is target"),
    ),
    "breakdown": ("IoU of default by kind of ROI", ("value", "mean over ROIs"), ("stratum", None)),
}
"""Table -> title, and column and label of each axis. Kinds of ROIs need no label: each says its group."""


def charts(project: Project, *arguments: str) -> dict[str, Any]:
    """Vega-Lite of every curve chart."""
    printed = project.dvc("plots", *arguments, "--json")
    found = json.JSONDecoder().raw_decode(printed[printed.index("{") :])[0]
    assert "errors" not in found
    return {name: parts[0]["content"] for name, parts in found["data"].items() if "/curves/" in name and parts}


@pytest.fixture(scope="module")
def shown(finished: Project) -> dict[str, Any]:
    """What `dvc plots show` draws."""
    return charts(finished, "show")


@pytest.fixture(scope="module")
def copy(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    target = tmp_path_factory.mktemp("plots") / "project"
    shutil.copytree(finished.root, target, symlinks=True)
    return Project(target)


def encoding(content: dict[str, Any]) -> dict[str, Any]:
    """Of a chart, of the panels of one, or of the layer that has the data."""
    inside = content.get("spec", content)
    return dict(inside["encoding"] if "encoding" in inside else inside["layer"][-1]["encoding"])


def test_every_chart_of_training_has_title_labels_and_all_its_curves(shown: dict[str, Any]) -> None:
    assert {name for name in shown if "/train/" in name} == {f"metrics/train/default/curves/{name}.tsv" for name in TRAINING}
    for name, (title, label, curves) in TRAINING.items():
        content = shown[f"metrics/train/default/curves/{name}.tsv"]
        assert content["title"]["text"] == title
        assert content["encoding"]["x"]["title"] == "epoch"
        assert content["encoding"]["y"]["title"] == label
        points = content["data"]["values"]
        assert curves <= {point["curve"] for point in points}
        assert {point["epoch"] for point in points} == {"1", "2"}


def test_every_chart_of_evaluate_has_title_labels_and_all_its_rows(finished: Project, shown: dict[str, Any]) -> None:
    tables = {name: f"metrics/curves/default/{name}.csv" for name in EVALUATION}
    assert {name for name in shown if "/train/" not in name} == set(tables.values())
    for name, (title, *axes) in EVALUATION.items():
        content = shown[tables[name]]
        assert content["title"]["text"] == title
        found = encoding(content)
        assert [(found[axis]["field"], found[axis]["title"]) for axis in ("x", "y")] == axes
        with (finished.root / tables[name]).open() as file:
            rows = list(csv.DictReader(file))
        assert rows
        points = content["data"]["values"]
        assert [{column: point[column] for column in rows[0]} for point in points] == rows
        assert {point["rev"] for point in points} == {"workspace"}


def test_panels_name_what_is_in_the_tables(finished: Project, shown: dict[str, Any]) -> None:
    """Else the panels of a chart are in no order: Vega takes a name that it doesn't know for the last."""
    for name, column in (("iou_histogram", "stratum"), ("breakdown", "figure")):
        content = shown[f"metrics/curves/default/{name}.csv"]
        assert content["facet"]["field"] == column
        assert {row[column] for row in content["data"]["values"]} <= set(content["facet"]["sort"])
    sources = {row["curve"].split(", ")[0] for row in shown["metrics/curves/default/pr.csv"]["data"]["values"]}
    assert sources == {"annotated boxes"}


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
    both = charts(copy, "diff", "HEAD")
    assert {point["rev"] for point in both["metrics/train/default/curves/loss.tsv"]["data"]["values"]} == {"workspace", "HEAD"}
    for name in EVALUATION:
        table = both[f"metrics/curves/default/{name}.csv"]["data"]["values"]
        told = {rev: [{**point, "rev": ""} for point in table if point["rev"] == rev] for rev in ("workspace", "HEAD")}
        assert told["workspace"] == told["HEAD"]
