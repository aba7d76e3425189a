"""Plots that `dvc plots show` renders: pictures, and tables with one row per point."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from roiseg.evaluate.confusion import ious
from roiseg.evaluate.figures import save_figure
from roiseg.files import write_bytes
from roiseg.masks import CLASS_NAMES, NON_TARGET, TARGET

SIZE_EDGES_PX = (0, 16, 32, 64, 96, 128, 192, 256, 384, 1_000_000)
"""Classes of the longer side of a person's box, in image pixels."""


def confusion_picture(confusion: NDArray[np.int64], path: Path) -> None:
    """The 3x3 confusion matrix, each row as shares of the annotated class.

    Args:
        confusion: (K, K) pixel counts, rows are labels.
        path: PNG.
    """
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(4.6, 4.0), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    axes.set_yticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    axes.set_xlabel("predicted")
    axes.set_ylabel("annotated")
    axes.set_title("ROI pixels: share of the annotated class")
    for row, column in np.ndindex(*shares.shape):
        shade = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{shares[row, column]:.3f}\n{confusion[row, column]:,}", ha="center", va="center", color=shade)
    figure.colorbar(image, shrink=0.8)
    save_figure(figure, path)


def write_rows(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """A CSV with these columns, or with the keys of the first row as its head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or (list(rows[0]) if rows else []), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def iou_by_size(confusions: NDArray[np.int64], longer_side_px: NDArray[np.float64]) -> list[dict[str, object]]:
    """Mean target and non-target IoU by the size of the person.

    Args:
        confusions: (R, K, K).
        longer_side_px: (R,) longer side of each box, image pixels.
    """
    per_roi = ious(confusions)
    rows: list[dict[str, object]] = []
    for low, high in pairwise(SIZE_EDGES_PX):
        chosen = per_roi[(longer_side_px >= low) & (longer_side_px < high)]
        for label in (TARGET, NON_TARGET):
            values = chosen[:, label][~np.isnan(chosen[:, label])]
            if values.size:
                name = f"{low:03d}-{high - 1:03d} px" if high < SIZE_EDGES_PX[-1] else f"{low:03d} px and more"
                rows.append(
                    {
                        "size": name,
                        "class": CLASS_NAMES[label],
                        "iou": round(float(values.mean()), 6),
                        "rois": values.size,
                    }
                )
    return rows


def size_picture(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """The rows of `iou_by_size` as bars."""
    sizes = list(dict.fromkeys(str(row["size"]) for row in rows))
    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for offset, label in ((-0.2, CLASS_NAMES[TARGET]), (0.2, CLASS_NAMES[NON_TARGET])):
        chosen = {str(row["size"]): row for row in rows if row["class"] == label}
        heights = [float(str(chosen[size]["iou"])) if size in chosen else 0.0 for size in sizes]
        bars = axes.bar([place + offset for place in range(len(sizes))], heights, 0.4, label=label)
        axes.bar_label(bars, [str(chosen[size]["rois"]) if size in chosen else "" for size in sizes], fontsize=7)
    axes.set_xticks(range(len(sizes)), sizes, rotation=20, ha="right")
    axes.set_ylim(0, 1)
    axes.set_ylabel("mean IoU over ROIs")
    axes.set_xlabel("longer side of the box in the image")
    axes.set_title("IoU by size of the person (numbers: ROIs)")
    axes.legend()
    save_figure(figure, path)
