"""The record of a run: one row an epoch, kept so that a resumed run writes the same files as an unbroken one."""

import json
from collections.abc import Mapping
from pathlib import Path

from dvclive.live import Live

from roiseg.files import write_json


class MetricsLog:
    """Rows of figures in a JSON file, rewritten whole after each epoch."""

    def __init__(self, path: Path) -> None:
        """Open the log, with the rows that an earlier run has left.

        Args:
            path: the file.
        """
        self._path = path
        self.rows: list[dict[str, float]] = json.loads(path.read_text()) if path.is_file() else []

    def keep_until(self, epoch: int) -> None:
        """Forget rows past an epoch: their checkpoint wasn't finished, and they will be written again."""
        self.rows = [row for row in self.rows if row["epoch"] <= epoch]

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row and save."""
        self.rows.append(dict(row))
        write_json(self._path, self.rows)


CURVES = ("miou_fg_roi", "iou_target_roi", "iou_nontarget_roi", "never_class_2_miou_fg_roi")
"""Validation figures that are drawn over the epochs; `evaluate` writes all of them, of the best epoch."""


def write_live(rows: list[dict[str, float]], folder: Path) -> None:
    """The rows as DVCLive writes them: `metrics.json` of the last epoch, and a TSV per curve for `dvc plots show`.

    Args:
        rows: of `MetricsLog`.
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
