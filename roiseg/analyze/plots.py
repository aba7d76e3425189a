"""Plots of the data set, as PNG bytes that depend on the numbers alone."""

import io
from collections.abc import Sequence
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from roiseg.analyze.measure import ImageStats
from roiseg.analyze.summary import COVERAGE_FACTORS, coverage_table, sum_roi_pixels
from roiseg.classes import CLASS_NAMES
from roiseg.geometry import Floats

DPI = 110
SIZE_INCH = (13.0, 5.2)
CLASS_COLOURS = ("#c3c7cc", "#2b6cb0", "#e07b39")
COVERAGE_COLOURS = ("#1f5f4a", "#4fa07c", "#a9d5bd")
INK = "#20262e"

SIZE_EDGES_PX = (0, 32, 64, 128, 256, 512, np.inf)
"""Edges of the classes of ROI size (longer side); 32 is where COCO's "small" ends for a square."""

MOST_PEOPLE_SHOWN = 15
SMALLEST_SHARE_LABELLED = 0.035


def _figure(title: str) -> tuple[Figure, Axes, Axes]:
    figure = Figure(figsize=SIZE_INCH, dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=13, color=INK)
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    return figure, left, right


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Matplotlib signs its files with its version unless told not to.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def plot_classes(stats: Sequence[ImageStats]) -> bytes:
    """Share of the three classes in ROIs by their size, beside the number of people per image."""
    # A reader's own matplotlibrc must not change the bytes.
    with style.context("default"), mpl.rc_context({"font.size": 10, "text.color": INK, "axes.edgecolor": "#8a929b"}):
        rois = sum(item.people for item in stats)
        figure, left, right = _figure(f"{rois:,} people in {len(stats):,} images")
        _draw_composition(left, stats)
        _draw_people(right, np.array([item.people for item in stats], dtype=np.int64))
        return _png(figure)


def _draw_composition(axes: Axes, stats: Sequence[ImageStats]) -> None:
    longer = np.concatenate([item.roi_size for item in stats]).max(axis=1)
    pixels = np.concatenate([item.roi_pixels for item in stats])
    groups = [(longer >= low) & (longer < high) for low, high in pairwise(SIZE_EDGES_PX)]
    names = [f"{low}-{high:g}" if np.isfinite(high) else f"{low:g}+" for low, high in pairwise(SIZE_EDGES_PX)]
    counts = np.stack([*(pixels[group].sum(axis=0) for group in groups), sum_roi_pixels(stats)])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    places = np.append(np.arange(len(groups)), len(groups) + 0.4)
    base = np.zeros(len(places))
    for label, (name, colour) in enumerate(zip(CLASS_NAMES, CLASS_COLOURS, strict=True)):
        axes.bar(places, shares[:, label], bottom=base, width=0.8, color=colour, label=name.replace("_", "-"))
        ink = INK if name == "background" else "white"
        for place, share, low in zip(places, shares[:, label], base, strict=True):
            if share >= SMALLEST_SHARE_LABELLED:
                axes.text(place, low + share / 2, f"{100 * share:.0f} %", ha="center", va="center", color=ink, fontsize=9)
        base = base + shares[:, label]
    numbers = [*(int(np.count_nonzero(group)) for group in groups), len(longer)]
    axes.set_xticks(places, [f"{name}\n{_short(count)}" for name, count in zip([*names, "all"], numbers, strict=True)])
    axes.set_xlabel("longer side of the ROI (image pixels), number of ROIs")
    axes.set_ylabel("share of ROI pixels")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_title("What an ROI is made of", loc="left", fontsize=11)
    axes.legend(loc="lower left", bbox_to_anchor=(0.38, 1.0), ncols=3, frameon=False, fontsize=9, columnspacing=1.2)


