"""The plot of a run (spec 16.5): losses, IoU, weights of the loss's terms and of its classes over the epochs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from roiseg.evaluate.figures import save_figure
from roiseg.train.curves import points

NAME = "training_progress.png"
PANEL_INCH = (7.2, 3.4)
COLOURS = 10
"""Colours of matplotlib before the first comes again, with another line."""
LINES = ("-", "--", ":", "-.")
CLASSES = ("background", "foreground", "target")
"""What the weights of classes have in their names; the others weigh terms of the loss."""
TITLES = {
    "loss": ("Loss", "mean over ROIs"),
    "iou": ("IoU on the validation split", "IoU"),
    "terms": ("Weights of terms", "weight"),
    "classes": ("Weights of classes", "weight"),
}

Curves = dict[str, tuple[list[int], list[float]]]


def panels(rows: Sequence[Mapping[str, float]]) -> dict[str, Curves]:
    """Panel -> curve -> its epochs and values; a panel without data is left out.

    Args:
        rows: see `roiseg.train.log.Row`.
    """
    found: dict[str, Curves] = {name: {} for name in TITLES}
    for chart, lines in points(rows).items():
        for epoch, curve, value in lines:
            panel = chart
            if chart == "weights":
                panel = "classes" if any(word in curve for word in CLASSES) else "terms"
            if panel in found:
                epochs, values = found[panel].setdefault(curve, ([], []))
                epochs.append(epoch)
                values.append(value)
    return {name: curves for name, curves in found.items() if curves}


def progress_plot(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw the panels that have data, two beside each other; nothing is written where none has.

    Args:
        rows: see `roiseg.train.log.Row`.
        path: PNG, with bytes that depend on the numbers alone.
    """
    found = panels(rows)
    if not found:
        return
    columns = min(len(found), 2)
    lines = -(-len(found) // columns)
    # A reader's own matplotlibrc must not change the bytes.
    with style.context("default"), mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(PANEL_INCH[0] * columns, PANEL_INCH[1] * lines), layout="constrained")
        places = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, (name, curves) in zip(places, found.items(), strict=False):
            _draw(axes, curves, *TITLES[name])
        for axes in places[len(found) :]:
            axes.set_axis_off()
        save_figure(figure, path)


def _draw(axes: Axes, curves: Curves, title: str, label: str) -> None:
    for number, (name, (epochs, values)) in enumerate(curves.items()):
        line = LINES[number // COLOURS % len(LINES)]
        axes.plot(epochs, values, line, marker=".", markersize=4, linewidth=1.3, label=name)
    axes.set_title(title, loc="left")
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
