"""Tests of how a comparison is told: Markdown to the letter, terminals of 80 columns, JSON."""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from compare_factory import overlapping, run_of
from rich.console import Console

from roiseg.compare.comparison import Comparison, compare
from roiseg.compare.differences import Change, StratumChange
from roiseg.compare.document import document
from roiseg.compare.impact import Impact
from roiseg.compare.markdown import markdown
from roiseg.compare.runs import Run
from roiseg.compare.settings import NOT_THERE, Setting
from roiseg.compare.tables import IMAGE_COST, STRATA_SHOWN, interval, number, settings_block, shortened, strata_block
from roiseg.compare.terminal import show
from roiseg.evaluate.complexity import ROIS_PER_IMAGE

COSTS = {"parameters": 639299.0, "gflops_per_roi": 0.1749, "gflops_per_image": 3.2}
"""Of a head that does half of its work once for an image, so that the figure of an ROI alone would flatter it."""


def metrics(value: float, half: float) -> Mapping[str, float]:
    return {"miou_fg_roi": value, "miou_fg_roi_low": value - half, "miou_fg_roi_high": value + half, "rois": 1234}


def two_runs() -> Comparison:
    """Half widths 0.03 and 0.04, which makes 0.05."""
    first = {"loss": {"boundary_weight": 1.0}, "model": {"head": "coarse"}}
    second = {"loss": {"boundary_weight": 3.0}, "model": {"head": "coarse", "attention": "a|b"}}
    runs = [
        run_of("main", metrics(0.5, 0.03), params=first, costs=COSTS),
        run_of("a|b", {**metrics(0.6, 0.04), "iou_target_roi": 0.75}, params=second),
    ]
    return compare(runs, None, ["miou_fg_roi", "iou_target_roi"], pull=False)


def test_markdown_to_the_letter() -> None:
    assert markdown(two_runs()) == (Path(__file__).parent / "comparison.md").read_text(encoding="utf-8")


def test_images_have_as_many_rois_as_their_cost_is_counted_with() -> None:
    assert IMAGE_COST == f"GFLOPs/image: with {ROIS_PER_IMAGE} ROIs."


