"""A comparison as a picture of bars with their intervals."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from roiseg.compare.comparison import Comparison
from roiseg.compare.runs import Figure
from roiseg.compare.tables import number, shortened
from roiseg.errors import UnwritableError
from roiseg.evaluate.figures import COLOURS, INK, save_figure, style

ACROSS = 3
"""Metrics side by side."""

LONGEST = 36
"""Letters of a run's name."""

BAR_INCH, HEAD_INCH, WIDTH_INCH = 0.28, 0.8, 10.0

COLOUR, BASE_COLOUR = COLOURS[0], COLOURS[4]


def draw(comparison: Comparison, path: Path) -> None:
    """Write a PNG: a panel for each metric, a bar for each run, the base in grey.

    Raises:
        UnwritableError: the file system refuses the file.
    """
    with style():
        picture = _picture(comparison)
    try:
        save_figure(picture, path)
    except OSError as error:
        raise UnwritableError(f"--chart {path}: can't be written ({error.strerror}); name a file in a folder of yours") from error


def _picture(comparison: Comparison) -> Picture:
    count, metrics = len(comparison.runs), comparison.metrics
    down, across = -(-len(metrics) // ACROSS), min(ACROSS, len(metrics))
    width = WIDTH_INCH * (across + 1) / (ACROSS + 1)
    picture = Picture(figsize=(width, down * (HEAD_INCH + BAR_INCH * max(count, 3))), layout="constrained")
    panels = picture.subplots(down, across, squeeze=False)
    names = [shortened(f"{place + 1}  {label}", LONGEST) for place, label in enumerate(comparison.labels)]
    for place, axes in enumerate(panels.flat):
        if place >= len(metrics):
            axes.set_axis_off()
            continue
        _bars(axes, [run.figure(metrics[place]) for run in comparison.runs], comparison.base)
        axes.set_title(metrics[place])
        axes.set_yticks(range(count), names if place % across == 0 else [""] * count, fontsize=8)
    picture.supxlabel("grey and dotted: the base; black: 95 % interval", fontsize=8)
    return picture


def _bars(axes: Axes, figures: Sequence[Figure | None], base: int) -> None:
    """Bars of one metric from the top, each with its interval and its value."""
    ends = [0.0]
    for place, figure in enumerate(figures):
        if figure is None:
            axes.text(0, place, " not measured", va="center", fontsize=7)
            continue
        axes.barh(place, figure.value, 0.68, color=BASE_COLOUR if place == base else COLOUR)
        end = figure.value
        if figure.low is not None and figure.high is not None:
            axes.plot([figure.low, figure.high], [place, place], color=INK, linewidth=1.2)
            end = max(end, figure.high)
        ends += [figure.value, end]
        text = axes.annotate(
            number(figure.value), (max(end, 0), place), (4, 0), textcoords="offset points", va="center", fontsize=7
        )
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    own = figures[base]
    if own is not None:
        axes.axvline(own.value, color=INK, linewidth=0.8, linestyle=":")
    # Room for the numbers at the ends of the bars.
    axes.set_xlim(min(ends) * 1.05, (max(ends) or 1.0) * 1.22)
    axes.set_ylim(len(figures) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(visible=False, axis="y")
