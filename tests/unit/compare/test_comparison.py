"""Tests of roiseg.compare.comparison: the base, the metrics, and what the reader is told about them."""

import pytest
from compare_factory import overlapping, run_of

from roiseg.compare.comparison import HEADLINE, compare
from roiseg.compare.runs import Run
from roiseg.errors import RunError

ALONE = "treat the runs as independent and come out too wide"


def two() -> list[Run]:
    return [run_of(name, {"miou_fg_roi": score, "val_loss": 1.0}) for name, score in (("main", 0.5), ("more", 0.6))]


def test_the_first_run_is_the_base_unless_another_is_named() -> None:
    assert compare(two(), None, [], pull=False).changes[1][0].value == pytest.approx(0.1)
    other = compare(two(), "more", [], pull=False)
    assert other.base == 1
    assert other.changes[0][0].value == pytest.approx(-0.1)
    assert list(other.changes) == [0]


def test_the_base_may_be_named_by_its_head() -> None:
    runs = [run_of("main", {"miou_fg_roi": 0.5}, head=head) for head in ("default", "wide")]
    assert [compare(runs, name, [], pull=False).base for name in ("wide", "main:wide", "default")] == [1, 1, 0]


def test_the_headline_that_is_there_or_what_is_asked_for() -> None:
    everything = dict.fromkeys(HEADLINE, 0.5) | {"val_loss": 1.0}
    runs = [run_of("a", everything), run_of("b", {"miou_fg_roi": 0.1})]
    assert compare(runs, None, [], pull=False).metrics == list(HEADLINE)
    assert compare(two(), None, [], pull=False).metrics == ["miou_fg_roi"]
    assert compare(two(), None, ["val_loss", "miou_fg_roi", "val_loss"], pull=False).metrics == ["val_loss", "miou_fg_roi"]


@pytest.mark.parametrize(
    ("base", "metrics", "message"),
    [
        ("mian", [], "--base 'mian': none of the runs; did you mean 'main'"),
        ("main", [], "--base 'main': stands for 2 runs, expected one of main:default, main:wide"),
        (None, ["miou_fg"], "--metric 'miou_fg': none of the runs has it; did you mean 'miou_fg_roi'"),
        (None, ["miou_fg_roi_low"], "--metric 'miou_fg_roi_low': none of the runs has it; did you mean 'miou_fg_roi'"),
    ],
)
def test_messages(base: str | None, metrics: list[str], message: str) -> None:
    runs = [run_of("main", {"miou_fg_roi": 0.5, "miou_fg_roi_low": 0.4}, head=head) for head in ("default", "wide")]
    with pytest.raises(RunError, match=message):
        compare([*runs, run_of("more", {"miou_fg_roi": 0.5})], base, metrics, pull=False)


def test_one_run_has_nothing_to_be_compared_with() -> None:
    with pytest.raises(
        RunError, match="run 'main' has one head, default, and nothing is there to compare it with; name another run"
    ):
        compare(two()[:1], None, [], pull=False)


def test_runs_without_a_leading_metric() -> None:
    runs = [run_of(name, {"val_loss": 1.0}) for name in ("a", "b")]
    with pytest.raises(
        RunError, match=r"none of the runs has one of miou_fg_roi, .*; name by --metric what to compare: known: val_loss"
    ):
        compare(runs, None, [], pull=False)


def test_tables_of_both_make_paired_intervals_and_no_note() -> None:
    runs = [run_of(name, {}, params={}, table=overlapping(*found)) for name, found in (("a", (1, 2)), ("b", (2, 3)))]
    result = compare(runs, None, ["iou_target_roi"], pull=False)
    assert result.changes[1][0].paired
    assert {item.group for item in result.strata[1]} == {"size", "crowdedness", "truncation"}
    assert result.notes == []


def test_what_is_missing_is_said_once_for_all_runs() -> None:
    table = overlapping(1, 2)
    runs = [run_of("a", {}, params={}, table=table), *(run_of(name, {"miou_fg_roi": 0.5, "iou_target_roi": 0.5}) for name in "bc")]
    result = compare(runs, None, [], pull=False)
    assert result.notes == [
        f"b, c: intervals of differences {ALONE}: data/predictions/default.parquet isn't kept",
        "b, c: params aren't known, so that neither settings nor features of it are told",
    ]
    assert not result.strata
    assert compare([runs[1], runs[0]], None, [], pull=False).notes[0] == (
        f"b (the base): all intervals of differences {ALONE}: data/predictions/default.parquet isn't kept"
    )


def test_other_images_are_told_from_tables_and_from_counts() -> None:
    tables = {"a": overlapping(1, 2, image_ids=[1, 2]), "b": overlapping(1, 2, image_ids=[1, 3])}
    runs = [run_of(name, {}, params={}, table=table) for name, table in tables.items()]
    note = f"b: measured on other images than the base, so that intervals of differences {ALONE}"
    assert compare(runs, None, [], pull=False).notes == [note]
    counted = [run_of(name, {"miou_fg_roi": 0.5, "images": 4, "rois": rois}, params={}) for name, rois in (("a", 4), ("b", 1200))]
    assert compare(counted, None, [], pull=False).notes[1] == "b: measured on 1,200 rois, the base on 4"
