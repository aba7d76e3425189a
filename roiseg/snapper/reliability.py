"""Whether confidences can be trusted, and what they are good for: how errors fall where the unsure edges are left out.

Expected calibration error of Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), equation 3: bins of equal width,
each open below and closed above.

Symbols: N boxes; E = 4 N edges.
"""

import math
from dataclasses import dataclass

import numpy as np

from roiseg.classes import Bools
from roiseg.geometry import Floats
from roiseg.snapper.calibration import cross_fitted, within_tolerance
from roiseg.snapper.metrics import LEAD, box_figures, exact_mean, measure, within
from roiseg.snapper.params import ConfidenceParams
from roiseg.snapper.policy import Policy
from roiseg.snapper.results import SnapResults

BINS = 10
KEPT = tuple(number / 10 for number in range(1, 11))
"""Shares of the edges, surest first, that the error is told of."""

Row = dict[str, object]


@dataclass(frozen=True)
class Judged:
    """Edges with what is said of them, all (N, 4).

    Attributes:
        peak: the model's own word, see `EdgeDecision`.
        confidence: cross-fitted.
        right: whether within the tolerance.
        error_px: distance to the truth, pixels of the image.
        error_crop_px: the same, pixels of the window at 224 x 224: what confidences are about, for large things have large errors.
    """

    peak: Floats
    confidence: Floats
    right: Bools
    error_px: Floats
    error_crop_px: Floats

    @classmethod
    def of(cls, results: SnapResults, tolerance: float) -> "Judged":
        """All edges of results."""
        confidence, right = cross_fitted(results, tolerance), within_tolerance(results, tolerance)
        found = measure(results, results.snapped)
        return cls(results.peak, confidence, right, found.edges_px, found.edges_crop_px)


def _bins(said: Floats) -> list[Bools]:
    """Which edges (E,) are in each bin."""
    numbers = np.clip(np.ceil(said * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return [numbers == number for number in range(BINS)]


def calibration_error(said: Floats, right: Bools) -> float:
    """Mean distance of what is said (...) from the share that is right (...), over bins by their edges; at least one edge."""
    flat, so = said.ravel(), right.ravel()
    apart = [abs(math.fsum(flat[chosen].tolist()) - int(so[chosen].sum())) for chosen in _bins(flat) if chosen.any()]
    return math.fsum(apart) / flat.size


def reliability_rows(said: Floats, judged: Judged) -> list[Row]:
    """A row for each bin that isn't empty.

    Args:
        said: (N, 4) what is taken as the probability to be right: the bare peak, or the confidence.
        judged: the edges.

    Returns:
        `low` and `high` of the bin, mean `confidence`, `share` within the tolerance, mean error `edge_px_mean`, number of `edges`.
    """
    rows: list[Row] = []
    flat, right, error = said.ravel(), judged.right.ravel(), judged.error_px.ravel()
    for number, chosen in enumerate(_bins(flat)):
        if chosen.any():
            rows.append(
                {
                    "low": number / BINS,
                    "high": (number + 1) / BINS,
                    "confidence": exact_mean(flat[chosen]),
                    "share": exact_mean(right[chosen]),
                    "edge_px_mean": exact_mean(error[chosen]),
                    "edges": int(chosen.sum()),
                }
            )
    return rows


def error_by_confidence_rows(judged: Judged) -> list[Row]:
    """What is left of the error where only the surest edges are kept; of edges as sure as each other the worst count first.

    Returns:
        For each share of `KEPT`: `kept`, the number of `edges` (at least one), the least `confidence` among them, mean errors
        `edge_px_mean` and `edge_crop_px_mean`, `share_within_3px`, and the share `right` within the tolerance. None where there
        are no edges.
    """
    said, error, right = judged.confidence.ravel(), judged.error_px.ravel(), judged.right.ravel()
    if not said.size:
        return []
    order = np.lexsort((-error, -said))  # of ties the worst come first, so that no order of the boxes makes it look better
    rows: list[Row] = []
    for kept in KEPT:
        chosen = order[: max(round(kept * said.size), 1)]
        rows.append(
            {
                "kept": kept,
                "edges": len(chosen),
                "confidence": float(said[chosen].min()),
                "edge_px_mean": exact_mean(error[chosen]),
                "edge_crop_px_mean": exact_mean(judged.error_crop_px.ravel()[chosen]),
                "share_within_3px": exact_mean(within(error[chosen], 3)),
                "right": exact_mean(right[chosen]),
            }
        )
    return rows


def confidence_figures(results: SnapResults, judged: Judged, params: ConfidenceParams) -> dict[str, float]:
    """Flat figures of confidences; none where there are no boxes.

    * `ece_peak`, `ece`: expected calibration error of the bare peak and of the cross-fitted confidence; `brier_peak`, `brier`: mean
      squared distance of the same to what is so.
    * `right`: share of the edges within the tolerance.
    * `review_share`: edges less sure than `review_below`; `review_right`, `sure_right`: shares within the tolerance of those and of
      the others, `review_edge_px_mean`, `review_edge_crop_px_mean`, `sure_edge_px_mean` and `sure_edge_crop_px_mean` their mean
      errors, where there are such edges.
    * `kept_share`: edges that use leaves where they were, being less sure than `keep_below` or crossing another; `used_mean_iou`,
      `used_edge_share_within_3px`: the boxes that are then given.
    """
    if not len(results):
        return {}
    found = {}
    for name, said in (("_peak", judged.peak), ("", judged.confidence)):
        found[f"ece{name}"] = calibration_error(said, judged.right)
        found[f"brier{name}"] = exact_mean((said - judged.right) ** 2)
    found["right"] = exact_mean(judged.right)
    review = judged.confidence < params.review_below
    found["review_share"] = exact_mean(review)
    for name, chosen in (("review", review), ("sure", ~review)):
        if chosen.any():
            found[f"{name}_right"] = exact_mean(judged.right[chosen])
            found[f"{name}_edge_px_mean"] = exact_mean(judged.error_px[chosen])
            found[f"{name}_edge_crop_px_mean"] = exact_mean(judged.error_crop_px[chosen])
    decided = Policy(params.keep_below, params.review_below).decide(results.rough, results.snapped, judged.confidence)
    used = box_figures(results, decided.boxes_image)
    names = (LEAD, "edge_share_within_3px")
    return found | {"kept_share": exact_mean(decided.kept)} | {f"used_{name}": used[name] for name in names}
