"""A comparison on a terminal, from 80 columns on."""

from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from roiseg.compare.comparison import Comparison
from roiseg.compare.tables import Block, impacts_block, long_figures, runs_block, settings_block, shortened, strata_block

GAP = 2
"""Columns of the terminal between those of a table."""

SHORTEST = 10
"""Letters that a label keeps on however narrow a terminal."""


def show(comparison: Comparison, console: Console) -> None:
    """Print all tables."""
    blocks = [
        runs_block(comparison),
        *long_figures(comparison),
        strata_block(comparison),
        settings_block(comparison),
        impacts_block(comparison),
    ]
    for block in blocks:
        if block is not None:
            console.print(Text(block.title, style="bold"))
            console.print(_table(block, console.width))
            if block.remark:
                console.print(Text(block.remark, style="dim"))
            console.print()
    for note in comparison.notes:
        console.print(Text(f"note: {note}"))


def _table(block: Block, width: int) -> Table:
    """Numbers and words keep their width, labels are cut to what is left, names are folded."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    widths = [max(map(len, cells)) for cells in zip([column.title for column in block.columns], *block.rows, strict=True)]
    kept = [own for own, column in zip(widths, block.columns, strict=True) if column.kind != "label"]
    room = max(width - sum(kept) - GAP * len(widths), SHORTEST)
    for column in block.columns:
        justify: Literal["left", "right"] = "right" if column.kind == "number" else "left"
        table.add_column(Text(column.title), justify=justify, overflow="fold", no_wrap=column.kind != "name")
    for row in block.rows:
        cells = (shortened(cell, room) if column.kind == "label" else cell for column, cell in zip(block.columns, row, strict=True))
        table.add_row(*(Text(cell, style="bold" if cell.endswith("*") else "") for cell in cells))
    return table
