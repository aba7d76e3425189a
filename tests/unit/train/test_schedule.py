"""Tests of roiseg.train.schedule and roiseg.train.average: numbers by hand, ends, and curves that never turn."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from trainer_factory import TRAIN

from roiseg.train.average import WeightAverage
from roiseg.train.params import TrainParams
from roiseg.train.schedule import Mode, Schedule, plateau_cuts, stops_early, warmup_cosine


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


# --- other schedules ---

PER_EPOCH = 4


def schedule(**changes: object) -> Schedule:
    params = TrainParams.parse({**TRAIN, "lr": 0.1, "min_lr": 0.001, "warmup_epochs": 0.0, "epochs": 200, **changes}, "train")
    return Schedule(params, PER_EPOCH, params.epochs)


def per_step(made: Schedule, epochs: int, history: Sequence[float] = ()) -> list[float]:
    return [made.rate(step, history[: step // PER_EPOCH]) for step in range(epochs * PER_EPOCH)]


def test_cosine_restarts_after_10_30_70_and_150_epochs() -> None:
    made = schedule(scheduler="cosine_restarts", restart_epochs=10, restart_factor=2)
    found = per_step(made, 200)
    jumps = [step / PER_EPOCH for step in range(1, len(found)) if found[step] > found[step - 1]]
    assert jumps == [10, 30, 70, 150]
    for start, length in ((0, 10), (10, 20), (30, 40), (70, 80)):
        for step in range(start * PER_EPOCH, (start + length) * PER_EPOCH):
            share = (step / PER_EPOCH - start) / length
            assert found[step] == pytest.approx(0.001 + 0.099 * (1 + math.cos(math.pi * share)) / 2)


def test_restarts_of_equal_length() -> None:
    found = per_step(schedule(scheduler="cosine_restarts", restart_epochs=3, restart_factor=1), 9)
    assert found[: 3 * PER_EPOCH] == pytest.approx(found[3 * PER_EPOCH : 6 * PER_EPOCH])


def test_step_by_hand() -> None:
    found = per_step(schedule(scheduler="step", step_epochs=[2, 3], decay_factor=0.1), 5)[::PER_EPOCH]
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.001])
    assert min(per_step(schedule(scheduler="step", step_epochs=[1, 2, 3], decay_factor=0.1), 5)) == 0.001, "no lower than min_lr"


def test_exponential_by_hand() -> None:
    found = per_step(schedule(scheduler="exponential", decay_factor=0.5), 4)
    assert found[::PER_EPOCH] == pytest.approx([0.1, 0.05, 0.025, 0.0125])
    assert found[1] == found[0], "it falls from epoch to epoch"


def test_none_stays() -> None:
    assert set(per_step(schedule(scheduler="none"), 5)) == {0.1}


@pytest.mark.parametrize("name", ["cosine_restarts", "step", "exponential", "plateau", "none"])
def test_warmup_is_linear_from_the_first_step(name: str) -> None:
    plain, warm = (per_step(schedule(scheduler=name, warmup_epochs=warmup), 4) for warmup in (0.0, 2.0))
    assert warm == pytest.approx([rate * min((step + 1) / 8, 1) for step, rate in enumerate(plain)])


def test_plateau_by_hand() -> None:
    figures = [0.1, 0.2, 0.2, 0.2, 0.19, 0.3, 0.3, 0.3]
    assert [plateau_cuts(figures[:count], 1, "max") for count in range(9)] == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    made = schedule(scheduler="plateau", plateau_epochs=1, decay_factor=0.1)
    assert per_step(made, 8, figures)[::PER_EPOCH] == pytest.approx([0.1] * 4 + [0.01] * 4)
    assert plateau_cuts([3.0, 2.0, 1.0, 1.0, 1.0], 1, "min") == 1


@given(values=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=30), patience=st.integers(0, 4))
def test_plateau_cuts_as_pytorch(values: list[float], patience: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=patience, threshold=1e-4)
    for value in values:
        reference.step(value)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(max(0.5 ** plateau_cuts(values, patience, "max"), 0), abs=1e-7)


@pytest.mark.parametrize(
    ("values", "patience", "mode", "stops"),
    [
        ([0.1, 0.2], 1, "max", False),
        ([0.2, 0.1], 1, "max", True),
        ([0.2, 0.1, 0.1], 3, "max", False),
        ([0.2, 0.2, 0.2], 2, "max", True),
        ([0.2, 0.1, 0.3, 0.3], 2, "max", False),
        ([0.3, 0.2, 0.25], 1, "min", True),
        ([0.3, 0.2, 0.25], None, "min", False),
        ([], 1, "max", False),
    ],
)
def test_stops_early(values: list[float], patience: int | None, mode: Mode, stops: bool) -> None:
    assert stops_early(values, patience, mode) is stops


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
