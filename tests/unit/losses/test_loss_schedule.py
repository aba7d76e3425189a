"""Tests of roiseg.losses.schedule: ends, middle, and both curves."""

import pytest

from roiseg.losses.schedule import Curve, between


@pytest.mark.parametrize(
    ("curve", "expected"), [("linear", [4.0, 3.25, 2.5, 1.75, 1.0]), ("cosine", [4.0, 3.5606602, 2.5, 1.4393398, 1.0])]
)
def test_written_out(curve: Curve, expected: list[float]) -> None:
    assert [between(4.0, 1.0, share, curve) for share in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx(expected)


@pytest.mark.parametrize("curve", ["linear", "cosine"])
def test_ends_are_exact(curve: Curve) -> None:
    assert between(0.1, 0.7, 0.0, curve) == 0.1
    assert between(0.1, 0.7, 1.0, curve) == 0.7
