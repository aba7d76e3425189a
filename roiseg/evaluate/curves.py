"""The points of all charts of an evaluation, as rows of tables that DVC draws and lays over those of other revisions.

Symbols: R ROIs.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roiseg.files import write_bytes
from roiseg.geometry import Floats

Row = Mapping[str, object]
Rows = Sequence[Row]

IOU_BINS = 20
"""Bins of equal width in [0, 1]; the last one holds 1 too."""

DIGITS = 6
"""Decimals in a table."""


def precision_recall_rows(sources: Mapping[str, Rows]) -> list[Row]:
    """Curves of several sources in one table, each under the name of its source too.

    Args:
        sources: where the boxes are from, such as "oracle box" -> rows of `curve`, `recall`, `precision`.
    """
    return [{**row, "curve": f"{source}, {row['curve']}"} for source, rows in sources.items() for row in rows]


def iou_histogram_rows(ious: Floats, labels: Mapping[str, NDArray[np.str_]], order: Mapping[str, Sequence[str]]) -> list[Row]:
    """How the target IoU spreads in every stratum.

    Args:
        ious: (R,), NaN for ROIs without any target, annotated or predicted.
        labels: group -> (R,) stratum of each ROI.
        order: group -> its strata in the order of the chart.

    Returns:
        For each bin of each stratum that has ROIs: `group`, `stratum`, `iou` (middle of the bin), `share` of the stratum's
        ROIs, and `rois`, the number of those.
    """
    measured = ~np.isnan(ious)
    bins = np.minimum((np.nan_to_num(ious) * IOU_BINS).astype(np.int64), IOU_BINS - 1)
    rows: list[Row] = []
    for group, strata in order.items():
        for stratum in strata:
            chosen = measured & (labels[group] == stratum)
            total = int(chosen.sum())
            if total:
                counts = np.bincount(bins[chosen], minlength=IOU_BINS)
                rows += [
                    _rounded(
                        {
                            "group": group,
                            "stratum": f"{group}: {stratum}",
                            "iou": (number + 0.5) / IOU_BINS,
                            "share": count / total,
                            "rois": total,
                        }
                    )
                    for number, count in enumerate(counts.tolist())
                ]
    return rows


BREAKDOWN_FIGURES = ("iou_target_roi", "iou_nontarget_roi", "miou_fg_roi", "f1_target", "boundary_iou_crop", "detection_rate_50")


def breakdown_rows(breakdown: Iterable[Row]) -> list[Row]:
    """The breakdown with a row for each figure of each stratum; what has nothing to measure has no row.

    Args:
        breakdown: rows of `roiseg.evaluate.metrics.breakdown`.
    """
    rows: list[Row] = []
    for item in breakdown:
        place = {"group": item["group"], "stratum": f"{item['group']}: {item['stratum']}"}
        for name in BREAKDOWN_FIGURES:
            value = item.get(name)
            if isinstance(value, float) and not np.isnan(value):
                rows.append(_rounded({**place, "figure": name, "value": value, "rois": item["rois"]}))
    return rows


def _rounded(row: Row) -> Row:
    return {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in row.items()}


@dataclass(frozen=True)
class Curves:
    """The points of all charts.

    Attributes:
        pr: see `precision_recall_rows`.
        iou_histogram: see `iou_histogram_rows`.
        calibration: see `roiseg.evaluate.calibration`; points of the reliability diagram (DeGroot & Fienberg 1983).
        breakdown: see `breakdown_rows`.
    """

    pr: Rows
    iou_histogram: Rows
    calibration: Rows
    breakdown: Rows


COLUMNS: Mapping[str, Sequence[str]] = {
    "pr": ("curve", "recall", "precision"),
    "iou_histogram": ("group", "stratum", "iou", "share", "rois"),
    "calibration": ("low", "high", "probability", "share", "pixels"),
    "breakdown": ("group", "stratum", "figure", "value", "rois"),
}


def write_curves(folder: Path, curves: Curves) -> None:
    """A CSV for each table of `curves`, named as its attribute; one without rows has its head."""
    for field in fields(curves):
        _write_rows(folder / f"{field.name}.csv", getattr(curves, field.name), COLUMNS[field.name])


def _write_rows(path: Path, rows: Rows, columns: Sequence[str]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
