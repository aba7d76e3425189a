"""Tests of roiseg.evaluate.metrics: hand-made masks, slow loops, and what counts as nothing."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from roiseg.evaluate.metrics import MaskMetrics, ious, roi_confusions, with_baseline

Labels = NDArray[np.uint8]


def masks(*rows: str) -> Labels:
    """One ROI a text, such as '001/122'."""
    return np.array([[[int(cell) for cell in line] for line in text.split("/")] for text in rows], dtype=np.uint8)


def figures_of(predicted: Labels, labels: Labels) -> dict[str, float]:
    metrics = MaskMetrics()
    metrics.add(predicted, labels)
    return metrics.figures()


# --- an independent, slow implementation ---


def slow_iou(predicted: Labels, labels: Labels, label: int) -> float | None:
    shared = union = 0
    for guess, truth in zip(predicted.ravel().tolist(), labels.ravel().tolist(), strict=True):
        shared += guess == truth == label
        union += label in (guess, truth)
    return shared / union if union else None


def mean(values: list[float | None]) -> float:
    kept = [value for value in values if value is not None]
    return sum(kept) / len(kept) if kept else 0.0


def slow_figures(predicted: Labels, labels: Labels) -> dict[str, float]:
    pairs = list(zip(predicted, labels, strict=True))
    target, other = ([slow_iou(guess, truth, label) for guess, truth in pairs] for label in (1, 2))
    whole = [slow_iou(predicted, labels, label) or 0.0 for label in (0, 1, 2)]
    cells = list(zip(predicted.ravel().tolist(), labels.ravel().tolist(), strict=True))
    hits = sum(guess == truth == 1 for guess, truth in cells)
    return {
        "miou_fg_roi": (mean(target) + mean(other)) / 2,
        "iou_target_roi": mean(target),
        "iou_nontarget_roi": mean(other),
        "miou_fg_pooled": mean(target + other),
        "miou_fg_dataset": (whole[1] + whole[2]) / 2,
        "iou_bg": whole[0],
        "miou_3class": sum(whole) / 3,
        "pixel_accuracy": sum(guess == truth for guess, truth in cells) / len(cells),
        "target_precision": hits / max(sum(guess == 1 for guess, _ in cells), 1),
        "target_recall": hits / max(sum(truth == 1 for _, truth in cells), 1),
        "detection_rate_50": sum((value or 0) >= 0.5 for value in target) / len(pairs),
        "detection_rate_70": sum((value or 0) >= 0.7 for value in target) / len(pairs),
    }


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000), rois=st.integers(1, 6), height=st.integers(1, 4), width=st.integers(1, 5), parts=st.integers(1, 3)
)
def test_figures_are_the_slow_ones(seed: int, rois: int, height: int, width: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, rng.integers(1, 4), (rois, height, width)).astype(np.uint8)
    predicted = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(0, 3, labels.shape)).astype(np.uint8)
    metrics = MaskMetrics()
    for part in np.array_split(np.arange(rois), parts):
        metrics.add(predicted[part], labels[part])
    assert metrics.figures() == pytest.approx(slow_figures(predicted, labels))


# --- written out ---


def test_confusions_have_labels_in_rows() -> None:
    found = roi_confusions(masks("0012", "2222"), masks("0111", "0012"))
    assert found.tolist() == [[[1, 0, 0], [1, 1, 1], [0, 0, 0]], [[0, 0, 2], [0, 0, 1], [0, 0, 1]]]


def test_ious_of_nothing_are_nan() -> None:
    found = ious(roi_confusions(masks("0011"), masks("0111")))
    np.testing.assert_allclose(found, [[0.5, 2 / 3, np.nan]])


def test_empty_unions_are_skipped_and_false_regions_count_nought() -> None:
    labels = masks("0110", "0110", "0122")
    none_there = figures_of(masks("0110", "0110", "0122"), labels)
    assert (none_there["iou_target_roi"], none_there["iou_nontarget_roi"], none_there["miou_fg_roi"]) == (1, 1, 1)
    false_region = figures_of(masks("0112", "0110", "0122"), labels)
    assert false_region["iou_target_roi"] == 1
    assert false_region["iou_nontarget_roi"] == 0.5, "0 and 1; the ROI with nothing doesn't count"
    missed = figures_of(masks("0110", "0110", "0100"), labels)
    assert missed["iou_nontarget_roi"] == 0


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
    assert found["miou_fg_dataset"] == pytest.approx((4 / 6 + 0) / 2)
    assert found["iou_bg"] == pytest.approx(10 / 12)
    assert found["miou_3class"] == pytest.approx((10 / 12 + 4 / 6 + 0) / 3)
    assert found["pixel_accuracy"] == pytest.approx(14 / 16)
    assert (found["target_precision"], found["target_recall"]) == (4 / 5, 4 / 5)
    assert (found["detection_rate_50"], found["detection_rate_70"]) == (0.5, 0.5)


def test_detection_rates_include_their_threshold() -> None:
    found = figures_of(masks("1000000000", "1111111000"), masks("1100000000", "1111111111"))
    assert (found["detection_rate_50"], found["detection_rate_70"]) == (1.0, 0.5)


def test_all_background_scores_nothing_in_front() -> None:
    found = figures_of(masks("0000", "0000"), masks("0112", "0110"))
    assert found["miou_fg_roi"] == found["miou_fg_pooled"] == found["miou_fg_dataset"] == 0


def test_nothing_counted() -> None:
    metrics = MaskMetrics()
    assert set(metrics.figures().values()) == {0.0}
    metrics.add(np.zeros((0, 3, 4), dtype=np.uint8), np.zeros((0, 3, 4), dtype=np.uint8))
    assert metrics.confusions.shape == (0, 3, 3)
    assert set(metrics.figures().values()) == {0.0}


def test_order_of_the_rois_makes_no_difference() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = (rng.integers(0, 3, (7, 3, 5)).astype(np.uint8) for _ in range(2))
    assert figures_of(predicted[::-1], labels[::-1]) == pytest.approx(figures_of(predicted, labels))
    assert figures_of(np.ascontiguousarray(predicted.swapaxes(1, 2)), np.ascontiguousarray(labels.swapaxes(1, 2))) == pytest.approx(
        figures_of(predicted, labels)
    )


def test_never_class_two_stands_beside() -> None:
    labels = masks("1122", "1100")
    metrics, without_two = MaskMetrics(), MaskMetrics()
    metrics.add(masks("1122", "1102"), labels)
    without_two.add(masks("1111", "1100"), labels)
    found: dict[str, Any] = with_baseline(metrics, without_two)
    assert found["never_class_2_iou_target_roi"] == 0.75
    assert found["never_class_2_miou_fg_roi"] == 0.375
    assert found["never_class_2_miou_fg_pooled"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["iou_target_roi"] == 1
    assert found["iou_nontarget_roi"] == 0.5