def _draw_people(axes: Axes, people: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
    numbers, counts = np.unique(np.minimum(people, MOST_PEOPLE_SHOWN + 1), return_counts=True)
    bars = axes.bar(numbers, counts, width=0.85, color=CLASS_COLOURS[1])
    axes.bar_label(bars, [_short(int(count)) for count in counts], fontsize=8, padding=2, color=INK)
    last = max(int(numbers.max()), 5)
    names = [str(number) if number <= MOST_PEOPLE_SHOWN else f"{number}+" for number in range(1, last + 1)]
    axes.set_xticks(range(1, last + 1), names)
    axes.set_xlim(0.3, last + 0.7)
    axes.set_xlabel(f"people in the image (median {np.median(people):g}, mean {people.mean():.2f}, most {people.max()})")
    axes.set_ylabel("images")
    axes.margins(y=0.1)
    axes.set_title("People per image", loc="left", fontsize=11)


def plot_sizes(stats: Sequence[ImageStats], align_sizes: Sequence[int]) -> bytes:
    """Distribution of the ROIs' longer side, beside the share that each ROIAlign size covers."""
    with style.context("default"), mpl.rc_context({"font.size": 10, "text.color": INK, "axes.edgecolor": "#8a929b"}):
        sizes = np.concatenate([item.roi_size for item in stats])
        figure, left, right = _figure(f"Size of {len(sizes):,} ROIs")
        _draw_sizes(left, sizes.max(axis=1), align_sizes)
        _draw_coverage(right, sizes, align_sizes)
        return _png(figure)


def _draw_sizes(axes: Axes, longer: Floats, align_sizes: Sequence[int]) -> None:
    low = 2.0 ** np.floor(np.log2(max(float(longer.min()), 1.0)))
    high = 2.0 ** np.ceil(np.log2(max(float(longer.max()), 2 * low)))
    edges = 2.0 ** np.arange(np.log2(low), np.log2(high) + 1e-9, 0.25)
    shares = np.histogram(np.clip(longer, low, high), bins=edges)[0] / len(longer)
    axes.bar(edges[:-1], shares, width=np.diff(edges), align="edge", color=CLASS_COLOURS[1], edgecolor="white", lw=0.5)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlim(low, high)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.margins(y=0.15)
    for size in align_sizes:
        if low < size < high:
            axes.axvline(size, color=CLASS_COLOURS[2], lw=1.2, ls="--")
            axes.annotate(
                f"{size}", (size, 1), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points",
                va="top", fontsize=9, color=CLASS_COLOURS[2],
            )  # fmt: skip
    axes.set_xlabel(f"longer side (image pixels, log scale; median {np.median(longer):.0f}, mean {longer.mean():.0f})")
    axes.set_ylabel("share of ROIs")
    axes.set_title("Longer side of the ROI; dashed: ROIAlign sizes", loc="left", fontsize=11)


def _draw_coverage(axes: Axes, sizes: Floats, align_sizes: Sequence[int]) -> None:
    table = coverage_table(sizes, align_sizes)
    places = np.arange(len(align_sizes))
    width = 0.8 / len(COVERAGE_FACTORS)
    for number, (factor, colour) in enumerate(zip(COVERAGE_FACTORS, COVERAGE_COLOURS, strict=True)):
        shares = [100 * table[str(size)][f"at_most_{factor}x"] for size in align_sizes]
        offset = (number - (len(COVERAGE_FACTORS) - 1) / 2) * width
        bars = axes.bar(places + offset, shares, width=width * 0.94, color=colour, label=f"{factor} times")
        axes.bar_label(bars, [f"{share:.0f}" for share in shares], fontsize=8, padding=2, color=INK)
    axes.set_xticks(places, [f"{size}\nmean {table[str(size)]['mean_factor']:.2f}x" for size in align_sizes])
    axes.set_xlabel("ROIAlign output size (cells per side), mean down-sampling of the longer side")
    axes.set_ylabel("share of ROIs")
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20), [f"{value} %" for value in range(0, 101, 20)])
    axes.set_title("ROIs shrunk at most", loc="left", fontsize=11)
    axes.legend(loc="lower left", bbox_to_anchor=(0.28, 1.0), ncols=3, frameon=False, fontsize=9, columnspacing=1.2)


def _short(count: int) -> str:
    """A count of at most four characters."""
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1_000_000:.0f}M"
