"""A run: what one head scored in one state of the project, and what it was made with."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from roiseg.compare.lock import LOCK, RGB, outdated
from roiseg.compare.sources import COSTS, METRICS, Commit, Files, Source, find_source
from roiseg.errors import PredictionError, RunError
from roiseg.evaluate.metrics import roi_figures
from roiseg.evaluate.table import RoiTable
from roiseg.params import PARAMS_FILE, nearest, overlay

PRESETS, TABLES = "roiseg/presets", "data/predictions"
ROUNDING = 2e-6
"""How far the figures of a table may be from those of the metrics, which have six decimals."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figure:
    """A metric of a run, with its 95 % interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Run:
    """What one head scored in one state of the project.

    Attributes:
        source: the state.
        head: name of the head.
        metrics: name -> value, as evaluation wrote them.
        costs: `parameters`, `gflops_per_roi` and the like, as export wrote them; empty where they aren't there.
        params: all sections, the head's preset laid over them; None where they aren't known.
        doubt: why the metrics may not be those of the params and weights; None: nothing is known against them.
    """

    source: Source
    head: str
    metrics: Mapping[str, float]
    costs: Mapping[str, float]
    params: Mapping[str, Any] | None
    doubt: str | None = None

    @property
    def name(self) -> str:
        """Of the state of the project, as it was typed."""
        return self.source.name

    def figure(self, metric: str) -> Figure | None:
        """A metric with its interval; None: this run hasn't got it."""
        if metric not in self.metrics:
            return None
        return Figure(self.metrics[metric], self.metrics.get(f"{metric}_low"), self.metrics.get(f"{metric}_high"))

    def table(self, *, pull: bool) -> RoiTable | str:
        """The rows of the ROIs that the metrics are made of, or why they can't be had.

        Args:
            pull: whether DVC's remote is asked too.
        """
        path = f"{TABLES}/{self.head}.parquet"
        with TemporaryDirectory() as folder:
            target = Path(folder) / "table.parquet"
            reason = self.source.fetch(path, target, pull=pull)
            if reason is not None:
                return reason
            try:
                table = RoiTable.read(target)
            except PredictionError as error:
                return f"{path} can't be read ({str(error).replace(str(target), path)})"
        figures = roi_figures(table)
        for name in [name for name in figures if name in self.metrics]:
            if abs(figures[name] - self.metrics[name]) > ROUNDING:
                return (
                    f"{path} is of another evaluation than {METRICS}/{self.head}.json ({name} is {figures[name]:.6g} and "
                    f"{self.metrics[name]:.6g}; `dvc checkout` puts the right one there)"
                )
        return table


def labels(runs: Sequence[Run]) -> list[str]:
    """The shortest names that tell the runs apart: of their states, of their heads, or both."""
    names, heads = {run.name for run in runs}, {run.head for run in runs}
    if len(heads) == 1:
        return [run.name for run in runs]
    return [run.head if len(names) == 1 else f"{run.name}:{run.head}" for run in runs]


def find_runs(names: Sequence[str], heads: Sequence[str]) -> list[Run]:
    """The runs of some states of the project, in their order.

    Args:
        names: see `find_source`.
        heads: those to take; empty: all that a state's params list, or all where there are no params.

    Raises:
        RunError: a name that stands for nothing, a state without metrics or without any of the heads, a head that none has, metrics
            that can't be read.
    """
    runs: list[Run] = []
    there: list[str] = []
    for name in dict.fromkeys(names):
        source = find_source(name)
        params, lock = (_optional(source, path) for path in (str(PARAMS_FILE), LOCK))
        listed = source.listed()
        there += listed
        chosen = [head for head in heads if head in listed] if heads else _own(params, listed)
        if not chosen:
            raise _without_metrics(source, heads, listed)
        if lacking := _lacking(params, heads, listed):
            logger.warning("run %r: there are no metrics of %s, which its `heads` name; `dvc repro` makes them", name, lacking)
        runs += [_read_run(source, head, params, lock) for head in chosen]
    for head in heads:
        if head not in there:
            raise RunError(f"--head {head!r}: none of the runs has it; {nearest(head, set(there))}")
    return runs


def _own(params: Mapping[str, Any] | None, listed: Sequence[str]) -> list[str]:
    """Heads of the params that have metrics: git keeps the files of heads that a state no longer trains."""
    asked = params.get("heads") if params is not None else None
    return [str(head) for head in asked if str(head) in listed] if isinstance(asked, list) else list(listed)


def _lacking(params: Mapping[str, Any] | None, heads: Sequence[str], listed: Sequence[str]) -> str:
    asked = params.get("heads") if params is not None and not heads else None
    return ", ".join(str(head) for head in asked if str(head) not in listed) if isinstance(asked, list) else ""


def _without_metrics(source: Source, heads: Sequence[str], listed: Sequence[str]) -> RunError:
    if heads and listed:
        return RunError(
            f"run {source.name!r}: has no metrics of {', '.join(heads)}, only of {', '.join(listed)}; name one by --head"
        )
    if isinstance(source, Files):
        return RunError(f"run {source.name!r}: no metrics in {source.folder}, expected HEAD.json as evaluation writes it")
    remedy = "check it out, run `dvc repro` and commit metrics/ and dvc.lock" if isinstance(source, Commit) else "run `dvc repro`"
    return RunError(f"run {source.name!r}: there is no {METRICS}/HEAD.json of any of its `heads`; {remedy}")


def _read_run(source: Source, head: str, params: Mapping[str, Any] | None, lock: Mapping[str, Any] | None) -> Run:
    return Run(
        source,
        head,
        _numbers(source, f"{METRICS}/{head}.json") or {},
        _numbers(source, f"{COSTS}/{head}.json") or {},
        _with_preset(source, head, params),
        None if params is None or lock is None else outdated(lock, params, head),
    )


def _numbers(source: Source, path: str) -> dict[str, float] | None:
    """A flat JSON of numbers; None: it isn't there."""
    text = source.text(path)
    if text is None:
        return None
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise RunError(f"run {source.name!r}: {path} isn't JSON ({error}); evaluate again, or name another file") from error
    if not isinstance(values, dict):
        raise RunError(f"run {source.name!r}: {path} holds a {type(values).__name__}, expected names and numbers")
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise RunError(f"run {source.name!r}: {path}: {key} is {value!r}, expected a finite number; is it a metrics file?")
    return {key: float(value) for key, value in values.items()}


def _optional(source: Source, path: str) -> dict[str, Any] | None:
    """A YAML file; None: it isn't there."""
    text = source.text(path)
    return None if text is None else _mapping(source, path, text)


def _with_preset(source: Source, head: str, params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if head == RGB:
        if params is None or RGB not in params:
            return None
        # Imported here: it brings torch, which no other comparison needs.
        from roiseg.rgb import rgb_values

        return rgb_values(params)
    path = f"{PRESETS}/{head}.yaml"
    preset = source.text(path)
    return None if params is None or preset is None else overlay(params, _mapping(source, path, preset))


def _mapping(source: Source, path: str, text: str) -> dict[str, Any]:
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise RunError(f"run {source.name!r}: {path} isn't YAML: {error}") from error
    if values is not None and not isinstance(values, dict):
        raise RunError(f"run {source.name!r}: {path} holds a {type(values).__name__}, expected sections")
    return values or {}
