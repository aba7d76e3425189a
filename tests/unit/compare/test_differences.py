"""Tests of roiseg.compare.differences against numbers worked out by hand."""

import dataclasses

import numpy as np
import pytest
from compare_factory import overlapping, run_of

from roiseg.compare.differences import Change, by_stratum, changes, independent
from roiseg.compare.runs import Figure


def test_independent_intervals_by_hand() -> None:
    """Half widths 0.03 below the second and 0.04 above the first make 0.05; 0.12 and 0.05 make 0.13."""
    found = independent("iou", Figure(0.5, 0.45, 0.54), Figure(0.7, 0.67, 0.82))
    assert (found.metric, found.paired) == ("iou", False)
    assert [found.value, found.low, found.high] == pytest.approx([0.2, 0.2 - 0.05, 0.2 + 0.13])
    back = independent("iou", Figure(0.7, 0.67, 0.82), Figure(0.5, 0.45, 0.54))
    assert back.low is not None
    assert found.high is not None
    assert back.low == pytest.approx(-found.high)


@pytest.mark.parametrize("known", [Figure(0.5), Figure(0.5, 0.4, 0.6)])
def test_without_both_intervals_there_is_none(known: Figure) -> None:
    found = independent("iou", known, Figure(0.7))
    assert found == Change("iou", found.value, None, None, paired=False)
    assert found.value == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("low", "high", "clear"), [(0.01, 0.2, True), (-0.2, -0.01, True), (-0.01, 0.2, False), (0.0, 0.2, False), (None, None, False)]
)
def test_clear_is_an_interval_that_excludes_zero(low: float | None, high: float | None, clear: bool) -> None:
    assert Change("iou", 0.1, low, high, paired=True).clear is clear


def test_rows_of_the_same_images_are_compared_in_pairs() -> None:
    """Every image gains a quarter, so that every draw of images does: the interval has no width, though the runs' own do."""
    first, second = overlapping(0, 1, 2, 3), overlapping(1, 2, 3, 4)
    base, run = (run_of(name, {"other": 0.1}, table=table) for name, table in (("a", first), ("b", second)))
    iou, other = changes(base, run, ["iou_target_roi", "other", "unmeasured"], (first, second))
    assert [iou.value, iou.low, iou.high] == pytest.approx([0.25, 0.25, 0.25])
    assert iou.paired
    assert iou.clear
    assert other == Change("other", 0.0, None, None, paired=False), "it doesn't follow from rows"


def test_rows_of_other_images_are_independent() -> None:
    first, second = overlapping(0, 1, 2, 3, image_ids=[1, 2, 3, 4]), overlapping(1, 2, 3, 4, image_ids=[5, 6, 7, 8])
    base, run = (run_of(name, {}, table=table) for name, table in (("a", first), ("b", second)))
    (iou,) = changes(base, run, ["iou_target_roi"], (first, second))
    assert not iou.paired
    assert iou.value == pytest.approx(0.25)
    assert iou.low is not None
    assert iou.low < 0.2, "which images were drawn matters"


def test_strata_by_hand_the_largest_first() -> None:
    """Small people lose a half, large ones gain a quarter; the two on the border gain and lose alike."""
    first, second = overlapping(2, 2, 2, 2), overlapping(0, 0, 3, 3)
    areas, truncated = np.array([100.0, 100.0, 20_000.0, 20_000.0]), np.array([True, False, True, False])
    first, second = (dataclasses.replace(table, areas=areas, truncated=truncated) for table in (first, second))
    found = by_stratum(first, second, ["gone", "iou_target_roi"])
    names = [(item.group, item.stratum, item.rois) for item in found]
    assert names[:2] == [("size", "small", 2), ("size", "large", 2)]
    assert set(names[2:]) == {("crowdedness", "none", 4), ("truncation", "whole", 2), ("truncation", "truncated", 2)}
    assert [item.change.value for item in found] == pytest.approx([-0.5, 0.25, -0.125, -0.125, -0.125])


def test_the_base_says_which_stratum_a_shared_roi_is_in() -> None:
    first, second = overlapping(2, 2), overlapping(4, 4)
    first = dataclasses.replace(first, areas=np.array([100.0, 100.0]))
    assert [item.stratum for item in by_stratum(first, second, ["iou_target_roi"]) if item.group == "size"] == ["small"]
    other = dataclasses.replace(second, annotation_ids=second.annotation_ids + 50)
    assert [item.stratum for item in by_stratum(first, other, ["iou_target_roi"]) if item.group == "size"] == [], "none in common"


def test_metrics_that_do_not_follow_from_rows_have_no_strata() -> None:
    table = overlapping(1, 2)
    assert by_stratum(table, table, ["val_loss"]) == []
