"""The record of a run: a row for each epoch, who is told of it, and its form for DVCLive."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from dvclive.plots.metric import Metric

from roiseg.files import write_json
from roiseg.train.curves import write_curves
from roiseg.train.monitor import weight_report

Row = dict[str, float]
"""Figures of an epoch: `epoch`, parts of the loss (`train_*`), weights in force (`weight_*`), and validation figures by name."""


class Observer(Protocol):
    """Told of a run while it goes on."""

    def begin(self, rows: Sequence[Row]) -> None:
        """The run starts, or goes on after these rows."""

    def epoch(self, rows: Sequence[Row]) -> None:
        """One more row is there."""

    def end(self) -> None:
        """The run is over."""


METRICS = "metrics.json"
PLOTS = "plots"
WEIGHTS = "weights.json"
LEADING = ("miou_fg_roi", "iou_target_roi", "iou_nontarget_roi", "never_class_2_miou_fg_roi")
"""Validation figures of a head in `metrics.json`."""
LEADING_OF_NETS = ("miou_2class", "iou_person", "agreement")
"""Those of a net that tells people from background."""
LEADING_OF_SNAPPER = ("mean_iou", "rough_mean_iou", "share_iou_above_90", "edge_px_mean", "edge_share_within_3px")
"""Those of the model that snaps boxes, and what the rough boxes have by themselves."""
GROUPS = {"train_": "train/", "weight_": "weights/", "val_": "val/"}
STEPS = "skipped_steps"


def scalar_name(name: str) -> str:
    """Name of a row's figure among scalars: `train/ce`, `weights/ce`, `val/miou_fg_roi`."""
    for beginning, group in GROUPS.items():
        if name.startswith(beginning):
            return group + name.removeprefix(beginning)
    return f"train/{name}" if name == STEPS else f"val/{name}"


def scalars(row: Row) -> dict[str, float]:
    """All figures of a row but the number of its epoch, under their names as scalars."""
    return {scalar_name(name): value for name, value in row.items() if name != "epoch"}


def summary(row: Row) -> dict[str, Any]:
    """What `metrics.json` says of the last epoch: parts of the loss and the leading figures.

    Its keys are columns of `dvc exp show`, and stay. Every other validation figure is there once already, of the best epoch, from
    `evaluate`; weights have a report of their own.

    Args:
        row: of the last epoch.
    """
    groups: dict[str, dict[str, float | str]] = {"train": {}, "val": {}}
    for name, value in scalars(row).items():
        group, figure = name.split("/", 1)
        if (group == "train" and figure != STEPS) or (
            group == "val" and figure in (*LEADING, *LEADING_OF_NETS, *LEADING_OF_SNAPPER)
        ):
            groups[group][figure] = value if math.isfinite(value) else str(value)  # as DVCLive does: JSON has no NaN
    return {**groups, "step": int(row["epoch"])}


def append_scalars(row: Row, folder: Path) -> None:
    """Append a row's figures to DVCLive's tables.

    DVCLive's own writer of a table, without its `Live`, which would look for repositories and remotes from within a stage, and can
    leave half a `metrics.json`.
    """
    for name, value in scalars(row).items():
        table = Metric(name, str(folder / PLOTS))
        table.step = int(row["epoch"])
        table.dump(value if math.isfinite(value) else str(value))


def write_live(rows: Sequence[Row], folder: Path) -> None:
    """The record as DVCLive writes it, a TSV for each figure and `metrics.json` of the last epoch; `weights.json`, and the charts.

    Args:
        rows: of the whole run.
        folder: made anew; what it holds of an earlier record goes.
    """
    shutil.rmtree(folder / PLOTS, ignore_errors=True)
    (folder / METRICS).unlink(missing_ok=True)
    for row in rows:
        append_scalars(row, folder)
    write_reports(rows, folder)


def write_reports(rows: Sequence[Row], folder: Path) -> None:
    """The files that are written anew each time, each whole or not at all."""
    write_curves(rows, folder)
    write_json(folder / WEIGHTS, weight_report(rows))
    if rows:
        write_json(folder / METRICS, summary(rows[-1]), indent=4)


class LiveCurves:
    """Writes the record epoch by epoch: `dvc plots show` draws a run while it goes on."""

    def __init__(self, folder: Path) -> None:
        """Fix where; nothing is written before the run begins.

        Args:
            folder: `metrics/train/{head}`.
        """
        self._folder = folder

    def begin(self, rows: Sequence[Row]) -> None:
        """Write the rows that are there, in place of what a killed run has left: it may have been an epoch ahead or behind."""
        write_live(rows, self._folder)

    def epoch(self, rows: Sequence[Row]) -> None:
        """Append the last row."""
        append_scalars(rows[-1], self._folder)
        write_reports(rows, self._folder)

    def end(self) -> None:
        """Nothing: the whole is published in one piece."""
