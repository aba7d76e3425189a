"""Tests of roiseg.evaluate.metrics: all figures of a table against loops over its masks, and their breakdown."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from slow_figures import mean, quotient, slow_boundary, slow_mask_figures
from table_factory import Labels, masks, random_table, table_of

from roiseg.evaluate.boundary import crop_boundaries
from roiseg.evaluate.confusion import roi_confusions
from roiseg.evaluate.metrics import BROKEN_DOWN, SUMS, breakdown, roi_figures, roi_sums
from roiseg.evaluate.strata import GROUPS, strata
from roiseg.evaluate.table import RoiTable

MASK_FIGURES = {
    *("miou_fg_roi", "iou_target_roi", "iou_nontarget_roi", "miou_fg_pooled", "miou_fg_dataset", "iou_bg", "miou_3class"),
    *("pixel_accuracy", "detection_rate_50", "detection_rate_70"),
    *(f"{what}_{name}" for what in ("precision", "recall", "f1") for name in ("bg", "target", "nontarget")),
}
FIGURES = MASK_FIGURES | {"boundary_iou_crop", "boundary_iou_image", "separation_accuracy"}
COUNTS = {"images", "rois", "rois_target", "rois_nontarget", "separation_pixels"}


def drawn(rng: np.random.Generator, rois: int, hw: tuple[int, int]) -> tuple[Labels, Labels]:
    """Answers and labels, (R, h, w) each, of all classes or of few."""
    labels = rng.integers(0, rng.integers(1, 4), (rois, *hw)).astype(np.uint8)
    others = rng.integers(0, rng.integers(1, 4), labels.shape)
    return np.where(rng.random(labels.shape) < 0.7, labels, others).astype(np.uint8), labels


def table_from(rng: np.random.Generator, predicted: Labels, labels: Labels) -> RoiTable:
    confusions = roi_confusions(predicted, labels)
    table = random_table(rng, 3, len(labels))
    return replace(table, confusions=confusions, boundary_crop=crop_boundaries(predicted == 1, labels == 1))


def slow_figures(table: RoiTable, predicted: Labels, labels: Labels) -> dict[str, float]:
    crop = [slow_boundary(*pair) for pair in zip(predicted == 1, labels == 1, strict=True)]

    def of_rois(pairs: Any) -> float | None:  # noqa: ANN401 - an array or a list
        return mean([quotient(int(shared), int(union)) for shared, union in pairs])

    targets, others = (
        [bool((guess == label).any() or (truth == label).any()) for guess, truth in zip(predicted, labels, strict=True)]
        for label in (1, 2)
    )
    right, pixels = (sum(int(row[place]) for row in table.separation) for place in (0, 1))
    found = {
        "boundary_iou_crop": of_rois(crop),
        "boundary_iou_image": of_rois(table.boundary_image),
        "separation_accuracy": quotient(right, pixels),
        "images": len(set(table.image_ids.tolist())),
        "rois": len(labels),
        "rois_target": sum(targets),
        "rois_nontarget": sum(others),
        "separation_pixels": pixels,
    }
    return slow_mask_figures(predicted, labels) | {name: value for name, value in found.items() if value is not None}


@settings(max_examples=200)
@given(seed=st.integers(0, 10**9), rois=st.integers(0, 5), height=st.integers(1, 6), width=st.integers(1, 8))
def test_figures_are_the_slow_ones(seed: int, rois: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, labels = drawn(rng, rois, (height, width))
    table = table_from(rng, predicted, labels)
    assert roi_figures(table) == pytest.approx(slow_figures(table, predicted, labels), abs=1e-9)


def test_names_of_all_figures() -> None:
    assert set(roi_figures(random_table(np.random.default_rng(0), 9, 50))) == FIGURES | COUNTS


def test_a_perfect_answer_has_1_everywhere() -> None:
    confusions = np.array([np.diag([5, 4, 3]), np.diag([2, 6, 0]), np.diag([9, 0, 1])])
    table = table_of(confusions)
    whole = np.array([[3, 3], [7, 7], [0, 0]])
    found = roi_figures(replace(table, boundary_crop=whole, boundary_image=whole, separation=whole))
    assert {name: found.pop(name) for name in COUNTS} == {
        "images": 3,
        "rois": 3,
        "rois_target": 2,
        "rois_nontarget": 2,
        "separation_pixels": 10,
    }
    assert found == dict.fromkeys(FIGURES, 1.0)


def test_means_over_rois_and_shares_of_pixels_by_hand() -> None:
    table = replace(
        table_of(np.ones((3, 3, 3), dtype=np.int64)),
        boundary_crop=np.array([[1, 2], [0, 5], [0, 0]]),
        boundary_image=np.array([[3, 4], [1, 1], [0, 8]]),
        separation=np.array([[1, 9], [0, 0], [5, 6]]),
    )
    found = roi_figures(table)
    assert found["boundary_iou_crop"] == 0.25, "the empty union is skipped"
    assert found["boundary_iou_image"] == pytest.approx((0.75 + 1 + 0) / 3)
    assert found["separation_accuracy"] == pytest.approx(6 / 15), "people weigh by their pixels"
    assert found["separation_pixels"] == 15


def test_figures_of_no_rois_are_left_out() -> None:
    assert roi_figures(RoiTable.together([])) == dict.fromkeys(COUNTS, 0)


def test_figures_of_one_roi() -> None:
    predicted, labels = masks("0110/0122"), masks("0111/0122")
    table = table_from(np.random.default_rng(1), predicted, labels)
    table = replace(table, separation=np.array([[0, 0]]), boundary_image=np.array([[0, 0]]))
    found = roi_figures(table)
    assert (found["iou_target_roi"], found["iou_nontarget_roi"], found["boundary_iou_crop"]) == (3 / 4, 1, 3 / 4)
    assert (found["images"], found["rois"]) == (1, 1)
    assert not {"separation_accuracy", "boundary_iou_image"} & set(found)


def test_order_of_rois_and_images_makes_no_difference() -> None:
    rng = np.random.default_rng(2)
    table = random_table(rng, 12, 60)
    expected = roi_figures(table)
    assert roi_figures(table.part(rng.permutation(60))) == pytest.approx(expected, abs=1e-12)
    parts = [table.part(table.image_ids == number) for number in rng.permutation(np.unique(table.image_ids))]
    assert roi_figures(RoiTable.together(parts)) == pytest.approx(expected, abs=1e-12)


def test_sums_are_named_column_by_column() -> None:
    table = replace(table_of(np.arange(9).reshape(1, 3, 3)), boundary_image=np.array([[3, 4]]), separation=np.array([[7, 8]]))
    found = dict(zip(SUMS, roi_sums(table)[0].tolist(), strict=True))
    assert (found["confusion_00"], found["confusion_12"], found["confusion_22"]) == (0, 5, 8)
    assert (found["boundary_crop"], found["rois_boundary_crop"]) == (0.5, 1)
    assert (found["boundary_image"], found["rois_boundary_image"]) == (0.75, 1)
    assert (found["separation_right"], found["separation_pixels"]) == (7, 8)


# --- breakdown ---


def test_breakdown_has_a_row_for_every_stratum() -> None:
    table = random_table(np.random.default_rng(3), 20, 200)
    rows = breakdown(table)
    assert [(row["group"], row["stratum"]) for row in rows] == [(group, name) for group, names in GROUPS.items() for name in names]
    assert {tuple(row) for row in rows} == {("group", "stratum", "rois", "images", *BROKEN_DOWN)}
    kinds: dict[str, NDArray[np.str_]] = strata(table)
    for row in rows:
        part = table.part(kinds[str(row["group"])] == row["stratum"])
        assert (row["rois"], row["images"]) == (len(part), len(np.unique(part.image_ids)))
        figures = roi_figures(part)
        assert {name: row[name] for name in BROKEN_DOWN} == {name: figures.get(name) for name in BROKEN_DOWN}


def test_breakdown_tells_where_it_hurts() -> None:
    confusions = np.array([[[5, 0, 0], [0, 5, 0], [0, 0, 0]], [[5, 0, 0], [0, 0, 0], [5, 0, 0]]])
    table = replace(table_of(confusions), areas=np.array([500.0, 20_000.0]), truncated=np.array([False, True]))
    rows = {row["stratum"]: row for row in breakdown(table)}
    assert (rows["small"]["iou_target_roi"], rows["small"]["f1_target"], rows["small"]["miou_fg_roi"]) == (1, 1, 1)
    assert (rows["large"]["iou_target_roi"], rows["large"]["iou_nontarget_roi"], rows["large"]["miou_fg_roi"]) == (None, 0, 0)
    assert rows["medium"] == {"group": "size", "stratum": "medium", "rois": 0, "images": 0} | dict.fromkeys(BROKEN_DOWN)
    assert (rows["none"]["rois"], rows["over_30"]["rois"], rows["truncated"]["rois"]) == (1, 1, 1)


def test_breakdown_of_no_rois() -> None:
    rows = breakdown(RoiTable.together([]))
    assert [row["rois"] for row in rows] == [0] * 9
