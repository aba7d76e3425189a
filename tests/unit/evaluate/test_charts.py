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


@pytest.fixture(scope="module")
def drawn(charts: list[Chart]) -> dict[str, str]:
    """SVG of each chart by its name."""
    return {chart.name: chart.svg() for chart in charts}


@pytest.fixture(scope="module")
def found(drawn: dict[str, str]) -> dict[str, list[str]]:
    """All texts of each chart."""
    roots = {name: ElementTree.fromstring(text) for name, text in drawn.items()}  # noqa: S314 - our own
    return {
        name: ["".join(item.itertext()).strip() for item in root.iter() if item.tag.endswith("text")]
        for name, root in roots.items()
    }


def test_every_chart_has_title_and_labels(charts: list[Chart], found: dict[str, list[str]]) -> None:
    assert [chart.name for chart in charts] == NAMES
    for chart in charts:
        assert not chart.missing
        assert chart.description.endswith(".")
        assert chart.title in found[chart.name]
    assert {"recall", "precision", "oracle box, IoU 0.5"} <= set(found["pr"])
    assert {"small (20)", "large (20)", "target IoU"} <= set(found["iou_by_size"])
    assert "under 10 % others (20)" in found["iou_by_crowdedness"]
    assert {"small (12)", "large (8)", "mean IoU over ROIs"} <= set(found["breakdown"])


def test_confusions_by_hand(found: dict[str, list[str]]) -> None:
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
    for name in NAMES:
        assert (tmp_path / "first" / f"{name}.png").read_bytes() == (tmp_path / "second" / f"{name}.png").read_bytes(), name
    moved = replace(some_curves(), calibration=[{**row, "share": 0.5} for row in some_curves().calibration])
    write_charts(tmp_path / "other", [chart for chart in draw_charts(moved, CONFUSION) if chart.name == "calibration"])
    assert (tmp_path / "other" / "calibration.png").read_bytes() != (tmp_path / "first" / "calibration.png").read_bytes()
    assert np.asarray(cv2.imread(str(tmp_path / "first" / "pr.png"))).shape == (352, 462, 3)


def test_charts_share_no_id_and_fetch_nothing(drawn: dict[str, str]) -> None:
    page = "".join(drawn.values())
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
