import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from snapped_factory import chosen, snap_results
from torch.nn import functional as F

from roiseg.errors import CheckpointError
from roiseg.geometry import Floats
from roiseg.snapper.calibration import (
    PEAK_MARGIN,
    RIDGE,
    Calibration,
    cross_fitted,
    fit,
    fit_results,
    load_calibration,
    logit,
    save_calibration,
    within_tolerance,
)
from roiseg.snapper.metrics import snap_figures
from roiseg.snapper.params import ConfidenceParams
from roiseg.snapper.reliability import Judged, calibration_error, confidence_figures, error_by_confidence_rows, reliability_rows

TOLERANCE = 0.01
PARAMS = ConfidenceParams(tolerance=TOLERANCE, review_below=0.5, keep_below=0.4)


def drawn(count: int, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.05, 1.0, count), rng.uniform(0.0, 1.0, count)


def test_it_finds_the_probability_that_edges_were_drawn_with() -> None:
    peak, entropy = drawn(100_000)
    true = Calibration((0.7, -2.0, 0.4))
    right = np.random.default_rng(1).random(len(peak)) < true.apply(peak, entropy)
    found = fit(peak, entropy, right)
    assert found.weights == pytest.approx(true.weights, abs=0.06)
    assert np.abs(found.apply(peak, entropy) - true.apply(peak, entropy)).max() < 0.02


