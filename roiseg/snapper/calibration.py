"""How sure an edge is: the probability that it lies within a tolerance of the truth. NumPy alone, for use beside an exported file.

Platt's scaling ("Probabilistic outputs for support vector machines", 1999) of two numbers of an edge's distribution: the logit of
its peak and its entropy, by one logistic regression for all four edges. What is kept for use is fitted on all validation boxes;
what is reported is cross-fitted: the images fall into two folds, and each is judged by the fit of the other.

Symbols: N boxes; any shape (...) where edges are meant.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roiseg.classes import Bools
from roiseg.errors import CheckpointError
from roiseg.files import write_json
from roiseg.geometry import Floats
from roiseg.snapper.results import SnapResults

PEAK_MARGIN = 1e-6
"""Peaks are cut to [this, 1 - this] before their logit is taken."""

RIDGE = 1e-4
"""Weight of half the squared weights (the bias has none) beside the mean log loss: keeps them finite where the edges can be told
apart without a fault."""

NEWTON_STEPS = 50
CONVERGED = 1e-10
"""Largest part of the gradient at which the fit is done."""

HALVINGS = 30

STILL = 1e-9
"""A standard deviation below which a number is the same for all edges, and tells nothing."""

DIGITS = 9
"""Decimals of the weights, so that the last bits of a library's sums decide nothing."""

NAMES = ("logit_peak", "entropy", "bias")


@dataclass(frozen=True)
class Calibration:
    """From peak and entropy to a probability.

    Attributes:
        weights: of the peak's logit, of the entropy, and the bias.
    """

    weights: tuple[float, float, float]

    def apply(self, peak: Floats, entropy: Floats) -> Floats:
        """Confidences (...) in [0, 1] of edges of given peak (...) and entropy (...), see `EdgeDecision`."""
        peak_weight, entropy_weight, bias = self.weights
        return sigmoid(peak_weight * logit(peak) + entropy_weight * entropy + bias)


def logit(probability: Floats) -> Floats:
    """Log odds (...) of probabilities (...), cut by `PEAK_MARGIN`."""
    cut = np.clip(probability, PEAK_MARGIN, 1 - PEAK_MARGIN)
    return np.asarray(np.log(cut) - np.log1p(-cut))


def sigmoid(scores: Floats) -> Floats:
    """Probabilities (...) of log odds (...), without overflow."""
    shrunk = np.exp(-np.abs(scores))
    return np.asarray(np.where(scores >= 0, 1.0, shrunk) / (1 + shrunk))


def within_tolerance(results: SnapResults, tolerance: float) -> Bools:
    """Which edges (N, 4) lie at most `tolerance` of their window's side from the truth, wherever that is."""
    sides = np.tile(results.windows[:, 2:] - results.windows[:, :2], 2)
    return np.asarray((np.abs(results.snapped - results.truth) / sides).round(DIGITS) <= tolerance)


def fit(peak: Floats, entropy: Floats, right: Bools) -> Calibration:
    """The regression of `right` on peak and entropy, by Newton's steps.

    Where all edges are right, or none is, or there are none, nothing can be told apart: the confidence is then the same for every
    edge, (right + 1) / (all + 2), Laplace's rule of succession.

    Args:
        peak: (...).
        entropy: (...).
        right: (...) whether the edge is within the tolerance.
    """
    count, found = right.size, int(np.count_nonzero(right))
    if found in (0, count):
        share = (found + 1) / (count + 2)
        return _rounded(np.array([0.0, 0.0, np.log(share / (1 - share))]))
    raw = np.stack([logit(peak).ravel(), entropy.ravel()], axis=1)
    middle, spread = raw.mean(axis=0), raw.std(axis=0)
    scale = np.where(spread > STILL, spread, 1.0)
    features = np.concatenate([(raw - middle) / scale, np.ones((count, 1))], axis=1)
    solved = _newton(features, right.ravel().astype(np.float64))
    weights = solved[:2] / scale
    return _rounded(np.append(weights, solved[2] - weights @ middle))


def _newton(features: Floats, right: Floats) -> Floats:
    """Weights (F,) that minimise the mean log loss of features (M, F) against right (M,), and the ridge; the last is the bias."""
    ridge = np.full(features.shape[1], RIDGE)
    ridge[-1] = 0.0
    weights = np.zeros(features.shape[1])

    def loss(candidate: Floats) -> float:
        scores = features @ candidate
        return float(np.mean(np.logaddexp(0, scores) - right * scores) + (ridge * candidate**2).sum() / 2)

    for _ in range(NEWTON_STEPS):
        probability = sigmoid(features @ weights)
        gradient = features.T @ (probability - right) / len(right) + ridge * weights
        if np.abs(gradient).max() < CONVERGED:
            break
        curvature = (features * (probability * (1 - probability))[:, None]).T @ features / len(right) + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        now, share = loss(weights), 1.0
        for _ in range(HALVINGS):  # far from the end a whole step can go too far
            if loss(weights - share * step) <= now:
                break
            share /= 2
        weights = weights - share * step
    return weights


def _rounded(weights: Floats) -> Calibration:
    peak_weight, entropy_weight, bias = (round(float(item), DIGITS) for item in weights)
    return Calibration((peak_weight, entropy_weight, bias))


def fit_results(results: SnapResults, tolerance: float) -> Calibration:
    """The fit on all boxes, for use."""
    return fit(results.peak, results.entropy, within_tolerance(results, tolerance))


def cross_fitted(results: SnapResults, tolerance: float) -> Floats:
    """Confidences (N, 4), those of an image by a fit on other images: every second one.

    With a single image there are no others, and every edge is told .5.
    """
    right = within_tolerance(results, tolerance)
    fold = np.unique(results.rows, return_inverse=True)[1] % 2
    found = np.zeros(right.shape)
    for number in (0, 1):
        judged = fold == number
        learnt = fit(results.peak[~judged], results.entropy[~judged], right[~judged])
        found[judged] = learnt.apply(results.peak[judged], results.entropy[judged])
    return found


def save_calibration(path: Path, calibration: Calibration, tolerance: float) -> None:
    """Write what use needs: the three weights by name, and the tolerance that they were fitted for."""
    weights = dict(zip(NAMES, calibration.weights, strict=True))
    write_json(path, {**weights, "tolerance": tolerance})


def load_calibration(path: Path) -> tuple[Calibration, float]:
    """What `save_calibration` wrote: the calibration and its tolerance.

    Raises:
        CheckpointError: it isn't there, or is something else.
    """
    remedy = "run `dvc repro snapper_evaluate`, which writes it"
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no calibration of confidences there; {remedy}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not the JSON of a calibration ({error}); {remedy}") from error
    wanted = (*NAMES, "tolerance")
    given = [found.get(name) for name in wanted] if isinstance(found, dict) else []
    numbers = [float(item) for item in given if isinstance(item, int | float) and np.isfinite(item)]
    if len(numbers) < len(wanted):
        raise CheckpointError(f"{path} holds {str(found)[:80]}, expected finite numbers {', '.join(wanted)}; {remedy}")
    peak_weight, entropy_weight, bias, tolerance = numbers
    return Calibration((peak_weight, entropy_weight, bias)), tolerance
