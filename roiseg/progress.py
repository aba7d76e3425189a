"""Progress of long work: how much is done, how fast, and how long it will take."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

logger = logging.getLogger(__name__)

CONSOLE = Console(stderr=True)

LOG_EVERY_S = 10.0
"""Seconds between two lines where the output is a file rather than a terminal."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "")


class Ticker:
    """Counts finished items, and tells a terminal (a bar) or a log (a line now and then) about it."""

    def __init__(self, label: str, total: int, bar: Progress | None) -> None:
        self._label, self._total, self._bar = label, total, bar
        self._task = bar.add_task(label, total=total) if bar else None
        self._done, self._start = 0, time.monotonic()
        self._last = self._start

    def __call__(self, count: int = 1, note: str = "") -> None:
        """`count` more items are done; `note` is shown beside the label."""
        self._done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, description=f"{self._label} {note}".rstrip())
            return
        now = time.monotonic()
        if now - self._last >= LOG_EVERY_S or self._done == self._total:
            self._last = now
            rate = self._done / max(now - self._start, 1e-9)
            left = f"{(self._total - self._done) / rate:.0f} s" if rate > 0 else "unknown time"
            label = f"{self._label} {note}".rstrip()
            logger.info("%s %d/%d, %.1f/s, %s left", label, self._done, self._total, rate, left)


@contextmanager
def progress(label: str, total: int) -> Iterator[Ticker]:
    """A ticker for `total` items under `label`."""
    if not sys.stderr.isatty():
        yield Ticker(label, total, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=CONSOLE) as bar:
        yield Ticker(label, total, bar)
