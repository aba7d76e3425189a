"""How far a figure could be off by the choice of images: percentile bootstrap intervals.

Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3. Images are what is drawn again, with all their ROIs,
since the ROIs of an image aren't independent. Every figure follows from sums over images (`roiseg.evaluate.metrics`), so a
resample is a weighted sum of them, and nothing is scored anew.

Symbols: R ROIs, I images, S sums, B resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roiseg.evaluate.metrics import SUMS, figures_of, roi_sums
from roiseg.evaluate.table import RoiTable
from roiseg.geometry import Floats

HEADLINE = (
    "miou_fg_roi",
    "iou_target_roi",
    "iou_nontarget_roi",
    "boundary_iou_crop",
    "separation_accuracy",
    "miou_fg_dataset",
)
"""Figures that are told with their interval."""

RESAMPLES = 1000
"""B: the ends of a 95 % interval lie between the 25th and 26th value from either side."""

LEVEL = 0.95

SEED = 0

DRAWN_TOGETHER = 1 << 20
"""Image numbers in memory at a time."""


@dataclass(frozen=True)
class Difference:
    """How much larger a figure is in the second of two tables.

    Attributes:
        value: second minus first.
        low: lower end of its interval.
        high: upper end.
        paired: whether both tables are of the same images, which were then drawn together.
    """

    value: float
    low: float
    high: float
    paired: bool


def draws(images: int, seed: Sequence[int] = (SEED,)) -> Iterator[NDArray[np.int64]]:
    """How often each image is in each of `RESAMPLES` resamples, some resamples at a time so that memory is bounded.

    Args:
        images: I, at least 1.
        seed: of the draws; the same for the same seed and I.

    Yields:
        (b, I) whose rows sum to I; in all, b sums to B.
    """
    rng = np.random.default_rng(seed)
    together = max(DRAWN_TOGETHER // images, 1)
    for start in range(0, RESAMPLES, together):
        count = min(together, RESAMPLES - start)
        drawn = rng.integers(0, images, (count, images)) + np.arange(count)[:, None] * images
        yield np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images)


def image_sums(table: RoiTable) -> tuple[NDArray[np.int64], Floats]:
    """Sums of each image, images in the order of their ids.

    Returns:
        Ids (I,) and sums (I, S).
    """
    ids, places = np.unique(table.image_ids, return_inverse=True)
    found = np.zeros((len(ids), len(SUMS)), dtype=np.float64)
    np.add.at(found, places, roi_sums(table))
    return ids, found


def resampled(sums: Floats, seed: Sequence[int] = (SEED,)) -> dict[str, Floats]:
    """Figures of all resamples.

    Args:
        sums: (I, S), I >= 1.
        seed: see `draws`.

    Returns:
        Name -> (B,), NaN where a resample has nothing to measure.
    """
    return figures_of(np.concatenate([counts @ sums for counts in draws(len(sums), seed)]))


def percentiles(values: Floats) -> tuple[float, float] | None:
    """Both ends of the interval of resampled values (B,), NaN left out; None where nothing is left."""
    kept = values[~np.isnan(values)]
    if not kept.size:
        return None
    low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def intervals(table: RoiTable) -> dict[str, tuple[float, float]]:
    """95 % intervals of the figures of `HEADLINE` that have something to measure."""
    if not len(table):
        return {}
    found = resampled(image_sums(table)[1])
    ends = {name: percentiles(found[name]) for name in HEADLINE}
    return {name: pair for name, pair in ends.items() if pair is not None}


def difference(first: RoiTable, second: RoiTable) -> dict[str, Difference]:
    """By how much all figures differ, with 95 % intervals.

    Where both tables are of the same images, an image is drawn for both: what makes it hard then cancels out, and much smaller
    differences show. Otherwise the images of each are drawn by themselves.

    Args:
        first: the left side.
        second: the right side, whose figures are the minuend.

    Returns:
        Name -> difference, for the figures that both tables have.
    """
    if not len(first) or not len(second):
        return {}
    (first_ids, first_sums), (second_ids, second_sums) = image_sums(first), image_sums(second)
    paired = np.array_equal(first_ids, second_ids)
    before, after = resampled(first_sums), resampled(second_sums, (SEED,) if paired else (SEED, 1))
    values = [figures_of(sums.sum(axis=0)) for sums in (first_sums, second_sums)]
    found = {}
    for name in values[0]:
        value, ends = float(values[1][name] - values[0][name]), percentiles(after[name] - before[name])
        if not np.isnan(value) and ends is not None:
            found[name] = Difference(value, *ends, paired)
    return found
