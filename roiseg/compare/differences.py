"""How much a run differs from the base, in all ROIs and in each stratum, and how sure that is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from roiseg.compare.runs import Figure, Run
from roiseg.evaluate.bootstrap import difference
from roiseg.evaluate.strata import strata
from roiseg.evaluate.table import RoiTable


@dataclass(frozen=True)
class Change:
    """What a run has more of a metric than the base.

    Attributes:
        metric: name of the metric.
        value: of the run minus that of the base.
        low: lower end of the 95 % interval; None where there is none.
        high: upper end.
        paired: whether the interval comes from drawing the same images for both.
    """

    metric: str
    value: float
    low: float | None
    high: float | None
    paired: bool

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class StratumChange:
    """A change in one kind of ROIs.

    Attributes:
        group: such as `size`.
        stratum: such as `small`.
        rois: of the base in this stratum.
        change: in them.
    """

    group: str
    stratum: str
    rois: int
    change: Change


def changes(base: Run, run: Run, metrics: Sequence[str], tables: tuple[RoiTable, RoiTable] | None) -> list[Change]:
    """Changes in all metrics that both runs have, in their order.

    Args:
        base: what is compared with.
        run: what is compared.
        metrics: names.
        tables: rows of the base and of the run, where both are there; metrics that don't follow from rows, and all without tables,
            have the interval of `independent`.
    """
    resampled = _resampled(*tables) if tables is not None else {}
    found = []
    for metric in metrics:
        first, second = base.figure(metric), run.figure(metric)
        if first is not None and second is not None:
            found.append(resampled.get(metric) or independent(metric, first, second))
    return found


def _resampled(first: RoiTable, second: RoiTable) -> dict[str, Change]:
    return {
        metric: Change(metric, item.value, item.low, item.high, item.paired) for metric, item in difference(first, second).items()
    }


def independent(metric: str, first: Figure, second: Figure) -> Change:
    """Interval of a difference of two figures from their own intervals, as if they came of different images.

    The method of variance estimates recovery (Zou & Donner 2008, "Construction of confidence intervals about effect measures"): for
    d = v2 - v1,

        low = d - sqrt((v2 - l2)^2 + (u1 - v1)^2),  high = d + sqrt((u2 - v2)^2 + (v1 - l1)^2)

    Runs on the same images go up and down together, so that this is wider than the paired interval.
    """
    value = second.value - first.value
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Change(metric, value, None, None, paired=False)
    below = math.hypot(second.value - second.low, first.high - first.value)
    above = math.hypot(second.high - second.value, first.value - first.low)
    return Change(metric, value, value - below, value + above, paired=False)


def by_stratum(first: RoiTable, second: RoiTable, metrics: Sequence[str]) -> list[StratumChange]:
    """Changes in the first of `metrics` that follows from rows, in every stratum that both tables have, the largest first.

    Args:
        first: rows of the base.
        second: rows of the run. Where they are of the same ROIs, the base says which stratum each is in.
        metrics: names, the leading one first.
    """
    kinds = strata(first)
    same = np.array_equal(first.annotation_ids, second.annotation_ids)
    others = kinds if same else strata(second)
    found: list[StratumChange] = []
    for group, of_each in kinds.items():
        for stratum in np.unique(of_each):
            mine, theirs = of_each == stratum, others[group] == stratum
            if theirs.any():
                change = _leading(_resampled(first.part(mine), second.part(theirs)), metrics)
                if change is not None:
                    found.append(StratumChange(group, str(stratum), int(mine.sum()), change))
    return sorted(found, key=lambda item: -abs(item.change.value))


def _leading(found: Mapping[str, Change], metrics: Sequence[str]) -> Change | None:
    return next((found[metric] for metric in metrics if metric in found), None)
