"""Tests of roiseg.train.schedule and roiseg.train.average: numbers by hand, ends, and curves that never turn."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from roiseg.train.average import WeightAverage
from roiseg.train.schedule import warmup_cosine


def rates(total: int, warmup: int, peak: float = 0.1, low: float = 0.001) -> list[float]:
    return [warmup_cosine(step, total=total, warmup=warmup, peak=peak, low=low) for step in range(total)]


def test_written_out() -> None:
    expected = [0.05, 0.1, 0.1, 0.1 * (1 + math.sqrt(0.5)) / 2, 0.05, 0.1 * (1 - math.sqrt(0.5)) / 2, 0.0]
    assert rates(7, 2, low=0.0) == pytest.approx(expected)


def test_without_warmup_it_starts_at_the_peak() -> None:
    assert rates(5, 0)[0] == 0.1


@given(total=st.integers(3, 400), share=st.floats(0, 0.6))
def test_climbs_then_falls_and_ends_at_the_minimum(total: int, share: float) -> None:
    warmup = int(total * share)
    found = rates(total, warmup)
    assert all(0 < rate <= 0.1 * (1 + 1e-12) for rate in found)
    assert all(before < after for before, after in pairwise(found[:warmup]))
    falling = found[warmup:]
    assert all(before > after for before, after in pairwise(falling))
    if total - warmup > 1:
        assert found[-1] == pytest.approx(0.001)


def test_past_the_end_it_stays_at_the_minimum() -> None:
    """PyTorch's cosine climbs again (spec 14.3)."""
    assert [warmup_cosine(step, total=10, warmup=2, peak=0.1, low=0.01) for step in range(9, 40)] == pytest.approx([0.01] * 31)


def test_warmup_of_the_whole_run() -> None:
    assert rates(4, 4) == pytest.approx([0.025, 0.05, 0.075, 0.1])


def test_a_longer_run_has_the_same_warmup_and_falls_later() -> None:
    short, long = rates(20, 5), rates(40, 5)
    assert short[:6] == long[:6]
    assert all(first < second for first, second in zip(short[6:], long[6:20], strict=True))
    assert long[-1] == pytest.approx(short[-1])


# --- averaged weights ---


def linear(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def value_of(average: WeightAverage) -> float:
    return float(average.head.state_dict()["weight"])


def test_average_by_hand() -> None:
    average = WeightAverage(linear(0.0), 0.5)
    seen = []
    for step in range(20):
        average.update(linear(1.0), step)
        seen.append(value_of(average))
    assert seen[0] == pytest.approx(0.9)  # the first step keeps 1 / 10
    assert seen[1] == pytest.approx(1 - 0.1 * 2 / 11)
    assert seen[-1] == pytest.approx(1, abs=1e-4)
    late = WeightAverage(linear(0.0), 0.5)
    late.update(linear(1.0), 1000)
    assert value_of(late) == pytest.approx(0.5)


def test_average_of_nothing_copies() -> None:
    average = WeightAverage(linear(3.0), 0.0)
    average.update(linear(-2.0), 500)
    assert value_of(average) == -2


def test_average_leaves_the_head_alone_and_takes_its_buffers() -> None:
    head = nn.BatchNorm1d(2)
    average = WeightAverage(head, 0.9)
    head(torch.randn(8, 2))
    before = {name: value.clone() for name, value in head.state_dict().items()}
    average.update(head, 0)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert torch.equal(average.head.state_dict()["running_mean"], before["running_mean"])
    assert not average.head.training
    assert head.training
