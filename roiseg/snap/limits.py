"""What one request, and all of them together, may take of the service's memory and time."""

import threading
from dataclasses import dataclass, fields

from roiseg.errors import ParamsError, RequestError

RETRY_S = 1
"""Seconds after which a request may come again that found the service full: a box takes milliseconds."""


@dataclass(frozen=True)
class Limits:
    """Limits of the service; all must be positive.

    Attributes:
        body_bytes: of one request, and of one image file.
        held_bytes: of all bodies that are being read, wait, or are worked on.
        pixels: of one image, which is known before it is decoded.
        boxes: of one request.
        queue: requests that wait or are worked on.
        results: finished jobs that are kept for those who ask; the oldest go first.
        result_s: seconds that a finished job is kept.
        timeout_s: seconds to read a request, and then to answer it.
        connections: open at once.
    """

    body_bytes: int
    held_bytes: int
    pixels: int
    boxes: int
    queue: int
    results: int
    result_s: float
    timeout_s: float
    connections: int

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value > 0:
                raise ParamsError(f"limit {item.name} is {value:g}, expected more than 0; raise it")
        if self.results < self.queue:
            raise ParamsError(
                f"limit results is {self.results}, expected at least that of the queue ({self.queue}): results would be forgotten "
                "before anybody could ask; raise the one or lower the other"
            )
        if self.held_bytes < self.body_bytes:
            raise ParamsError(
                f"limit held_bytes is {self.held_bytes}, expected at least that of one body ({self.body_bytes}): no such body "
                "would ever be read; raise the one or lower the other"
            )


class Budget:
    """Bytes that all requests together may hold; used from the event loop and the worker."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes that requests hold now."""
        return self._held

    def ticket(self) -> "Ticket":
        """A request's share of the budget, empty at first."""
        return Ticket(self)

    def take(self, count: int) -> None:
        """Hold more bytes.

        Raises:
            RequestError: there is no room; nobody waits for some, because those who hold it may wait for each other.
        """
        with self._lock:
            if self._held + count > self._limit:
                raise RequestError(
                    f"the service holds {self._held} bytes of requests and may hold {self._limit}; send this one again later",
                    status=429,
                    code="full",
                    retry_s=RETRY_S,
                )
            self._held += count

    def give(self, count: int) -> None:
        """Hold fewer bytes."""
        with self._lock:
            self._held -= count


class Ticket:
    """What one request holds of a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._count = 0

    def take(self, count: int) -> None:
        """Hold more bytes; see `Budget.take`."""
        self._budget.take(count)
        self._count += count

    def release(self) -> None:
        """Hold none any more; once is enough, twice does no harm."""
        count, self._count = self._count, 0
        self._budget.give(count)
