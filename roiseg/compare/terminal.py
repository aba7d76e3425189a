"""A comparison on a terminal, from 80 columns on."""

from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from roiseg.compare.comparison import Comparison
from roiseg.compare.tables import Block, impacts_block, long_figures, runs_block, settings_block, strata_block


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
            console.print(_table(block))
            if block.remark:
                console.print(Text(block.remark, style="dim"))
            console.print()
    for note in comparison.notes:
        console.print(Text(f"note: {note}"))


def _table(block: Block) -> Table:
    """Numbers keep their width; names, which may be long, share what is left."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in block.columns:
        justify: Literal["left", "right"] = "right" if column.kind == "number" else "left"
        table.add_column(Text(column.title), justify=justify, overflow="fold", no_wrap=column.kind != "name")
    for row in block.rows:
        table.add_row(*(Text(cell, style="bold" if cell.endswith("*") else "") for cell in row))
    return table