def many(count: int, name: str = "run-{}") -> Comparison:
    """A comparison of many runs, with all that there can be."""
    runs = [run_of(name.format(place), metrics(0.5, 0.03), params={"x": place // 2}) for place in range(count)]
    change = Change("miou_fg_roi", -0.0321, -0.05, -0.01, paired=True)
    strata = [
        StratumChange("size", kind, 400, Change("miou_fg_roi", value, value - 0.1, value + 0.1, paired=True))
        for kind, value in (("small", 0.05), ("large", -0.2))
    ]
    return Comparison(
        runs,
        [run.name for run in runs],
        0,
        ["miou_fg_roi"],
        {place: [change] for place in range(1, count)},
        dict.fromkeys(range(1, count), strata),
        [Setting("model.inputs.layer_roi_hw.layer_3", {place: run.params["x"] for place, run in enumerate(runs) if run.params})],
        [Impact("boundary cross entropy", "miou_fg_roi", 3, count - 3, 0.0123, 2, -0.001)],
        ["what the reader must know " * 6],
    )


LONG = "hierarchical_unet_v2_external_concat_low_lr_and_more_{:02d}"


@pytest.mark.parametrize(("count", "name"), [(2, "run-{}"), (8, LONG), (33, LONG)])
def test_eighty_columns_hold_everything(count: int, name: str) -> None:
    text = io.StringIO()
    comparison = many(count, name)
    show(comparison, Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    runs = "".join(line.replace(" ", "") for line in lines[: lines.index("miou_fg_roi")])
    assert "…" not in runs, "the first table has whole names"
    rows = [line for line in lines if "-0.032*" in line]
    assert len(rows) == count - 1
    assert all("-0.050 to -0.010" in line and "0.470 to 0.530" in line for line in rows)
    assert sum("base" in line.split() for line in lines) == 1
    assert all(
        row.split()[1].startswith(name[:4]) and row.split()[1].endswith(comparison.labels[place][-2:])
        for place, row in enumerate(rows, start=1)
    )


def test_metrics_whose_intervals_are_not_of_pairs_are_named() -> None:
    """The average precision doesn't follow from rows."""
    ends = {"oracle_box_ap": 0.5, "oracle_box_ap_low": 0.4, "oracle_box_ap_high": 0.6}
    runs = [run_of(name, ends, params={}, table=overlapping(1, 2)) for name in "ab"]
    text = markdown(compare(runs, None, ["iou_target_roi", "oracle_box_ap"], pull=False))
    assert "Intervals: 1 of 2 paired over images, the others (oracle\\_box\\_ap) as of independent runs, and too wide." in text


def test_what_is_clear_is_bold_on_a_terminal() -> None:
    text = io.StringIO()
    show(many(2), Console(file=text, width=80, force_terminal=True, color_system="standard"))
    assert "\x1b[1m-0.032*\x1b[0m" in text.getvalue()
    assert "\x1b[1m+0.050" not in text.getvalue(), "its interval holds 0"


def test_strata_of_many_runs_are_the_largest() -> None:
    block = strata_block(many(33))
    assert block is not None
    assert len(block.rows) == STRATA_SHOWN
    assert all(list(row[2:5]) == ["size large", "400", "-0.200*"] for row in block.rows)
    assert block.remark == f"*: the 95 % interval excludes 0. {64 - STRATA_SHOWN} smaller ones: --json."
    few = strata_block(many(2))
    assert few is not None
    assert [row[4] for row in few.rows] == ["-0.200*", "+0.050"]
    assert few.remark == "*: the 95 % interval excludes 0."


def test_values_of_many_runs_name_their_runs() -> None:
    block = settings_block(many(6))
    assert block is not None
    assert [list(row) for row in block.rows] == [
        ["model.inputs.layer_roi_hw.layer_3", "0", "1-2"],
        ["", "1", "3-4"],
        ["", "2", "5-6"],
    ]
    runs = [run_of(str(place), {}, params={"x": value}) for place, value in enumerate([1, 2, 1, 1])]
    settings = [Setting("x", dict(enumerate([1, 2, 1, 1])))]
    apart = settings_block(Comparison(runs, list("abcd"), 0, ["m"], {}, {}, settings, [], []))
    assert apart is not None
    assert [list(row) for row in apart.rows] == [["x", "1", "1, 3-4"], ["", "2", "2"]]


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.12345, False, "0.123"),
        (0.5, True, "+0.500"),
        (-0.0001, True, "+0.000"),
        (1234.5, False, "1,234"),
        (99.9994, False, "99.999"),
        (-250.0, True, "-250"),
    ],
)
def test_numbers(value: float, signed: bool, text: str) -> None:
    assert number(value, signed=signed) == text


def test_an_interval_that_is_not_there() -> None:
    assert interval(0.1, None) == "–"
    assert interval(-0.1, 0.1, signed=True) == "-0.100 to +0.100"


def test_json_holds_everything() -> None:
    values = json.loads(json.dumps(document(two_runs()), allow_nan=False))
    assert values["base"] == "main"
    assert [run["label"] for run in values["runs"]] == ["main", "a|b"]
    assert values["runs"][0]["figures"] == {"miou_fg_roi": {"value": 0.5, "low": 0.47, "high": 0.53}, "iou_target_roi": None}
    assert values["runs"][0]["costs"] == COSTS
    (change,) = values["differences"]
    assert (change["label"], change["metric"], change["paired"], change["clear"]) == ("a|b", "miou_fg_roi", False, True)
    assert [change[key] for key in ("value", "low", "high")] == pytest.approx([0.1, 0.05, 0.15])
    assert values["params"] == [
        {"key": "loss.boundary_weight", "values": {"main": 1.0, "a|b": 3.0}},
        {"key": "model.attention", "values": {"a|b": "a|b"}},
    ]
    assert [(item["feature"], item["with_it"], item["without"]) for item in values["features"]] == [
        ("distance loss", 1, 1),
        ("attention", 1, 1),
    ]
    assert values["strata"] == []
    assert len(values["notes"]) == 1
    strata = document(many(2))["strata"]
    assert [(item["label"], item["group"], item["stratum"], item["rois"]) for item in strata] == [
        ("run-1", "size", "small", 400),
        ("run-1", "size", "large", 400),
    ]


def test_json_has_words_for_what_yaml_alone_can_say() -> None:
    runs: list[Run] = [run_of("a", {}), run_of("b", {})]
    settings = [Setting("x", {0: math.inf, 1: NOT_THERE})]
    values = document(Comparison(runs, ["a", "b"], 0, ["m"], {}, {}, settings, [], []))
    assert values["params"] == [{"key": "x", "values": {"a": "Infinity"}}]


def test_long_names_lose_their_middle() -> None:
    assert shortened("abcdefgh", 8) == "abcdefgh"
    assert shortened("abcdefgh", 7) == "abc…fgh"
    assert shortened("abcdefgh", 6) == "ab…fgh"
    assert shortened("abcdefgh", 2) == "…h"
