"""Charts of an evaluation: for the folder of pictures and for the report. Each is small, so that it is read on a phone too."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from roiseg.classes import BACKGROUND, CLASS_NAMES, NON_TARGET, TARGET
from roiseg.evaluate.curves import Curves, Row, Rows
from roiseg.evaluate.figures import COLOURS, INK, save_figure, style, svg_text

INCH = (4.2, 3.2)
DENSE = 0.55
"""Share from which a cell of a confusion matrix is so dark that what is written in it is white."""

GREY = "#8c8c8c"
DENSE_COLOUR = "#1f5fa8"
LINES = ("-", "--", ":", "-.")
BAR_FIGURES = (("iou_target_roi", "target IoU"), ("iou_nontarget_roi", "IoU of other people"))

CONFUSIONS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "confusion": ("Confusion of all classes", (BACKGROUND, TARGET, NON_TARGET)),
    "confusion_background_target": ("Background and target", (BACKGROUND, TARGET)),
    "confusion_target_non_target": ("Target and other people", (TARGET, NON_TARGET)),
}
"""Name -> title and classes: pixels that are annotated and predicted as others aren't counted (spec 15.2)."""


@dataclass(frozen=True)
class Chart:
    """A chart, or a sentence where there is nothing to draw.

    Attributes:
        name: of its file.
        title: what it shows.
        description: how it is read, a sentence.
        draw: makes its figure, anew for each file: a figure that was laid out once is laid out a little differently the next time.
            None where `missing` says why.
        missing: a sentence; empty where there is something to draw.
    """

    name: str
    title: str
    description: str
    draw: Callable[[], Figure] | None
    missing: str = ""

    def svg(self) -> str:
        """As an element of a page; empty where there is nothing to draw."""
        return svg_text(self.draw(), self.name, f"{self.title}. {self.description}") if self.draw else ""


def draw_charts(curves: Curves, confusion: NDArray[np.int64]) -> list[Chart]:
    """All charts, in the order in which they are read.

    Args:
        curves: their points.
        confusion: (K, K) pixel counts over all ROIs, rows are labels.
    """
    histograms = {group: [row for row in curves.iou_histogram if row["group"] == group] for group in ("size", "crowdedness")}
    none = "There are no ROIs, so there is nothing to draw."
    plans: list[tuple[str, str, str, Rows, Callable[[Axes, Rows], None], str]] = [
        (
            "pr",
            "Precision and recall of masks",
            "Each curve is one source of boxes and one mask IoU from which a mask counts as right.",
            curves.pr,
            _draw_precision_recall,
            "There are no curves: nothing was annotated, or nothing was predicted.",
        ),
        *(
            (
                f"iou_by_{group}",
                f"Target IoU by {group}",
                "Share of the ROIs of each kind whose target IoU lies in each twentieth; the legend has their number.",
                rows,
                _draw_histogram,
                none,
            )
            for group, rows in histograms.items()
        ),
        (
            "calibration",
            "Calibration of the target probability",
            "On the dashed line what was said is what is so; below it the head is too sure. Bars show where the pixels are.",
            curves.calibration,
            _draw_calibration,
            "There are no pixels, so there is nothing to draw.",
        ),
        (
            "breakdown",
            "IoU by kind of ROI",
            "Mean over the ROIs of each kind; their number stands beside its name.",
            curves.breakdown,
            _draw_breakdown,
            none,
        ),
    ]
    charts = [_chart(name, title, text, rows, draw, missing) for name, title, text, rows, draw, missing in plans]
    return charts + [_confusion_chart(name, title, classes, confusion) for name, (title, classes) in CONFUSIONS.items()]


def _chart(name: str, title: str, text: str, rows: Rows, draw: Callable[[Axes, Rows], None], missing: str) -> Chart:
    if not rows:
        return Chart(name, title, text, None, missing)
    return Chart(name, title, text, lambda: _figure(title, lambda axes: draw(axes, rows)))


