"""A comparison in GitHub's Markdown, for a pull request."""

from collections.abc import Iterator

from roiseg.compare.comparison import Comparison
from roiseg.compare.tables import Block, impacts_block, settings_block, strata_block, wide_changes, wide_figures


def markdown(comparison: Comparison) -> str:
    """All tables, the figures first; ends with a newline."""
    blocks = [
        wide_figures(comparison),
        wide_changes(comparison),
        strata_block(comparison),
        settings_block(comparison),
        impacts_block(comparison),
    ]
    parts = ["\n".join(_table(block)) for block in blocks if block is not None]
    notes = "\n".join(f"- {_prose(note)}" for note in comparison.notes)
    return "\n\n".join([*parts, *([f"### Notes\n\n{notes}"] if notes else [])]) + "\n"


def _table(block: Block) -> Iterator[str]:
    yield f"### {_plain(block.title)}"
    yield ""
    yield _row([_code(column.title) if "_" in column.title else _plain(column.title) for column in block.columns])
    yield _row(["--:" if column.kind == "number" else ":--" for column in block.columns])
    for row in block.rows:
        yield _row(
            [
                _code(cell) if column.kind in ("name", "label") else _plain(cell)
                for column, cell in zip(block.columns, row, strict=True)
            ]
        )
    if block.remark:
        yield ""
        yield _plain(block.remark)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    for mark in r"\`*_|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text


def _prose(text: str) -> str:
    """Text whose commands stand in backticks already."""
    return "`".join(part if number % 2 else _plain(part) for number, part in enumerate(text.split("`")))


def _code(text: str) -> str:
    """A name as it was typed; in a table of GitHub's a bar has to be escaped even in code."""
    if not text or text == "–":
        return text
    fence = "``" if "`" in text else "`"
    gap = " " if "`" in text else ""
    return f"{fence}{gap}{text}{gap}{fence}".replace("|", "\\|")
