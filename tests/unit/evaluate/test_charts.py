"""Tests of roiseg.evaluate.charts and figures: every chart there, the same bytes each time, in the colours of the page."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from case_factory import no_curves, some_curves
from matplotlib.figure import Figure

from roiseg.evaluate.charts import Chart, draw_charts, plain_name, write_charts
from roiseg.evaluate.figures import INK, style, svg_text
from roiseg.evaluate.strata import GROUPS

CONFUSION = np.array([[900, 50, 50], [10, 80, 10], [5, 15, 30]], dtype=np.int64)
NAMES = [
    "pr",
    "iou_by_size",
    "iou_by_crowdedness",
    "calibration",
    "breakdown",
    "confusion",
    "confusion_background_target",
    "confusion_target_non_target",
]


@pytest.fixture(scope="module")
def charts() -> list[Chart]:
    return draw_charts(some_curves(), CONFUSION)


def texts(chart: Chart) -> list[str]:
    root = ElementTree.fromstring(chart.svg())  # noqa: S314 - our own
    return ["".join(item.itertext()).strip() for item in root.iter() if item.tag.endswith("text")]


def test_every_chart_has_title_and_labels(charts: list[Chart]) -> None:
    assert [chart.name for chart in charts] == NAMES
    for chart in charts:
        assert chart.title in texts(chart)
        assert not chart.missing
        assert chart.description.endswith(".")
    found = {chart.name: texts(chart) for chart in charts}
    assert {"recall", "precision", "oracle box, iou_50"} <= set(found["pr"])
    assert {"small (20)", "large (20)", "target IoU"} <= set(found["iou_by_size"])
    assert "under 10 % others (20)" in found["iou_by_crowdedness"]
    assert {"small (12)", "large (8)", "mean IoU over ROIs"} <= set(found["breakdown"])


def test_confusions_by_hand(charts: list[Chart]) -> None:
    found = {chart.name: texts(chart) for chart in charts}
    assert {"90.0%", "900", "10.0%", "60.0%"} <= set(found["confusion"])
    assert {"94.7%", "11.1%", "88.9%"} <= set(found["confusion_background_target"])
    assert "50" in found["confusion_background_target"]
    assert {"33.3%", "66.7%", "non-target"} <= set(found["confusion_target_non_target"])
    assert "background" not in found["confusion_target_non_target"]


def test_same_bytes_each_time(charts: list[Chart], tmp_path: Path) -> None:
    again = draw_charts(some_curves(), CONFUSION)
    write_charts(tmp_path / "first", charts)
    write_charts(tmp_path / "second", again)
    assert sorted(item.stem for item in (tmp_path / "first").iterdir()) == sorted(NAMES)
    for chart, other in zip(charts, again, strict=True):
        assert (tmp_path / "first" / f"{chart.name}.png").read_bytes() == (tmp_path / "second" / f"{chart.name}.png").read_bytes()
        assert chart.svg() == other.svg()
    moved = replace(some_curves(), calibration=[{**row, "share": 0.5} for row in some_curves().calibration])
    write_charts(tmp_path / "other", draw_charts(moved, CONFUSION))
    assert (tmp_path / "other" / "calibration.png").read_bytes() != (tmp_path / "first" / "calibration.png").read_bytes()
    assert np.asarray(cv2.imread(str(tmp_path / "first" / "pr.png"))).shape == (352, 462, 3)


def test_charts_share_no_id_and_fetch_nothing(charts: list[Chart]) -> None:
    page = "".join(chart.svg() for chart in charts)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids)) > 100
    referred = {*re.findall(r'href="#([^"]*)"', page), *re.findall(r"url\(#([^)]*)\)", page)}
    assert referred <= set(ids)
    assert set(re.findall(r'https?://[^"]*', page)) == {"http://www.w3.org/1999/xlink"}
    assert INK not in page
    assert "currentColor" in page
    assert "<style" not in page
    assert "font-family" not in page


def test_description_is_read_out() -> None:
    with style():
        figure = Figure()
        figure.subplots().set_title("a < b")
    found = svg_text(figure, "some", "What it shows.")
    assert found.startswith("<svg ")
    assert 'role="img" aria-label="What it shows."' in found
    assert "a &lt; b" in found


def test_charts_of_nothing(tmp_path: Path) -> None:
    found = draw_charts(no_curves(), np.zeros((3, 3), dtype=np.int64))
    assert [chart.name for chart in found] == NAMES
    for chart in found:
        assert chart.draw is None
        assert chart.missing.endswith(".")
        assert chart.svg() == ""
    write_charts(tmp_path / "plots", found)
    assert not (tmp_path / "plots").exists()


def test_every_stratum_has_a_plain_name() -> None:
    names = [plain_name(f"{group}: {stratum}") for group, strata in GROUPS.items() for stratum in strata]
    assert len(set(names)) == len(names) == 9
    assert not any("_" in name for name in names)