def _figure(title: str, draw: Callable[[Axes], None]) -> Figure:
    with style():
        figure = Figure(figsize=INCH, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.set_title(title)
    return figure


def _confusion_chart(name: str, title: str, classes: Sequence[int], confusion: NDArray[np.int64]) -> Chart:
    part = confusion[np.ix_(classes, classes)]
    text = "Rows are annotated, columns are predicted: pixels, and their share of the annotated class."
    if not part.sum():
        return Chart(name, title, text, None, "There are no pixels of these classes, so there is nothing to draw.")
    names = [CLASS_NAMES[label].replace("_", "-") for label in classes]
    return Chart(name, title, text, lambda: _figure(title, lambda axes: _draw_confusion(axes, part, names)))


def _draw_confusion(axes: Axes, confusion: NDArray[np.int64], names: Sequence[str]) -> None:
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    for row, column in np.ndindex(*shares.shape):
        share = float(shares[row, column])
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=DENSE_COLOUR, alpha=max(share, 0.04), edgecolor=GREY))
        shade = "#ffffff" if share > DENSE else INK
        axes.text(column, row, f"{share:.1%}\n{confusion[row, column]:,}", ha="center", va="center", color=shade)
    count = len(names)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), xlabel="predicted", ylabel="annotated")
    axes.set_xticks(range(count), names)
    axes.set_yticks(range(count), names, rotation=90, va="center")
    axes.grid(visible=False)
    axes.tick_params(length=0)


def _draw_precision_recall(axes: Axes, rows: Rows) -> None:
    """A kind of line for each source of boxes, a colour for each IoU."""
    names = [str(name).split(", ") for name in dict.fromkeys(row["curve"] for row in rows)]
    sources, ious = (list(dict.fromkeys(name[place] for name in names)) for place in (0, -1))
    for source, iou in names:
        chosen = [row for row in rows if row["curve"] == f"{source}, {iou}"]
        line, colour = LINES[sources.index(source) % len(LINES)], COLOURS[ious.index(iou) % len(COLOURS)]
        axes.plot(_column(chosen, "recall"), _column(chosen, "precision"), line, color=colour, label=f"{source}, {iou}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.16), ncols=len(sources))


def _draw_histogram(axes: Axes, rows: Rows) -> None:
    for stratum in dict.fromkeys(str(row["stratum"]) for row in rows):
        chosen = [row for row in rows if row["stratum"] == stratum]
        shares = _column(chosen, "share")
        label = f"{plain_name(stratum)} ({chosen[0]['rois']})"
        axes.stairs(shares, np.linspace(0, 1, len(shares) + 1), label=label, linewidth=1.6)
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="target IoU", ylabel="share of the ROIs")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="upper left")


def _draw_calibration(axes: Axes, rows: Rows) -> None:
    said, so, pixels = (np.array(_column(rows, name)) for name in ("probability", "share", "pixels"))
    width = 0.9 / max(len(rows), 10)
    axes.bar(said, pixels / pixels.max() * 0.25, width, color=GREY, alpha=0.4, label="pixels (tallest bar: 0.25)")
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    axes.plot(said, so, "o-", markersize=3.5, color=COLOURS[0], label="target pixels")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="predicted probability of the target", ylabel="share that is target")
    axes.legend(loc="upper left")


def _draw_breakdown(axes: Axes, rows: Rows) -> None:
    strata = list(dict.fromkeys(str(row["stratum"]) for row in rows))
    for number, (figure, label) in enumerate(BAR_FIGURES):
        values = {str(row["stratum"]): float(str(row["value"])) for row in rows if row["figure"] == figure}
        places = [place + (number - 0.5) * 0.38 for place, stratum in enumerate(strata) if stratum in values]
        axes.barh(places, [values[stratum] for stratum in strata if stratum in values], 0.36, label=label)
    counts = {str(row["stratum"]): row["rois"] for row in rows}
    axes.set_yticks(range(len(strata)), [f"{plain_name(stratum)} ({counts[stratum]})" for stratum in strata])
    axes.set(xlim=(0, 1), ylim=(len(strata) - 0.4, -0.6), xlabel="mean IoU over ROIs")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=2)


def plain_name(stratum: str) -> str:
    """A stratum as it is read: `crowdedness: under_10` is "under 10 % others"."""
    name = stratum.rpartition(": ")[2]
    words = {"none": "nobody else", "under_10": "under 10 % others", "10_to_30": "10 to 30 % others", "over_30": "over 30 % others"}
    return words.get(name, name.replace("_", " "))


def _column(rows: Sequence[Row], name: str) -> list[float]:
    return [float(str(row[name])) for row in rows]


def write_charts(folder: Path, charts: Sequence[Chart]) -> None:
    """A PNG of every chart that there is, named as the chart."""
    for chart in charts:
        if chart.draw is not None:
            save_figure(chart.draw(), folder / f"{chart.name}.png")
