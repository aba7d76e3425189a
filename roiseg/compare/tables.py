"""A comparison as tables of text, for whoever sets them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from roiseg.compare.comparison import Comparison
from roiseg.compare.differences import Change
from roiseg.compare.runs import Figure
from roiseg.compare.settings import NOT_THERE
from roiseg.preset import flow

NOTHING = "–"
"""A cell without a value."""

SIDE_BY_SIDE = 3
"""Runs whose params stand in columns of their own; of more, each value names its runs."""

STRATA_SHOWN = 12
"""Rows of the table of strata: those that differ most."""

IMAGE_COST = "GFLOPs/image: with 10 ROIs."
"""As `roiseg.evaluate.complexity` counts them, which takes seconds to import."""

CLEAR = "*: the 95 % interval excludes 0."


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its head.
        kind: of its cells: names and values that somebody typed, labels of runs, which may be cut, words of ours, or numbers.
    """

    title: str
    kind: Literal["name", "label", "word", "number"] = "number"


@dataclass(frozen=True)
class Block:
    """A table.

    Attributes:
        title: above it.
        columns: from the left.
        rows: a cell for each column; asterisks mark what is clear.
        remark: a line below it, or empty.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    remark: str = ""


def number(value: float, *, signed: bool = False) -> str:
    """A value to three decimals; whole numbers from 100 on without."""
    digits = 0 if abs(value) >= 100 else 3
    return format(round(value, digits) + 0.0, f"{'+' if signed else ''},.{digits}f")


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Both ends of an interval."""
    if low is None or high is None:
        return NOTHING
    return f"{number(low, signed=signed)} to {number(high, signed=signed)}"


