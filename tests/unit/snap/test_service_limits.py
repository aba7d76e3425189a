"""Tests of roiseg.snap.limits and jobs: time and memory end somewhere, and whoever must wait is told so."""

import gc
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import psutil
import pytest
from snap_service_factory import LIMITS, Answer, base64_text, encoded_image, running, snap_body, until

from roiseg.errors import ParamsError, RequestError
from roiseg.snap.jobs import Jobs
from roiseg.snap.limits import Budget

MIB = 1 << 20


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(clock: Clock) -> Iterator[Jobs]:
    made = Jobs(replace(LIMITS, queue=3, results=4, result_s=60.0, timeout_s=10.0), clock)
    yield made
    made.stop()


def nothing() -> None:
    """Nobody minds."""


def test_full_queue_is_refused_and_taken_up_again() -> None:
    with running(queue=2) as service:
        service.snapper.hold.clear()
        places = [service.call("POST", "/v1/snap", snap_body()).headers["location"] for _ in range(2)]
        for path in ("/v1/snap", "/v1/snap?wait=1"):
            full = service.call("POST", path, snap_body())
            assert (full.status, full.headers["retry-after"]) == (429, "1")
            assert full.error == "queue_full: 2 requests wait already, as many as may; send this one again later"
        assert service.call("GET", "/healthz").json["unfinished"] == 2
        service.snapper.hold.set()
        until(lambda: all(service.call("GET", place).json["status"] == "done" for place in places))
        assert service.snap(snap_body()).status == 200


def test_late_answers_are_504_and_the_service_goes_on() -> None:
    with running(timeout_s=0.3) as service:
        service.snapper.hold.clear()
        place = service.call("POST", "/v1/snap", snap_body()).headers["location"]
        late = service.snap(snap_body())
        assert (late.status, late.headers["retry-after"]) == (504, "1")
        assert late.error.startswith("timeout: no answer within 0.3 s")
        failed = service.call("GET", place).json
        assert (failed["status"], failed["error"]["code"]) == ("failed", "timeout")
        stuck = service.call("GET", "/healthz")
        assert (stuck.status, stuck.json["status"]) == (503, "stuck")
        service.snapper.hold.set()
        until(lambda: service.service.jobs.unfinished == 0)
        # What it was at came to an end, and doesn't count any more; what waited was never begun.
        assert service.snapper.count == 1
        assert service.call("GET", place).json == failed
        assert service.snap(snap_body()).status == 200
        assert service.service.budget.held == 0


