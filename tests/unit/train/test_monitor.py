"""Tests of roiseg.train.monitor: numbers by hand, verdicts at their borders, words."""

import json

import pytest

from roiseg.train.monitor import Verdict, report_lines, verdict_of, weight_report


def rows_of(*values: float, name: str = "weight_ce") -> list[dict[str, float]]:
    return [{"epoch": epoch, "train_total": 1.0, name: value} for epoch, value in enumerate(values, start=1)]


def test_report_by_hand() -> None:
    """Deviations of 1, 2, 3 and 6 from their mean of 3 are -2, -1, 0 and 3: a variance of 14 / 4."""
    assert weight_report(rows_of(1.0, 2.0, 3.0, 6.0)) == {
        "weight_ce_mean": 3.0,
        "weight_ce_std": 1.870829,
        "weight_ce_cv": 0.62361,
        "weight_ce_verdict": 2,
    }


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        pytest.param((0.8, 1.2), 0, id="CV 0.2 is still OK"),
        pytest.param((0.79, 1.21), 1, id="CV 0.21"),
        pytest.param((0.5, 1.5), 1, id="CV 0.5 is still caution"),
        pytest.param((0.49, 1.51), 2, id="CV 0.51"),
        pytest.param((0.1, 0.1, 0.1), 0, id="constant"),
        pytest.param((0.0, 0.0), 0, id="always 0"),
        pytest.param((-1.0, 1.0), 2, id="around 0"),
        pytest.param((-1.0, -1.1), 0, id="negative"),
        pytest.param((3.0,), 0, id="one epoch"),
    ],
)
def test_verdicts(values: tuple[float, ...], verdict: int) -> None:
    report = weight_report(rows_of(*values))
    assert report["weight_ce_verdict"] == verdict
    json.dumps(report, allow_nan=False)


def test_borders() -> None:
    assert [verdict_of(value) for value in (0.0, 0.2, 0.2001, 0.5, 0.5001)] == [
        Verdict.OK,
        Verdict.OK,
        Verdict.CAUTION,
        Verdict.CAUTION,
        Verdict.UNSTABLE,
    ]


def test_a_weight_counts_in_the_epochs_that_have_it() -> None:
    rows = [*rows_of(1.0, 1.0), {"epoch": 3, "weight_ce": 4.0, "weight_contour": 0.5}]
    report = weight_report(rows)
    assert (report["weight_ce_mean"], report["weight_contour_mean"], report["weight_contour_std"]) == (2.0, 0.5, 0.0)


def test_nothing_to_report() -> None:
    assert weight_report([]) == weight_report([{"epoch": 1, "train_total": 1.0}]) == {}
    assert report_lines({}) == []


def test_words() -> None:
    rows = [{"epoch": epoch, "weight_ce": 1.0, "weight_dice": value} for epoch, value in enumerate((1.0, 2.0, 3.0, 6.0))]
    assert report_lines(weight_report(rows)) == [
        "weight_ce: mean 1.0000, std 0.0000, CV 0.00: ok",
        "weight_dice: mean 3.0000, std 1.8708, CV 0.62: unstable",
    ]