def shortened(name: str, longest: int) -> str:
    """A name of at most so many letters: longer ones lose their middle, for both ends tell runs apart."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[len(name) - (longest - 1 - half) :]}"


def runs_block(comparison: Comparison) -> Block:
    """Which runs are compared, and what their heads cost."""
    columns = [
        Column("#"),
        Column("run", "name"),
        Column("head", "name"),
        Column("ROIs"),
        Column("parameters"),
        Column("GFLOPs/ROI"),
        Column("GFLOPs/image"),
    ]
    rows = []
    for place, run in enumerate(comparison.runs):
        costs = [run.metrics.get("rois"), run.costs.get("parameters")]
        flops = [run.costs.get("gflops_per_roi"), run.costs.get("gflops_per_image")]
        whole = [NOTHING if value is None else f"{value:,.0f}" for value in costs]
        rows.append(
            [str(place + 1), run.name, run.head, *whole, *(NOTHING if value is None else f"{value:.2f}" for value in flops)]
        )
    return Block("Runs", columns, rows, IMAGE_COST if any("gflops_per_image" in run.costs for run in comparison.runs) else "")


def wide_figures(comparison: Comparison) -> Block:
    """A row a run, with its metrics, and what its head costs."""
    costs = runs_block(comparison)
    columns = [*costs.columns[:3], *(Column(metric) for metric in comparison.metrics), *costs.columns[3:]]
    rows = [
        [*row[:3], *(_figure(run.figure(metric)) for metric in comparison.metrics), *row[3:]]
        for row, run in zip(costs.rows, comparison.runs, strict=True)
    ]
    told = any("(" in cell for row in rows for cell in row[3:])
    remarks = ["In brackets: 95 % interval."] * told + [costs.remark] * bool(costs.remark)
    return Block("Runs", columns, rows, " ".join(remarks))


def wide_changes(comparison: Comparison) -> Block:
    """A row a run, with what it has more than the base in each metric."""
    columns = [Column("#"), Column("run", "label"), *(Column(metric) for metric in comparison.metrics)]
    rows = []
    for place, changes in comparison.changes.items():
        of = {change.metric: change for change in changes}
        rows.append([str(place + 1), comparison.labels[place], *(_change(of.get(metric)) for metric in comparison.metrics)])
    return Block(f"Difference to {_base(comparison)}", columns, rows, _how(comparison))


def long_figures(comparison: Comparison) -> list[Block]:
    """A table for each metric, with a row a run: its value, and what it has more than the base."""
    columns = [Column("#"), Column("run", "label"), Column("value"), Column("95 %"), Column("change"), Column("95 %")]
    blocks = []
    for metric in comparison.metrics:
        rows = []
        for place, run in enumerate(comparison.runs):
            figure = run.figure(metric)
            change = next((item for item in comparison.changes.get(place, ()) if item.metric == metric), None)
            rows.append(
                [str(place + 1), comparison.labels[place], *_figure_cells(figure), *_change_cells(change, place == comparison.base)]
            )
        blocks.append(Block(metric, columns, rows))
    last = blocks[-1]
    return [
        *blocks[:-1],
        Block(last.title, last.columns, last.rows, f"change: to {_base(comparison)}. {_how(comparison)}"),
    ]


def strata_block(comparison: Comparison) -> Block | None:
    """Where runs differ from the base, the largest differences first; None: no tables of ROIs are there."""
    found = sorted(
        ((place, item) for place, items in comparison.strata.items() for item in items), key=lambda pair: -abs(pair[1].change.value)
    )
    if not found:
        return None
    columns = [
        Column("#"),
        Column("run", "label"),
        Column("ROIs that are", "word"),
        Column("count"),
        Column("change"),
        Column("95 %"),
    ]
    rows = [
        [
            str(place + 1),
            comparison.labels[place],
            f"{item.group} {item.stratum.replace('_', ' ')}",
            f"{item.rois:,}",
            *_change_cells(item.change, False),
        ]
        for place, item in found[:STRATA_SHOWN]
    ]
    marks = [CLEAR] if any(item.change.clear for _, item in found[:STRATA_SHOWN]) else []
    left = [f"{len(found) - STRATA_SHOWN} smaller ones: --json."] if len(found) > STRATA_SHOWN else []
    metric = found[0][1].change.metric
    return Block(f"Where it helps and hurts: {metric} against {_base(comparison)}", columns, rows, " ".join([*marks, *left]))


def settings_block(comparison: Comparison) -> Block | None:
    """Params that differ; None: none does."""
    if not comparison.settings:
        return None
    places = [place for place, run in enumerate(comparison.runs) if run.params is not None]
    key = Column("param", "name")
    if len(places) <= SIDE_BY_SIDE:
        columns = [key, *(Column(f"{place + 1} {comparison.labels[place]}", "name") for place in places)]
        rows = [[item.key, *(_spelled(item.values[place]) for place in places)] for item in comparison.settings]
        return Block("Params that differ", columns, rows)
    rows = []
    for item in comparison.settings:
        by_value: dict[str, list[int]] = {}
        for place, value in item.values.items():
            by_value.setdefault(_spelled(value), []).append(place + 1)
        rows += [[item.key if first == 0 else "", value, _ranges(of)] for first, (value, of) in enumerate(by_value.items())]
    return Block("Params that differ", [key, Column("value", "name"), Column("runs", "word")], rows)


def impacts_block(comparison: Comparison) -> Block | None:
    """What features go along with in the leading metric; None: there is none that only some runs have."""
    leading = comparison.metrics[0]
    found = [item for item in comparison.impacts if item.metric == leading]
    if not found:
        return None
    columns = [Column("feature", "word"), Column("with"), Column("without"), Column("impact"), Column("pairs"), Column("paired")]
    rows = [
        [
            item.feature,
            str(item.with_it),
            str(item.without),
            number(item.difference, signed=True),
            str(item.pairs),
            NOTHING if item.paired is None else number(item.paired, signed=True),
        ]
        for item in found
    ]
    remark = (
        "impact: mean of the runs with the feature minus mean of those without, which may differ in more; "
        "paired: mean over the pairs of runs that differ in nothing else."
    )
    return Block(f"Features: {leading}", columns, rows, remark)


def _base(comparison: Comparison) -> str:
    return f"{comparison.base + 1} {comparison.labels[comparison.base]}"


def _how(comparison: Comparison) -> str:
    known = [item for changes in comparison.changes.values() for item in changes if item.low is not None]
    paired = sum(item.paired for item in known)
    alone = dict.fromkeys(item.metric for item in known if not item.paired)
    if not known:
        return "No intervals: the metrics have none."
    mark = f"{CLEAR} " if any(item.clear for item in known) else ""
    if paired in (0, len(known)):
        return f"{mark}Intervals: {'paired bootstrap over images' if paired else 'of independent runs'}."
    few = f" ({', '.join(alone)})" if len(alone) < len(comparison.metrics) else ""
    return f"{mark}Intervals: {paired} of {len(known)} paired over images, the others{few} as of independent runs, and too wide."


def _figure(figure: Figure | None) -> str:
    value, ends = _figure_cells(figure)
    return value if ends == NOTHING else f"{value} ({ends})"


def _figure_cells(figure: Figure | None) -> list[str]:
    return [NOTHING, NOTHING] if figure is None else [number(figure.value), interval(figure.low, figure.high)]


def _change(change: Change | None) -> str:
    value, ends = _change_cells(change, False)
    return value if ends == NOTHING else f"{value} ({ends})"


def _change_cells(change: Change | None, is_base: bool) -> list[str]:
    if change is None:
        return ["base" if is_base else NOTHING, "" if is_base else NOTHING]
    mark = "*" if change.clear else ""
    return [f"{number(change.value, signed=True)}{mark}", interval(change.low, change.high, signed=True)]


def _spelled(value: object) -> str:
    return NOTHING if value is NOT_THERE else flow(value)


def _ranges(numbers: Iterable[int]) -> str:
    """Such as `1, 3-5`."""
    found: list[list[int]] = []
    for item in numbers:
        if found and found[-1][-1] == item - 1:
            found[-1] = [found[-1][0], item]
        else:
            found.append([item])
    return ", ".join("-".join(str(item) for item in part) for part in found)
