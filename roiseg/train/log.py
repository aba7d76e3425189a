"""The record of a run: a row for each epoch, and who is told of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from dvclive.live import Live

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


CURVES = ("miou_fg_roi", "iou_target_roi", "iou_nontarget_roi", "never_class_2_miou_fg_roi")
"""Validation figures that are drawn over the epochs; `evaluate` writes all of them, of the best epoch."""


def write_live(rows: Sequence[Row], folder: Path) -> None:
    """The rows as DVCLive writes them: `metrics.json` of the last epoch, and a TSV per curve for `dvc plots show`.

    Args:
        rows: of the whole run.
        folder: made anew.
    """
    with Live(str(folder), dvcyaml=False, save_dvc_exp=False, report=None, monitor_system=False) as live:
        for row in rows:
            live.step = int(row["epoch"])
            for name, value in row.items():
                if name.startswith("train_"):
                    live.log_metric(name.replace("train_", "train/", 1), value)
                elif name in CURVES:
                    live.log_metric(f"val/{name}", value)
            live.make_summary()
