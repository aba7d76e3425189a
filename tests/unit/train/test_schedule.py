"""Tests of roiseg.train.schedule and roiseg.train.average: numbers by hand, ends, and curves that never turn."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rate_forms import closed_form
from torch import nn
from trainer_factory import TRAIN

from roiseg.train.average import WeightAverage
from roiseg.train.params import TrainParams
from roiseg.train.schedule import Extension, Mode, Schedule, phase_warmup, plateau_cuts, stops_early, warmup_cosine


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


SCHEDULES = st.fixed_dictionaries(
    {
        "scheduler": st.sampled_from(["cosine", "cosine_restarts", "step", "exponential", "plateau", "none"]),
        "lr": st.floats(1e-4, 1.0),
        "min_lr": st.floats(0.0, 0.5),
        "warmup_epochs": st.floats(0.0, 4.0),
        "restart_epochs": st.integers(1, 5),
        "restart_factor": st.integers(1, 3),
        "step_epochs": st.lists(st.integers(1, 30), max_size=4),
        "decay_factor": st.floats(0.05, 0.95),
        "plateau_epochs": st.integers(0, 3),
        "epochs": st.integers(1, 30),
    }
)


@given(
    changes=SCHEDULES,
    mode=st.sampled_from(["max", "min"]),
    steps=st.integers(1, 7),
    figures=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=30, max_size=30),
)
def test_every_schedule_is_its_closed_form(changes: dict[str, object], mode: Mode, steps: int, figures: list[float]) -> None:
    stop = {"metric": "miou_fg_roi", "mode": mode, "patience": None}
    params = TrainParams.parse({**TRAIN, **changes, "early_stop": stop}, "train")
    made = Schedule(params, steps, params.epochs)
    for step in range(params.epochs * steps):
        past = figures[: step // steps]
        assert made.rate(step, past) == pytest.approx(closed_form(params, step, steps, past), rel=1e-9, abs=1e-12)


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


# --- a run that goes on ---

POLICIES = ("stretch", "restart", "hold")
SCHEDULERS = ("cosine", "cosine_restarts", "step", "exponential", "plateau", "none")


def extended(made: Schedule, after: int, epochs: int, policy: str, history: Sequence[float] = ()) -> Schedule:
    """A schedule that takes over from another after some epochs and ends after `epochs`."""
    step = after * PER_EPOCH
    extension = Extension(step, made.rate(step - 1, history[: after - 1]))
    return Schedule(made.params.model_copy(update={"extend_policy": policy}), PER_EPOCH, epochs, extension)


@given(
    scheduler=st.sampled_from(SCHEDULERS),
    policy=st.sampled_from(POLICIES),
    plan=st.integers(2, 12),
    after=st.integers(1, 12),
    more=st.integers(1, 12),
    warmup=st.sampled_from([0.0, 0.5, 2.0]),
)
def test_no_jump_where_a_run_goes_on(scheduler: str, policy: str, plan: int, after: int, more: int, warmup: float) -> None:
    """The first step differs from the last one before by no more than a step of a bridge over an epoch, or of the curve itself."""
    made = schedule(scheduler=scheduler, epochs=plan, warmup_epochs=warmup, restart_epochs=100, step_epochs=[100], decay_factor=0.9)
    after = min(after, plan)
    new = extended(made, after, after + more, policy)
    before, first = made.rate(after * PER_EPOCH - 1), new.rate(after * PER_EPOCH)
    assert abs(first - before) <= 0.1 * (1 / PER_EPOCH + 0.1) + 0.1 * math.pi / (PER_EPOCH * min(plan, more))
    rates = [new.rate(step) for step in range(after * PER_EPOCH, new.total)]
    assert all(made._low <= rate <= 0.1 * (1 + 1e-9) for rate in rates)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("plan", "after", "epochs"), [(6, 6, 10), (6, 3, 10), (10, 4, 6), (6, 6, 7)])
def test_the_lowest_rate_is_at_the_new_end(policy: str, plan: int, after: int, epochs: int) -> None:
    new = extended(schedule(epochs=plan), after, epochs, policy)
    rates = [new.rate(step) for step in range(after * PER_EPOCH, new.total)]
    assert rates[-1] == pytest.approx(0.001) == pytest.approx(min(rates))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_plan_that_stays_gives_the_rates_of_the_unbroken_run(scheduler: str) -> None:
    """`stretch` to the length that was planned: killed and kept after any epoch, the rates are the same floats."""
    figures = [0.1, 0.2, 0.2, 0.2, 0.19, 0.3, 0.3, 0.3]
    made = schedule(scheduler=scheduler, epochs=8, warmup_epochs=1.5, restart_epochs=2, step_epochs=[2, 5], plateau_epochs=1)
    unbroken = per_step(made, 8, figures)
    for after in range(1, 8):
        new = extended(made, after, 8, "stretch", figures)
        assert per_step(new, 8, figures)[after * PER_EPOCH :] == unbroken[after * PER_EPOCH :]


def test_stretched_by_hand() -> None:
    """Six epochs that ended at the minimum, now ten: over one epoch the rate climbs to the curve of ten, and follows it."""
    new, long = extended(schedule(epochs=6), 6, 10, "stretch"), schedule(epochs=10)
    curve = [long.rate(step) for step in range(23, 40)]
    gap = 0.001 - curve[0]
    expected = [rate + gap * max(1 - (number + 1) / PER_EPOCH, 0) for number, rate in enumerate(curve[1:])]
    assert [new.rate(step) for step in range(24, 40)] == pytest.approx(expected)
    assert new.rate(27) == long.rate(27)


def test_restarted_by_hand() -> None:
    new, anew = extended(schedule(epochs=6, warmup_epochs=2.0), 6, 10, "restart"), schedule(epochs=4)
    curve = [anew.rate(step) for step in range(16)]
    assert [new.rate(step) for step in range(32, 40)] == curve[8:], "after a rise of two epochs, in place of the warm-up"
    rise = [max(rate - (0.1 - 0.001) * (1 - (number + 1) / 8), 0.001) for number, rate in enumerate(curve[:8])]
    assert [new.rate(step) for step in range(24, 32)] == pytest.approx(rise)


def test_held_by_hand() -> None:
    """Kept at the peak: as high as it was, but for the last epoch, which goes down in a straight line."""
    new = extended(schedule(scheduler="none"), 2, 5, "hold")
    assert [new.rate(step) for step in range(8, 16)] == [0.1] * 8
    assert [new.rate(step) for step in range(16, 20)] == pytest.approx([0.07525, 0.0505, 0.02575, 0.001])


def test_snapshots_are_due_before_each_restart() -> None:
    made = schedule(scheduler="cosine_restarts", restart_epochs=10, restart_factor=2)
    assert [epoch for epoch in range(1, 200) if made.ends_cycle(epoch)] == [10, 30, 70, 150]
    assert not any(schedule().ends_cycle(epoch) for epoch in range(1, 200))
    new = {policy: extended(made, 12, 60, policy) for policy in POLICIES}
    assert [epoch for epoch in range(1, 61) if new["stretch"].ends_cycle(epoch)] == [10, 30]
    assert [epoch for epoch in range(1, 61) if new["restart"].ends_cycle(epoch)] == [10, 22, 42]
    assert [epoch for epoch in range(1, 61) if new["hold"].ends_cycle(epoch)] == [10]


@pytest.mark.parametrize(("since", "factor"), [(0, 0.1), (1, 0.325), (2, 0.55), (4, 1.0), (9, 1.0)])
def test_warmup_of_a_phase(since: int, factor: float) -> None:
    assert phase_warmup(since, 4, 0.1) == pytest.approx(factor)
    assert phase_warmup(since, 0, 0.1) == 1.0


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
