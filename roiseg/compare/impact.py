"""What a feature goes along with, over all runs given.

    impact = mean of the runs with the feature - mean of the runs without

It is a difference of means: the runs may differ in more than the feature. A pair of runs that differ in nothing else is a
controlled comparison, and the mean over such pairs stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from roiseg.compare.features import FEATURES, Feature
from roiseg.compare.lock import flatten
from roiseg.compare.runs import Run

HARMLESS = frozenset({"reader", "watch", "export"})
"""Sections that shape no figure of evaluation."""


@dataclass(frozen=True)
class Impact:
    """What a feature goes along with in one metric.

    Attributes:
        feature: its name.
        metric: name of the metric.
        with_it: how many runs have it.
        without: how many haven't.
        difference: mean of the ones minus mean of the others.
        pairs: how many pairs of runs differ in just this feature.
        paired: mean over them of the run with it minus the one without; None where there is no such pair.
    """

    feature: str
    metric: str
    with_it: int
    without: int
    difference: float
    pairs: int
    paired: float | None


def impacts(runs: Sequence[Run], metrics: Sequence[str]) -> list[Impact]:
    """Of every feature that some of the runs have and others haven't, and every metric, in their orders.

    Runs whose params aren't known count on neither side.
    """
    return [found for feature in FEATURES for metric in metrics if (found := _impact(feature, metric, runs)) is not None]


def _impact(feature: Feature, metric: str, runs: Sequence[Run]) -> Impact | None:
    known = [(run.params, run.metrics[metric]) for run in runs if run.params is not None and metric in run.metrics]
    having = [value for params, value in known if feature.on(params)]
    lacking = [value for params, value in known if not feature.on(params)]
    if not having or not lacking:
        return None
    paired = [
        (one - other) if feature.on(first) else (other - one)
        for (first, one), (second, other) in combinations(known, 2)
        if feature.on(first) != feature.on(second) and _alike_but_for(feature, first, second)
    ]
    difference = fmean(having) - fmean(lacking)
    return Impact(feature.name, metric, len(having), len(lacking), difference, len(paired), fmean(paired) if paired else None)


def _alike_but_for(feature: Feature, first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two runs differ in the keys of this feature alone, and in no other feature."""
    if any(item.on(first) != item.on(second) for item in FEATURES if item is not feature):
        return False
    one, other = ({key: value for key, value in flatten(params) if key.split(".")[0] not in HARMLESS} for params in (first, second))
    keys = [key for key in {*one, *other} if one.get(key) != other.get(key)]
    return all(any(key == own or key.startswith(f"{own}.") for own in feature.keys) for key in keys)