def test_body_that_does_not_arrive_is_408() -> None:
    with (
        running(timeout_s=0.3) as service,
        closing(socket.create_connection(("127.0.0.1", service.port), timeout=10)) as connection,
    ):
        connection.sendall(b"POST /v1/snap HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        assert connection.recv(1 << 16).split(b" ")[1] == b"408"
        until(lambda: service.service.budget.held == 0)


def test_client_that_goes_away_leaves_nothing() -> None:
    with running() as service:
        for _ in range(5):
            with closing(socket.create_connection(("127.0.0.1", service.port), timeout=10)) as connection:
                connection.sendall(
                    b"POST /v1/snap HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
                )
        until(lambda: service.service.budget.held == 0)
        assert service.snap(snap_body()).status == 200


def test_bodies_together_have_a_limit() -> None:
    with running(body_bytes=MIB, held_bytes=2 * MIB) as service:
        service.snapper.hold.clear()
        large = snap_body(image=base64_text(encoded_image() + bytes(700_000) + b"IEND\xaeB`\x82"))
        answers = [service.call("POST", "/v1/snap", large) for _ in range(3)]
        assert [answer.status for answer in answers] == [202, 202, 429]
        assert answers[2].error.startswith("full: the service holds")
        service.snapper.hold.set()
        until(lambda: service.service.budget.held == 0)
        assert service.snap(snap_body()).status == 200


def test_memory_of_a_burst_of_large_bodies_is_bounded() -> None:
    part = bytes(MIB // 4)

    def large() -> Iterator[bytes]:
        yield b'{"boxes": [[1, 1, 5, 5]], "image": "'
        for _ in range(15):
            yield part
        yield b'"}'

    with running(body_bytes=4 * MIB, held_bytes=12 * MIB) as service, ThreadPoolExecutor(40) as pool:
        service.snap(snap_body())
        gc.collect()
        process, done, most = psutil.Process(), threading.Event(), 0
        before = process.memory_info().rss

        def watch() -> None:
            nonlocal most
            while not done.wait(0.005):
                most = max(most, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        answers: list[Answer] = list(pool.map(lambda _: service.snap(large()), range(80)))
        done.set()
        watcher.join()
        assert {answer.status for answer in answers} <= {400, 422, 429}
        assert 429 in {answer.status for answer in answers}
        # Without a limit to all of them it is 200 MiB.
        assert most - before < 100 * MIB
        assert service.service.budget.held == 0
        assert service.snap(snap_body()).status == 200


def test_too_many_connections_are_refused() -> None:
    with running(connections=2) as service:
        idle = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(3)]
        try:
            time.sleep(0.05)
            with closing(service.connect()) as connection:
                connection.request("GET", "/healthz")
                assert connection.getresponse().status == 503
        finally:
            for connection_idle in idle:
                connection_idle.close()
        until(lambda: service.call("GET", "/healthz").status == 200)


def test_shutdown_finishes_what_was_begun_and_fails_what_waits() -> None:
    with running() as service:
        service.snapper.hold.clear()
        service.call("POST", "/v1/snap", snap_body())
        service.call("POST", "/v1/snap", snap_body())
        until(service.snapper.entered.is_set)
        jobs = list(service.service.jobs._jobs.values())
        stopper = threading.Thread(target=service.service.jobs.stop)
        stopper.start()
        until(lambda: jobs[1].error is not None)
        service.snapper.hold.set()
        stopper.join()
        assert jobs[0].result is not None
        assert (jobs[1].error and jobs[1].error.code) == "shutting_down"
        refused = service.snap(snap_body())
        assert (refused.status, refused.error) == (503, "shutting_down: the service is shutting down")
        assert service.service.budget.held == 0


def test_results_are_kept_for_a_while(jobs: Jobs, clock: Clock) -> None:
    job = jobs.submit(lambda: {"a": 1}, nothing)
    job.settled.result(10)
    clock.now = 60.0
    assert jobs.get(job.id).result == {"a": 1}
    clock.now = 60.1
    with pytest.raises(RequestError, match=r"no job '.+'; results are kept for 60 s, and no more than 4 of them") as caught:
        jobs.get(job.id)
    assert caught.value.status == 404
    assert jobs.kept == 0


def test_oldest_results_go_first(jobs: Jobs, clock: Clock) -> None:
    made = []
    for number in range(6):
        clock.now = number
        made.append(jobs.submit(lambda: {}, nothing))
        made[-1].settled.result(10)
    with pytest.raises(RequestError, match="no job"):
        jobs.get(made[1].id)
    assert [jobs.get(job.id) for job in made[2:]] == made[2:]
    assert jobs.kept == 4


def test_late_job_frees_its_work_while_it_waits(jobs: Jobs, clock: Clock) -> None:
    class Large:
        """An image."""

    image, begun, hold, freed = Large(), threading.Event(), threading.Event(), []
    gone = weakref.ref(image)

    def slow() -> dict[str, object]:
        begun.set()
        return {"done": hold.wait(20)}

    jobs.submit(slow, nothing)
    assert begun.wait(10)
    waiting = jobs.submit(lambda held=image: {"image": held}, lambda: freed.append(1))  # type: ignore[misc]
    del image
    clock.now = 10.1
    assert jobs.is_late
    assert jobs.get(waiting.id).error is not None
    gc.collect()
    assert gone() is None
    hold.set()
    until(lambda: jobs.unfinished == 0)
    assert freed == [1]
    assert not jobs.is_late


def test_failed_job_keeps_nothing_of_its_work(jobs: Jobs) -> None:
    class Large:
        """An image."""

    def fail(image: Large) -> dict[str, str]:
        raise RequestError(f"no {type(image).__name__}", status=418, code="teapot", retry_s=3)

    image = Large()
    gone = weakref.ref(image)
    job = jobs.submit(lambda held=image: fail(held), nothing)  # type: ignore[misc]
    del image
    job.settled.result(10)
    error = jobs.get(job.id).error
    assert error is not None
    assert (str(error), error.status, error.code, error.retry_s) == ("no Large", 418, "teapot", 3)
    until(lambda: bool(gc.collect()) or gone() is None)
    assert gone() is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"boxes": 0}, "limit boxes is 0, expected more than 0"),
        ({"timeout_s": float("nan")}, "limit timeout_s is nan, expected more than 0"),
        ({"held_bytes": 5}, "limit held_bytes is 5, expected at least that of one body"),
        ({"results": 1}, "limit results is 1, expected at least that of the queue"),
    ],
)
def test_limits_that_would_serve_nobody(change: dict[str, float], text: str) -> None:
    with pytest.raises(ParamsError, match=text):
        replace(LIMITS, **change)  # type: ignore[arg-type]


def test_budget_is_given_back_once() -> None:
    budget = Budget(10)
    first, second = budget.ticket(), budget.ticket()
    first.take(6)
    with pytest.raises(RequestError, match="holds 6 bytes of requests and may hold 10"):
        second.take(5)
    second.take(4)
    first.release()
    first.release()
    assert budget.held == 4
    second.release()
    assert budget.held == 0
