"""Files that are whole or absent: write aside, rename.

What is aside has one name for each file, so that the next write takes the place of what a killed one left there.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Only for the name of a type: it takes a second to import, and `roiseg --help` comes through here.
    import pandas as pd


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, then rename it there, so that no reader ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.partial")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any], *, indent: int | None = 2) -> None:
    """JSON with a stable byte form: keys as given, no NaN, a newline at the end."""
    write_bytes(path, (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode())


def write_parquet(path: Path, table: "pd.DataFrame", rows_per_group: int | None = None) -> None:
    """Parquet with a stable byte form (pyarrow writes no times).

    Args:
        path: file to write.
        table: its contents.
        rows_per_group: rows that are read and decompressed together; None: as many as pyarrow likes. Small groups come without the
            statistics that a search would use, which would be larger than the rest of the file's footer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.partial")
    try:
        table.to_parquet(
            aside,
            index=False,
            engine="pyarrow",
            compression="zstd",
            row_group_size=rows_per_group,
            write_statistics=rows_per_group is None,
        )
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` only when the block ends well."""
    aside = path.with_name(f"{path.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        shutil.rmtree(path, ignore_errors=True)
        aside.replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """Hex SHA-256 of a value's canonical JSON (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()
