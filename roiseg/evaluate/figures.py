"""How charts look, and how they become files: alike on a white page and on a dark one, with the same bytes each time."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from roiseg.files import write_bytes

INK = "#010203"
"""Text and axes. In a page this very colour becomes that of the page's text."""

COLOURS = ("#3b82c4", "#e08214", "#2f9e77", "#b565a7", "#8c8c8c", "#c9a400")
"""Of curves and bars, in order; each is seen on white and on black."""

STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": "#8c8c8c",
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.framealpha": 0,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "roiseg",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def style() -> Iterator[None]:
    """Charts that are begun within look as `STYLE` says."""
    with mpl.rc_context(STYLE):
        yield


def save_figure(figure: Figure, path: Path) -> None:
    """A PNG with stable bytes: no date, no version of the library."""
    buffer = io.BytesIO()
    with mpl.rc_context({"font.size": 9}):
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def svg_text(figure: Figure, name: str, description: str) -> str:
    """An `<svg>` element for a page: as wide as its place, text as text in the page's colour, nothing to fetch.

    Args:
        figure: begun within `style`.
        name: unlike those of the page's other charts; goes before every id.
        description: what is read out in place of the picture; without `<`, `&` and `"`.
    """
    buffer = io.StringIO()
    with style():
        FigureCanvasSVG(figure)
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # A style within would hold for the whole page; and the page's fonts are those of the machine that shows it.
    text = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    size = re.match(r'<svg[^>]*?viewBox="([^"]*)"', text)
    if size is None:
        raise ValueError(f"{name}: matplotlib wrote an SVG without a viewBox: {text[:200]}")
    head = (
        f'<svg viewBox="{size[1]}" role="img" aria-label="{description}" class="chart" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    body = text[text.index(">") + 1 :]
    return (head + body).replace(INK, "currentColor").strip()
