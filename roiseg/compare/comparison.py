"""Everything that is said about some runs, as values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from roiseg.compare.differences import Change, StratumChange, by_stratum, changes
from roiseg.compare.impact import Impact, impacts
from roiseg.compare.runs import Run, labels
from roiseg.compare.settings import Setting, differing
from roiseg.errors import RunError
from roiseg.evaluate import bootstrap
from roiseg.evaluate.table import RoiTable
from roiseg.params import nearest
from roiseg.progress import progress

HEADLINE = (*bootstrap.HEADLINE, "oracle_box_ap")
"""Metrics that are compared unless others are asked for; the first leads."""

ALONE = "treat the runs as independent and come out too wide"

ENDS = ("_low", "_high")
"""Endings of the names of a metric's interval."""


@dataclass(frozen=True)
class Comparison:
    """Everything that is said about some runs.

    Attributes:
        runs: in the order they were given.
        labels: a short name for each.
        base: place of the run that the others are compared with.
        metrics: names, the leading one first.
        changes: place of a run -> what it has more than the base.
        strata: place of a run -> the same in each kind of ROIs, where tables are there.
        settings: params that differ.
        impacts: what features go along with.
        notes: what the reader must know to believe the figures.
    """

    runs: Sequence[Run]
    labels: Sequence[str]
    base: int
    metrics: Sequence[str]
    changes: Mapping[int, Sequence[Change]]
    strata: Mapping[int, Sequence[StratumChange]]
    settings: Sequence[Setting]
    impacts: Sequence[Impact]
    notes: Sequence[str]


def compare(runs: Sequence[Run], base: str | None, metrics: Sequence[str], *, pull: bool) -> Comparison:
    """Compare runs with one of them.

    Args:
        runs: at least two.
        base: label, state or head that stands for one of them; None: the first.
        metrics: names; empty: those of `HEADLINE` that there are.
        pull: whether tables that aren't here are asked of DVC's remote.

    Raises:
        RunError: a single run, or a base or a metric that isn't there.
    """
    if len(runs) < 2:
        raise RunError(
            f"run {runs[0].name!r} has one head, {runs[0].head}, and nothing is there to compare it with; name another run"
        )
    names, place, chosen = labels(runs), 0, _metrics(metrics, runs)
    place = 0 if base is None else _base(base, runs, names)
    found: dict[int, list[Change]] = {}
    kinds: dict[int, list[StratumChange]] = {}
    remarks: dict[str, list[str]] = {}
    own = runs[place].table(pull=pull)
    if isinstance(own, str):
        remarks[f"all intervals of differences {ALONE}: {own}"] = [f"{names[place]} (the base)"]
    others = [number for number in range(len(runs)) if number != place]
    with progress("comparing", len(others)) as tick:
        for number in others:
            tables = _tables(own, runs[number], pull=pull)
            found[number] = changes(runs[place], runs[number], chosen, tables if isinstance(tables, tuple) else None)
            if isinstance(tables, tuple):
                kinds[number] = by_stratum(*tables, chosen)
            for remark in _remarks(runs[place], runs[number], tables):
                remarks.setdefault(remark, []).append(names[number])
            tick()
    for number, run in enumerate(runs):
        if run.doubt is not None:
            remarks.setdefault(run.doubt, []).append(names[number])
    if unknown := [names[number] for number, run in enumerate(runs) if run.params is None]:
        remarks["params aren't known, so that neither settings nor features of it are told"] = unknown
    notes = [f"{', '.join(of)}: {remark}" for remark, of in remarks.items()]
    return Comparison(runs, names, place, chosen, found, kinds, differing(runs), impacts(runs, chosen), notes)


def _base(asked: str, runs: Sequence[Run], names: Sequence[str]) -> int:
    places = [number for number, run in enumerate(runs) if asked in (names[number], run.name, f"{run.name}:{run.head}")]
    if not places:
        raise RunError(f"--base {asked!r}: none of the runs; {nearest(asked, {*names, *(run.name for run in runs)})}")
    if len(places) > 1:
        raise RunError(
            f"--base {asked!r}: stands for {len(places)} runs, expected one of {', '.join(names[item] for item in places)}"
        )
    return places[0]


def _metrics(asked: Sequence[str], runs: Sequence[Run]) -> list[str]:
    there = {name for run in runs for name in run.metrics}
    there -= {name for name in there for end in ENDS if name.endswith(end) and name.removesuffix(end) in there}
    for name in asked:
        if name not in there:
            raise RunError(f"--metric {name!r}: none of the runs has it; {nearest(name, there)}")
    chosen = list(dict.fromkeys(asked)) or [name for name in HEADLINE if name in there]
    if not chosen:
        raise RunError(f"none of the runs has one of {', '.join(HEADLINE)}; name by --metric what to compare: {nearest('', there)}")
    return chosen


def _tables(own: RoiTable | str, run: Run, *, pull: bool) -> tuple[RoiTable, RoiTable] | str | None:
    if isinstance(own, str):
        return None
    table = run.table(pull=pull)
    return table if isinstance(table, str) else (own, table)


def _remarks(base: Run, run: Run, tables: tuple[RoiTable, RoiTable] | str | None) -> Iterator[str]:
    """What makes a comparison of two runs less sure.

    Args:
        base: what is compared with.
        run: what is compared.
        tables: of both; or why that of `run` can't be had; None: the base hasn't got one.
    """
    if isinstance(tables, tuple):
        if set(tables[0].image_ids.tolist()) != set(tables[1].image_ids.tolist()):
            yield f"measured on other images than the base, so that intervals of differences {ALONE}"
        return
    if isinstance(tables, str):
        yield f"intervals of differences {ALONE}: {tables}"
    for count in ("images", "rois"):
        mine, theirs = base.metrics.get(count), run.metrics.get(count)
        if mine is not None and theirs is not None and mine != theirs:
            yield f"measured on {theirs:,.0f} {count}, the base on {mine:,.0f}"
