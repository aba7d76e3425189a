"""Seconds that each side of a pipeline works or waits."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Sums seconds under names; safe to share between threads."""

    def __init__(self) -> None:
        """Nothing has been timed."""
        self._seconds: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the seconds that the block takes."""
        began = time.monotonic()
        try:
            yield
        finally:
            taken = int((time.monotonic() - began) * 1e6)
            with self._lock:
                self._seconds[name] += taken

    @property
    def seconds(self) -> dict[str, float]:
        """Name -> seconds, in the order in which the names first came."""
        with self._lock:
            return {name: micros / 1e6 for name, micros in self._seconds.items()}