def test_fit_matches_reference() -> None:
    """L-BFGS on the same objective, which stands the features on their mean and spread."""
    peak, entropy = drawn(500)
    right = np.random.default_rng(2).random(500) < peak
    raw = np.stack([logit(peak), entropy], axis=1)
    features, labels = torch.from_numpy((raw - raw.mean(axis=0)) / raw.std(axis=0)), torch.from_numpy(right.astype(np.float64))
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def scores() -> torch.Tensor:
        return features @ weights[:2] + weights[2]

    def step() -> float:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(scores(), labels) + RIDGE / 2 * (weights[:2] ** 2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(step)  # type: ignore[no-untyped-call]
    assert fit(peak, entropy, right).apply(peak, entropy) == pytest.approx(scores().sigmoid().detach().numpy(), abs=1e-6)


@pytest.mark.parametrize("value", [True, False])
def test_edges_that_are_all_the_same_have_one_confidence(value: bool) -> None:
    peak, entropy = drawn(8)
    found = fit(peak, entropy, np.full(8, value))
    assert found.apply(peak, entropy) == pytest.approx(9 / 10 if value else 1 / 10)
    assert fit(peak[:0], entropy[:0], np.zeros(0, dtype=bool)).apply(peak, entropy) == pytest.approx(0.5)


def test_edges_that_can_be_told_apart_without_a_fault_have_finite_weights() -> None:
    peak, entropy = drawn(200)
    found = fit(peak, entropy, peak > 0.5)
    assert np.isfinite(found.weights).all()
    confidence = found.apply(peak, entropy)
    assert confidence[peak > 0.55].min() > 0.85
    assert confidence[peak < 0.45].max() < 0.15


@pytest.mark.parametrize("constant", ["peak", "entropy", "both"])
def test_a_number_that_never_changes_has_no_weight(constant: str) -> None:
    peak, entropy = drawn(300)
    right = np.random.default_rng(4).random(300) < 0.5 * peak + 0.25
    if constant != "entropy":
        peak = np.full(300, 1.0)
    if constant != "peak":
        entropy = np.full(300, 0.0)
    found = fit(peak, entropy, right)
    assert np.isfinite(found.weights).all()
    assert found.apply(peak, entropy).mean() == pytest.approx(right.mean(), abs=1e-6)
    assert (found.weights[0] == 0) == (constant != "entropy")
    assert (found.weights[1] == 0) == (constant != "peak")


def test_peaks_of_zero_and_one_are_cut() -> None:
    assert logit(np.array([0.0, 1.0])) == pytest.approx([-math.log(1 / PEAK_MARGIN - 1), math.log(1 / PEAK_MARGIN - 1)])
    confidence = Calibration((100.0, -100.0, 0.0)).apply(np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    assert confidence == pytest.approx([0, 1])


def test_within_tolerance_is_a_share_of_the_windows_side() -> None:
    """100 x 50 window: .01 of it is one pixel across and half a pixel down; the limit is within."""
    box = np.array([[10.0, 10.0, 90.0, 40.0]])
    results = replace(
        snap_results(1), truth=box, windows=np.array([[0.0, 0.0, 100.0, 50.0]]), snapped=box + np.array([[1.0, 1.0, -1.01, -0.5]])
    )
    assert within_tolerance(results, 0.01).tolist() == [[True, False, False, True]]


def test_no_image_is_judged_by_itself() -> None:
    """Other answers in every second image change nothing in what is said of these images but of the others."""
    results = snap_results(200)
    before = cross_fitted(results, TOLERANCE)
    even = results.rows % 2 == 0
    worse = replace(results, snapped=np.where(even[:, None], results.snapped + 50, results.snapped))
    after = cross_fitted(worse, TOLERANCE)
    assert (after[even] == before[even]).all()
    assert (after[~even] != before[~even]).all()


def test_a_single_image_has_no_other_to_learn_from() -> None:
    assert (cross_fitted(snap_results(4, per_image=4), TOLERANCE) == 0.5).all()


def test_calibration_lowers_the_calibration_error() -> None:
    results = snap_results(4000)
    figures = confidence_figures(results, Judged.of(results, TOLERANCE), PARAMS)
    assert figures["ece"] < 0.05 < figures["ece_peak"]
    assert figures["brier"] < figures["brier_peak"]


def test_calibration_error_written_out() -> None:
    """Bins (.1, .2] and (.9, 1]: |.2 + .15 - 0| and |1 + .95 - 1| over four edges."""
    said, right = np.array([0.2, 0.15, 1.0, 0.95]), np.array([False, False, True, False])
    assert calibration_error(said, right) == pytest.approx((0.35 + 0.95) / 4)
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0


def judged(confidence: list[float], error: list[float]) -> Judged:
    said, off = np.array([confidence]), np.array([error])
    return Judged(said / 2, said, off <= 1, off, off * 2)


def test_reliability_rows_written_out() -> None:
    edges = judged([0.95, 0.91, 0.3, 0.3], [0.5, 2.5, 4.0, 8.0])
    sure, unsure = reversed(reliability_rows(edges.confidence, edges))
    assert sure.pop("confidence") == pytest.approx(0.93)
    assert sure == {"low": 0.9, "high": 1.0, "share": 0.5, "edge_px_mean": 1.5, "edges": 2}
    assert unsure == {"low": 0.2, "high": 0.3, "confidence": 0.3, "share": 0.0, "edge_px_mean": 6.0, "edges": 2}
    assert [row["low"] for row in reliability_rows(edges.peak, edges)] == [0.1, 0.4]


def test_error_by_confidence_written_out() -> None:
    rows = error_by_confidence_rows(judged([0.9, 0.5, 0.5, 0.1], [0.0, 2.0, 4.0, 10.0]))
    assert [row["kept"] for row in rows] == [number / 10 for number in range(1, 11)]
    by_kept = {row["kept"]: row for row in rows}
    assert by_kept[0.1]["edges"] == 1
    assert by_kept[0.1]["edge_px_mean"] == 0
    # Of two as sure as each other, the worse one is there first.
    errors = {"edge_px_mean": 2.0, "edge_crop_px_mean": 4.0, "share_within_3px": 0.5}
    assert by_kept[0.5] == {"kept": 0.5, "edges": 2, "confidence": 0.5, **errors, "right": 0.5}
    assert by_kept[1.0]["edge_px_mean"] == 4


def test_the_surest_edges_are_the_best() -> None:
    results = snap_results(2000)
    errors = [float(str(row["edge_px_mean"])) for row in error_by_confidence_rows(Judged.of(results, TOLERANCE))]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1] / 2


def test_confidence_figures_tell_what_is_reviewed_and_what_is_left_alone() -> None:
    results = snap_results(400)
    found = Judged.of(results, TOLERANCE)
    figures = confidence_figures(results, found, PARAMS)
    review = found.confidence < 0.5
    assert figures["review_share"] == review.mean()
    assert figures["review_right"] == found.right[review].mean() < figures["sure_right"] == found.right[~review].mean()
    assert figures["sure_edge_px_mean"] < figures["review_edge_px_mean"]
    kept = found.confidence < 0.4
    assert figures["kept_share"] == kept.mean() > 0
    used = snap_figures(replace(results, snapped=np.where(kept, results.rough, results.snapped)))
    assert figures["used_mean_iou"] == used["mean_iou"]
    assert figures["used_edge_share_within_3px"] == used["edge_share_within_3px"]


def test_without_edges_to_review_they_have_no_figures() -> None:
    results = snap_results(40)
    figures = confidence_figures(
        results, Judged.of(results, TOLERANCE), ConfidenceParams(tolerance=0.01, review_below=0, keep_below=0)
    )
    assert figures["review_share"] == figures["kept_share"] == 0
    assert "review_right" not in figures
    assert figures["used_mean_iou"] == snap_figures(results)["mean_iou"]


def test_nothing_comes_of_nothing() -> None:
    empty = chosen(snap_results(3), np.zeros(0, dtype=np.int64))
    found = Judged.of(empty, TOLERANCE)
    assert reliability_rows(found.peak, found) == error_by_confidence_rows(found) == []
    assert confidence_figures(empty, found, PARAMS) == {}


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    calibration = fit_results(snap_results(500), TOLERANCE)
    save_calibration(tmp_path / "calibration.json", calibration, TOLERANCE)
    assert load_calibration(tmp_path / "calibration.json") == (calibration, TOLERANCE)
    assert list(json.loads((tmp_path / "calibration.json").read_text())) == ["logit_peak", "entropy", "bias", "tolerance"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"no calibration of confidences there; run `dvc repro snapper_evaluate`"),
        ("{", r"not the JSON of a calibration \(Expecting property name"),
        ('{"logit_peak": 1}', r"holds \{'logit_peak': 1\}, expected finite numbers logit_peak, entropy, bias, tolerance; run"),
        ("[1, 2, 3, 4]", r"holds \[1, 2, 3, 4\], expected finite numbers"),
        ('{"logit_peak": 1, "entropy": NaN, "bias": 0, "tolerance": 1}', r"expected finite numbers"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "calibration.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CheckpointError, match=said):
        load_calibration(path)
