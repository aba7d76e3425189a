"""Tests of roiseg.evaluate.curves: rows by hand, and their CSVs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from case_factory import no_curves, some_curves
from ruamel.yaml import YAML

from roiseg.evaluate.curves import (
    BREAKDOWN_FIGURES,
    COLUMNS,
    breakdown_rows,
    iou_histogram_rows,
    precision_recall_rows,
    write_curves,
)
from roiseg.evaluate.strata import GROUPS

ROOT = Path(__file__).parents[3]
TEMPLATES = ROOT / ".dvc" / "plots"


def test_histogram_by_hand() -> None:
    ious = np.array([0.0, 0.049, 0.05, 1.0, 0.5, np.nan, 0.5])
    labels = {"size": np.array(["small", "small", "small", "small", "large", "large", "large"])}
    rows = iou_histogram_rows(ious, labels, {"size": ("small", "medium", "large")})
    assert [row["stratum"] for row in rows] == ["size: small"] * 20 + ["size: large"] * 20
    assert [row["iou"] for row in rows[:3]] == [0.025, 0.075, 0.125]
    found = {(row["stratum"], row["iou"]): row["share"] for row in rows if row["share"]}
    assert found == {
        ("size: small", 0.025): 0.5,
        ("size: small", 0.075): 0.25,
        ("size: small", 0.975): 0.25,
        ("size: large", 0.525): 1.0,
    }
    assert {row["rois"] for row in rows[20:]} == {2}, "one of three has no IoU"
    assert iou_histogram_rows(ious[:0], {"size": labels["size"][:0]}, {"size": ("small",)}) == []


def test_curves_of_two_sources() -> None:
    row = {"curve": "IoU 0.5", "recall": 0.5, "precision": 0.25}
    found = precision_recall_rows({"oracle box": [row], "detector box": [row]})
    assert found == [row | {"curve": "oracle box, IoU 0.5"}, row | {"curve": "detector box, IoU 0.5"}]
    assert precision_recall_rows({"oracle box": [], "detector box": []}) == []


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_breakdown_has_a_row_for_each_figure(nothing: float | None) -> None:
    item = {"group": "size", "stratum": "small", "rois": 3, "images": 2, "iou_target_roi": 0.12345678, "iou_nontarget_roi": nothing}
    assert breakdown_rows([item]) == [
        {"group": "size", "stratum": "size: small", "figure": "iou_target_roi", "value": 0.123457, "rois": 3}
    ]


def test_csv_of_every_table(tmp_path: Path) -> None:
    write_curves(tmp_path / "some", some_curves())
    write_curves(tmp_path / "none", no_curves())
    for name, columns in COLUMNS.items():
        head = ",".join(columns) + "\n"
        assert (tmp_path / "none" / f"{name}.csv").read_text() == head
        assert (tmp_path / "some" / f"{name}.csv").read_text().startswith(head)
    assert (tmp_path / "some" / "calibration.csv").read_text().splitlines()[1:] == ["0.0,0.5,0.2,0.1,40", "0.5,1.0,0.9,0.8,60"]
    assert len(list((tmp_path / "some").iterdir())) == len(COLUMNS)


def template(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TEMPLATES / f"{name}.json").read_text())
    return found


def test_templates_show_strata_and_figures_in_their_order() -> None:
    strata = [f"{group}: {stratum}" for group in ("size", "crowdedness") for stratum in GROUPS[group]]
    assert template("histograms")["facet"]["sort"] == strata
    assert template("breakdown")["facet"]["sort"] == list(BREAKDOWN_FIGURES)
    assert template("histograms")["facet"]["field"] in COLUMNS["iou_histogram"]
    assert template("breakdown")["facet"]["field"] in COLUMNS["breakdown"]
    # DVC's chart takes the name of a curve apart where `precision_recall_rows` put it together.
    parts = [step["calculate"] for step in template("precision_recall")["transform"]]
    assert parts == ["split(datum.curve, ', ')[0]", "split(datum.curve, ', ')[1]"]
    assert "curve" in COLUMNS["pr"]
    assert str(precision_recall_rows({"boxes": [{"curve": "IoU"}]})[0]["curve"]).split(", ") == ["boxes", "IoU"]


def test_dvc_draws_columns_that_there_are() -> None:
    """The axes of the bars are turned: values run to the right."""
    plots = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]["evaluate"]["plots"]
    drawn = {Path(path).stem: options for item in plots if isinstance(item, dict) for path, options in item.items()}
    assert set(drawn) == set(COLUMNS)
    for name, options in drawn.items():
        assert {options["x"], options["y"]} <= set(COLUMNS[name])
        assert template(options["template"])
    assert (drawn["breakdown"]["x"], drawn["breakdown"]["y"]) == ("value", "stratum")
    axes = template("breakdown")["spec"]["encoding"]
    assert (axes["x"]["field"], axes["y"]["field"]) == ("<DVC_METRIC_X>", "<DVC_METRIC_Y>")
