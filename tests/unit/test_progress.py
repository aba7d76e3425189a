"""Tests of roiseg.progress: a log gets lines with rate and time left, a terminal gets a bar."""

import io
import logging
import sys

import pytest
from rich.console import Console

from roiseg import progress as module
from roiseg.progress import progress


class Clock:
    """Stands in for the `time` module; advanced by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(module, "time", fake)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    return fake


def test_log_names_count_rate_and_time_left(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="roiseg.progress")
    with progress("extract", 100) as ticker:
        clock.now += 5
        ticker(10)
        assert not caplog.messages, "a line comes only every ten seconds"
        clock.now += 5
        ticker(10, "read 3 s")
        assert caplog.messages == ["extract read 3 s 20/100, 2.0/s, 40 s left"]
        clock.now += 9
        ticker(60)
        clock.now += 1
        ticker(20)
    assert caplog.messages[1:] == ["extract 100/100, 5.0/s, 0 s left"]


def test_log_before_the_first_item_is_done_does_not_divide_by_zero(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="roiseg.progress")
    with progress("extract", 4) as ticker:
        clock.now += 11
        ticker(0, "loading the model")
    assert caplog.messages == ["extract loading the model 0/4, 0.0/s, unknown time left"]


def test_log_of_nothing_to_do(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="roiseg.progress")
    with progress("extract", 0) as ticker:
        ticker(0)
    assert caplog.messages == ["extract 0/0, 0.0/s, unknown time left"]
    assert clock.now == 100


def test_terminal_shows_a_bar_with_count_and_rate(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="roiseg.progress")
    screen = io.StringIO()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(module, "CONSOLE", Console(file=screen, force_terminal=True, width=160))
    with progress("train", 3) as ticker:
        ticker()
        ticker(2, "loss 0.5")
    shown = screen.getvalue()
    assert "train loss 0.5" in shown
    assert "3/3" in shown
    assert "/s" in shown
    assert not caplog.messages
