"""Tests of roiseg.distill.temperature: the seed's three curves."""

import math

import pytest

from roiseg.distill.temperature import TemperatureParams, temperature_at
from roiseg.errors import ParamsError


def params(curve: str, start: float = 3.0, end: float = 1.0) -> TemperatureParams:
    return TemperatureParams.parse({"start": start, "end": end, "curve": curve}, "distill.temperature")


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("linear", [4, 3.25, 2.5, 1.75, 1]),
        ("cosine", [4, 1 + 1.5 * (1 + math.sqrt(0.5)), 2.5, 1 + 1.5 * (1 - math.sqrt(0.5)), 1]),
        ("exponential", [4, 4**0.75, 2, 4**0.25, 1]),
    ],
)
def test_five_epochs_from_4_to_1(curve: str, expected: list[float]) -> None:
    found = [temperature_at(params(curve, 4.0), epoch / 4) for epoch in range(5)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("curve", ["linear", "cosine", "exponential"])
def test_both_ends_and_between(curve: str) -> None:
    """Falling, as the seed's; or rising, where somebody wants that."""
    for start, end in ((3.0, 1.0), (10.0, 1.0), (1.0, 4.0)):
        found = [temperature_at(params(curve, start, end), epoch / 49) for epoch in range(50)]
        assert (found[0], found[-1]) == pytest.approx((start, end))
        assert found == sorted(found, reverse=start > end)


@pytest.mark.parametrize("curve", ["linear", "cosine", "exponential"])
def test_constant_and_single_epoch(curve: str) -> None:
    assert {temperature_at(params(curve, 3.0, 3.0), epoch / 7) for epoch in range(8)} == {3.0}
    assert temperature_at(params(curve), 0.0) == 3.0


def test_params_are_checked() -> None:
    with pytest.raises(
        ParamsError, match=r"distill\.temperature\.curve: value is 'step'; input should be 'linear', 'cosine' or 'exp"
    ):
        params("step")
    with pytest.raises(ParamsError, match=r"distill\.temperature\.end: value is 0\.0"):
        params("linear", 3.0, 0.0)
