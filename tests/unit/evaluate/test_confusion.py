"""Tests of roiseg.evaluate.confusion: hand-made masks, slow loops, and what counts as nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_figures import slow_mask_figures
from table_factory import Labels, masks

from roiseg.evaluate.confusion import (
    SUMS,
    VALIDATED,
    MaskMetrics,
    confusion_figures,
    confusion_sums,
    defined,
    defined_mean,
    ious,
    roi_confusions,
    share,
)


def figures_of(predicted: Labels, labels: Labels) -> dict[str, float]:
    return defined(confusion_figures(confusion_sums(roi_confusions(predicted, labels)).sum(axis=0)))


def validated(predicted: Labels, labels: Labels) -> dict[str, float]:
    metrics = MaskMetrics()
    metrics.add(predicted, labels)
    return metrics.figures()


# --- an independent, slow implementation ---


@settings(max_examples=200)
@given(seed=st.integers(0, 10**9), rois=st.integers(0, 6), height=st.integers(1, 4), width=st.integers(1, 5))
def test_figures_are_the_slow_ones(seed: int, rois: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, rng.integers(1, 4), (rois, height, width)).astype(np.uint8)
    others = rng.integers(0, rng.integers(1, 4), labels.shape)
    predicted = np.where(rng.random(labels.shape) < 0.6, labels, others).astype(np.uint8)
    expected = slow_mask_figures(predicted, labels)
    found = figures_of(predicted, labels)
    assert found == pytest.approx(expected, abs=1e-9)
    if rois:
        assert validated(predicted, labels) == pytest.approx({name: expected.get(name, 0.0) for name in VALIDATED}, abs=1e-9)


def test_batches_make_no_difference() -> None:
    rng = np.random.default_rng(1)
    labels, predicted = (rng.integers(0, 3, (9, 3, 5)).astype(np.uint8) for _ in range(2))
    parts = [MaskMetrics() for _ in range(3)]
    for number, metrics in enumerate(parts):
        metrics.add(predicted[number * 3 : number * 3 + 1], labels[number * 3 : number * 3 + 1])
        metrics.add(predicted[number * 3 + 1 : number * 3 + 3], labels[number * 3 + 1 : number * 3 + 3])
    together = MaskMetrics.together(parts)
    np.testing.assert_array_equal(together.confusions, roi_confusions(predicted, labels))
    assert together.figures() == validated(predicted, labels)


def test_many_sets_at_once() -> None:
    """Sums of several sets give the figures of each."""
    rng = np.random.default_rng(2)
    labels, predicted = (rng.integers(0, 3, (8, 3, 5)).astype(np.uint8) for _ in range(2))
    sums = confusion_sums(roi_confusions(predicted, labels))
    found = confusion_figures(np.stack([sums[:3].sum(axis=0), sums[3:].sum(axis=0)]))
    for number, part in enumerate((slice(0, 3), slice(3, 8))):
        assert {name: values[number] for name, values in found.items()} == pytest.approx(figures_of(predicted[part], labels[part]))


# --- written out ---


def test_confusions_have_labels_in_rows() -> None:
    found = roi_confusions(masks("0012", "2222"), masks("0111", "0012"))
    assert found.tolist() == [[[1, 0, 0], [1, 1, 1], [0, 0, 0]], [[0, 0, 2], [0, 0, 1], [0, 0, 1]]]


def test_sums_by_hand() -> None:
    sums = confusion_sums(roi_confusions(masks("0011", "0000"), masks("0111", "0022")))
    found = dict(zip(SUMS, sums.T.tolist(), strict=True))
    assert found["confusion_10"] == [1, 0]
    assert found["confusion_20"] == [0, 2]
    assert found["iou_target"] == pytest.approx([2 / 3, 0])
    assert found["rois_target"] == [1, 0]
    assert (found["iou_nontarget"], found["rois_nontarget"]) == ([0, 0], [0, 1])
    assert (found["found_50"], found["found_70"]) == ([1, 0], [0, 0])


def test_ious_of_nothing_are_nan() -> None:
    found = ious(roi_confusions(masks("0011"), masks("0111")))
    np.testing.assert_allclose(found, [[0.5, 2 / 3, np.nan]])


def test_shares_and_means_of_nothing_are_nan() -> None:
    np.testing.assert_array_equal(share(np.array([1, 0, 3]), np.array([2, 0, 4])), [0.5, np.nan, 0.75])
    found = defined_mean([np.array([1.0, np.nan, np.nan]), np.array([0.0, 0.5, np.nan])])
    np.testing.assert_array_equal(found, [0.5, 0.5, np.nan])


def test_empty_unions_are_skipped_and_false_regions_count_nought() -> None:
    labels = masks("0110", "0110", "0122")
    none_there = figures_of(masks("0110", "0110", "0122"), labels)
    assert (none_there["iou_target_roi"], none_there["iou_nontarget_roi"], none_there["miou_fg_roi"]) == (1, 1, 1)
    false_region = figures_of(masks("0112", "0110", "0122"), labels)
    assert false_region["iou_target_roi"] == 1
    assert false_region["iou_nontarget_roi"] == 0.5, "0 and 1; the ROI with nothing doesn't count"
    missed = figures_of(masks("0110", "0110", "0100"), labels)
    assert missed["iou_nontarget_roi"] == 0


def test_a_class_that_is_nowhere_is_left_out() -> None:
    """The means of classes are then over the others, and a perfect answer has 1 everywhere."""
    labels = masks("0110", "0111")
    perfect = figures_of(labels, labels)
    assert not {name for name in perfect if "nontarget" in name}
    assert set(perfect.values()) == {1.0}
    assert {"miou_fg_roi", "miou_fg_pooled", "miou_fg_dataset", "miou_3class"} <= set(perfect)
    half = figures_of(masks("0100", "0111"), labels)
    assert half["miou_fg_roi"] == half["iou_target_roi"] == 0.75
    assert half["miou_fg_dataset"] == pytest.approx(4 / 5)


def test_a_person_who_is_outside_the_mask_isnt_missed() -> None:
    """Nothing annotated and nothing predicted: neither found nor lost. Something predicted: lost."""
    labels = masks("0000", "0110")
    assert figures_of(masks("0000", "0110"), labels)["detection_rate_50"] == 1
    assert figures_of(masks("1000", "0110"), labels)["detection_rate_50"] == 0.5


def test_pooled_and_roi_means_differ() -> None:
    """Four targets hit by half, and the only non-target missed."""
    labels = masks("1100", "1100", "1100", "1122")
    found = figures_of(masks("1000", "1000", "1000", "1000"), labels)
    assert found["iou_target_roi"] == 0.5
    assert found["miou_fg_roi"] == 0.25
    assert found["miou_fg_pooled"] == pytest.approx((4 * 0.5 + 0) / 5)


def test_dataset_figures_weigh_by_pixels() -> None:
    found = figures_of(masks("11110000", "00000001"), masks("11110000", "00000010"))
    assert found["iou_target_roi"] == 0.5
    assert found["miou_fg_dataset"] == pytest.approx(4 / 6)
    assert found["iou_bg"] == pytest.approx(10 / 12)
    assert found["miou_3class"] == pytest.approx((10 / 12 + 4 / 6) / 2)
    assert found["pixel_accuracy"] == pytest.approx(14 / 16)
    assert (found["precision_target"], found["recall_target"], found["f1_target"]) == (4 / 5, 4 / 5, 4 / 5)
    assert (found["detection_rate_50"], found["detection_rate_70"]) == (0.5, 0.5)


def test_precision_and_recall_of_each_class() -> None:
    found = figures_of(masks("001122"), masks("001212"))
    assert {name: found[name] for name in ("precision_bg", "recall_bg", "f1_bg")} == dict.fromkeys(
        ("precision_bg", "recall_bg", "f1_bg"), 1
    )
    uneven = figures_of(masks("111000"), masks("122000"))
    assert (uneven["precision_target"], uneven["recall_target"], uneven["f1_target"]) == (1 / 3, 1, 0.5)
    assert (uneven["recall_nontarget"], uneven["f1_nontarget"]) == (0, 0)
    assert "precision_nontarget" not in uneven, "none was predicted"


def test_detection_rates_include_their_threshold() -> None:
    found = figures_of(masks("1000000000", "1111111000"), masks("1100000000", "1111111111"))
    assert (found["detection_rate_50"], found["detection_rate_70"]) == (1.0, 0.5)


LABELS = masks("0012/0012", "0011/0111")
"""Of 16 cells, 7 are background, 7 target, 2 non-target."""


def test_a_perfect_answer() -> None:
    found = figures_of(LABELS, LABELS)
    assert set(found.values()) == {1.0}
    assert len(found) == 19


def test_all_background() -> None:
    found = figures_of(np.zeros_like(LABELS), LABELS)
    assert {
        name: found[name] for name in ("precision_bg", "recall_bg", "iou_bg", "pixel_accuracy", "miou_3class")
    } == pytest.approx({"precision_bg": 7 / 16, "recall_bg": 1, "iou_bg": 7 / 16, "pixel_accuracy": 7 / 16, "miou_3class": 7 / 48})
    front = (
        "miou_fg_roi",
        "iou_target_roi",
        "iou_nontarget_roi",
        "miou_fg_pooled",
        "miou_fg_dataset",
        "recall_target",
        "f1_target",
    )
    assert {found[name] for name in (*front, "detection_rate_50", "detection_rate_70")} == {0.0}
    assert not {"precision_target", "precision_nontarget"} & set(found)


def test_all_target() -> None:
    found = figures_of(np.ones_like(LABELS), LABELS)
    assert {
        name: found[name] for name in ("iou_target_roi", "iou_nontarget_roi", "miou_fg_roi", "miou_fg_pooled")
    } == pytest.approx(
        {"iou_target_roi": (2 / 8 + 5 / 8) / 2, "iou_nontarget_roi": 0, "miou_fg_roi": 7 / 32, "miou_fg_pooled": 7 / 24}
    )
    assert (found["precision_target"], found["recall_target"], found["f1_target"]) == (7 / 16, 1, 14 / 23)
    assert (found["miou_fg_dataset"], found["iou_bg"], found["detection_rate_50"]) == (7 / 32, 0, 0.5)


def test_swapped_classes() -> None:
    swapped = np.array([0, 2, 1], dtype=np.uint8)[LABELS]
    found = figures_of(swapped, LABELS)
    assert {found[name] for name in ("miou_fg_roi", "miou_fg_pooled", "miou_fg_dataset", "f1_target", "f1_nontarget")} == {0.0}
    assert (found["iou_bg"], found["pixel_accuracy"], found["miou_3class"]) == (1, 7 / 16, 1 / 3)


def test_shifted_masks() -> None:
    """A square of 2 x 2 in 4 x 5 cells, one column to the right: 2 cells shared of 6."""
    labels, predicted = np.zeros((2, 1, 4, 5), dtype=np.uint8)
    labels[0, 1:3, 1:3] = predicted[0, 1:3, 2:4] = 1
    found = figures_of(predicted, labels)
    assert (found["iou_target_roi"], found["precision_target"], found["recall_target"]) == (1 / 3, 0.5, 0.5)
    assert (found["iou_bg"], found["pixel_accuracy"]) == (14 / 18, 16 / 20)
    assert (found["detection_rate_50"], found["detection_rate_70"]) == (0, 0)


# --- nothing, and order ---


def test_nothing_counted() -> None:
    metrics = MaskMetrics()
    assert metrics.figures() == dict.fromkeys(VALIDATED, 0.0)
    metrics.add(np.zeros((0, 3, 4), dtype=np.uint8), np.zeros((0, 3, 4), dtype=np.uint8))
    assert metrics.confusions.shape == (0, 3, 3)
    assert metrics.figures() == dict.fromkeys(VALIDATED, 0.0)


def test_order_of_the_rois_makes_no_difference() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = (rng.integers(0, 3, (7, 3, 5)).astype(np.uint8) for _ in range(2))
    assert figures_of(predicted[::-1], labels[::-1]) == pytest.approx(figures_of(predicted, labels), abs=1e-12)
    turned = (np.ascontiguousarray(item.swapaxes(1, 2)) for item in (predicted, labels))
    assert figures_of(*turned) == pytest.approx(figures_of(predicted, labels), abs=1e-12)
