"""Work that one thread does in turn, and whose results wait to be asked for: a bounded number, for a bounded time."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from roiseg.errors import BoxError, ImageReadError, PixelsError, RequestError
from roiseg.snap.limits import RETRY_S, Limits

logger = logging.getLogger(__name__)

Result = Mapping[str, Any]
"""What becomes the JSON of an answer."""

Work = Callable[[], Result]


class Job:
    """One request's work; all but `id` and `settled` is for `Jobs` to write.

    Attributes:
        id: nobody guesses it.
        deadline: on the clock of `Jobs`.
        work: what is to be done; None once it was taken up or given up, so that its image is freed.
        settled: done as soon as there is a result or an error; holds nothing.
        result: None while it is pending, and where it failed.
        error: why it failed.
        settled_at: on the clock of `Jobs`.
    """

    def __init__(self, work: Work, deadline: float) -> None:
        self.id = secrets.token_urlsafe(16)
        self.deadline = deadline
        self.work: Work | None = work
        self.settled: Future[None] = Future()
        self.result: Result | None = None
        self.error: RequestError | None = None
        self.settled_at: float | None = None


class Jobs:
    """A queue with one worker: onnxruntime's session and the image it was given belong to a single thread.

    A job whose time is over has failed, whatever comes of it: one that waits isn't begun any more, and the result of one that is
    being worked on is thrown away.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the worker.

        Args:
            limits: `queue`, `results`, `result_s` and `timeout_s` are used.
            clock: seconds.
        """
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._unfinished = 0
        self._current: Job | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="snapper")

    @property
    def unfinished(self) -> int:
        """Jobs that wait or are worked on."""
        return self._unfinished

    @property
    def kept(self) -> int:
        """Jobs that can be asked about."""
        return len(self._jobs)

    @property
    def is_late(self) -> bool:
        """Whether the worker is at a job whose time is over."""
        current = self._current
        return current is not None and self._clock() > current.deadline

    def check_room(self) -> None:
        """See whether a job would be taken.

        Raises:
            RequestError: as many wait as may.
        """
        if self._unfinished >= self._limits.queue:
            raise RequestError(
                f"{self._unfinished} requests wait already, as many as may; send this one again later",
                status=429,
                code="queue_full",
                retry_s=RETRY_S,
            )

    def submit(self, work: Work, on_end: Callable[[], None]) -> Job:
        """Put work at the end of the queue.

        Args:
            work: done in the worker's thread.
            on_end: called as soon as the work needs nothing any more: done, failed, or not to be done.

        Raises:
            RequestError: see `check_room`, or the service is ending; `on_end` isn't called.
        """
        with self._lock:
            self._sweep()
            self.check_room()
            job = Job(work, self._clock() + self._limits.timeout_s)
            try:
                future = self._executor.submit(self._do, job)
            except RuntimeError as error:
                raise RequestError("the service is shutting down", status=503, code="shutting_down", retry_s=RETRY_S) from error
            self._jobs[job.id] = job
            self._unfinished += 1
        future.add_done_callback(partial(self._ended, job, on_end))
        return job

    def get(self, job_id: str) -> Job:
        """The job of an id.

        Raises:
            RequestError: there is none, or no longer.
        """
        with self._lock:
            self._sweep()
            job = self._jobs.get(job_id)
        if job is None:
            raise RequestError(
                f"no job {job_id[:40]!r}; results are kept for {self._limits.result_s:g} s, and no more than "
                f"{self._limits.results} of them",
                status=404,
                code="no_job",
            )
        return job

    def give_up(self, job: Job) -> None:
        """Its time is over."""
        with self._lock:
            self._settle(job, None, self._too_late())

    def forget(self, job: Job) -> None:
        """Nobody will ask for it."""
        with self._lock:
            self._jobs.pop(job.id, None)

    def stop(self) -> None:
        """End the worker after the job it is at; those that wait fail."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _do(self, job: Job) -> Result:
        """In the worker: one job."""
        with self._lock:
            self._sweep()
            work, job.work = job.work, None
            if work is None:
                raise self._too_late()
            self._current = job
        try:
            return work()
        finally:
            self._current = None

    def _ended(self, job: Job, on_end: Callable[[], None], future: "Future[Result]") -> None:
        """The worker is through with a job, or was ended before it came to it."""
        result: Result | None
        error: RequestError | None
        if future.cancelled():
            result, error = None, RequestError("the service was shut down", status=503, code="shutting_down", retry_s=RETRY_S)
        else:
            failure = future.exception()
            result, error = (future.result(), None) if failure is None else (None, as_refusal(failure))
        on_end()
        with self._lock:
            self._unfinished -= 1
            self._settle(job, result, error)

    def _settle(self, job: Job, result: Result | None, error: RequestError | None) -> None:
        """Under the lock: the first to settle a job has the last word."""
        if job.settled_at is not None:
            return
        job.work, job.result, job.error, job.settled_at = None, result, error, self._clock()
        job.settled.set_result(None)

    def _sweep(self) -> None:
        """Under the lock: give up what is late, forget what is old or too much."""
        now = self._clock()
        for job in self._jobs.values():
            if job.settled_at is None and now > job.deadline:
                self._settle(job, None, self._too_late())
        settled = sorted((job for job in self._jobs.values() if job.settled_at is not None), key=lambda job: job.settled_at or 0.0)
        too_many = len(settled) - self._limits.results
        for place, job in enumerate(settled):
            if place < too_many or now - (job.settled_at or 0.0) > self._limits.result_s:
                del self._jobs[job.id]

    def _too_late(self) -> RequestError:
        return RequestError(
            f"no answer within {self._limits.timeout_s:g} s; send fewer boxes or smaller images, or try again later",
            status=504,
            code="timeout",
            retry_s=RETRY_S,
        )


def as_refusal(failure: BaseException) -> RequestError:
    """What the one who asked is told of an exception: all of what concerns the request, nothing of what doesn't.

    Always a new one: the traceback of what was raised would keep the request's image in memory for as long as the job is kept.
    """
    if isinstance(failure, RequestError):
        return RequestError(str(failure), status=failure.status, code=failure.code, retry_s=failure.retry_s)
    if isinstance(failure, BoxError):
        return RequestError(str(failure), code="box")
    if isinstance(failure, ImageReadError | PixelsError):
        return RequestError(str(failure), code="image")
    logger.error("a request failed", exc_info=failure)
    return RequestError("the service failed at this request; its log says why", status=500, code="internal")
