"""The monitor of dynamic weights: how much each weight of the loss moved over the epochs (spec 16.5)."""

from collections.abc import Mapping, Sequence
from enum import IntEnum

import numpy as np

PREFIX = "weight_"
PLANNED = frozenset({"weight_temperature"})
"""What moves because the params say so."""
CAUTION_ABOVE = 0.2
UNSTABLE_ABOVE = 0.5
LEAST_MEAN = 1e-12
"""Stands for a mean of 0, so that the variation is a number that JSON has."""


class Verdict(IntEnum):
    """What a coefficient of variation says; metrics hold the number."""

    OK = 0
    CAUTION = 1
    UNSTABLE = 2


def verdict_of(variation: float) -> Verdict:
    """Above 0.5 a weight is unstable, above 0.2 it wants watching.

    Args:
        variation: coefficient of variation.
    """
    if variation > UNSTABLE_ABOVE:
        return Verdict.UNSTABLE
    return Verdict.CAUTION if variation > CAUTION_ABOVE else Verdict.OK


def weight_report(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean, standard deviation, coefficient of variation and verdict of every weight.

    Args:
        rows: see `roiseg.train.log.Row`; a weight counts in the epochs that have it.

    Returns:
        `weight_{name}_mean`, `_std` (of these epochs, not estimated from them), `_cv` = std / |mean| (0 for a weight that doesn't
        move) and `_verdict`, see `Verdict`; to six decimals, flat, as `dvc metrics` wants it.
    """
    names = list(dict.fromkeys(name for row in rows for name in row if name.startswith(PREFIX) and name not in PLANNED))
    report: dict[str, float] = {}
    for name in names:
        values = np.array([row[name] for row in rows if name in row], dtype=np.float64)
        mean, spread = float(values.mean()), float(values.std())
        variation = spread / max(abs(mean), LEAST_MEAN) if spread > 0 else 0.0
        report |= {
            f"{name}_mean": round(mean, 6),
            f"{name}_std": round(spread, 6),
            f"{name}_cv": round(variation, 6),
            f"{name}_verdict": int(verdict_of(variation)),
        }
    return report


def report_lines(report: Mapping[str, float]) -> list[str]:
    """The report in words, a line for each weight.

    Args:
        report: of `weight_report`.
    """
    names = [key.removesuffix("_mean") for key in report if key.endswith("_mean")]
    return [
        f"{name}: mean {report[f'{name}_mean']:.4f}, std {report[f'{name}_std']:.4f}, "
        f"CV {report[f'{name}_cv']:.2f}: {Verdict(int(report[f'{name}_verdict'])).name.lower()}"
        for name in names
    ]
