"""Tests of roiseg.distill.eliminate: the share by hand, its end, and a state that goes on."""

import math
from typing import Any

import pytest

from roiseg.distill.eliminate import EliminateParams, Elimination, check_eliminate
from roiseg.distill.loss import DistillLossParams
from roiseg.errors import ParamsError, TrainingError

SEED: dict[str, Any] = {"threshold": 0.03, "amplification": 30.0, "min_alpha": 0.0}
LOSS: dict[str, Any] = {"kl": 1.0, "mse": 0.5, "bce": 0.5, "dice": 1.0, "feature": 0.5, "pos_weight": 1.0}


def params(**changes: float) -> EliminateParams:
    return EliminateParams.parse(SEED | changes, "distill.eliminate")


def loss(**changes: float) -> DistillLossParams:
    return DistillLossParams.parse(LOSS | changes, "distill.loss")


def test_share_by_hand() -> None:
    """Worse or as good: all of it; 1 % better: exp(-0.3); 3.1 % better: none."""
    elimination = Elimination(params())
    assert (elimination.share, elimination.over) == (1, False)
    shares = []
    for student in (0.2, 0.8, 0.808, 0.824, 0.79, 0.8248):
        elimination.judged(student, 0.8)
        shares.append(elimination.share)
    assert shares == pytest.approx([1, 1, math.exp(-0.3), math.exp(-0.9), 1, 0])
    assert elimination.over


def test_the_end_is_for_good() -> None:
    elimination = Elimination(params(min_alpha=0.5))
    for student in (0.9, 0.1, 0.8):
        elimination.judged(student, 0.8)
        assert (elimination.share, elimination.over) == (0, True)


def test_floor() -> None:
    elimination = Elimination(params(min_alpha=0.25, amplification=1000.0))
    elimination.judged(0.81, 0.8)
    assert elimination.share == 0.25


def test_threshold_of_nothing_ends_with_the_first_gain() -> None:
    elimination = Elimination(params(threshold=0.0))
    elimination.judged(0.8, 0.8)
    assert elimination.share == 1
    elimination.judged(0.8001, 0.8)
    assert elimination.over


@pytest.mark.parametrize("students", [[0.5], [0.81], [0.9, 0.5]])
def test_state_goes_on(students: list[float]) -> None:
    first, second = Elimination(params()), Elimination(params())
    for student in students:
        first.judged(student, 0.8)
    state = first.state()
    assert all(type(value) is float for value in state.values())
    second.load_state(state)
    assert (second.share, second.over, second.state()) == (first.share, first.over, state)
    second.load_state({})
    assert (second.share, second.over) == (1, False)


def test_a_student_without_a_figure_changes_nothing_for_good() -> None:
    elimination = Elimination(params())
    elimination.judged(math.nan, 0.8)
    assert (elimination.share, elimination.over) == (1, False)


@pytest.mark.parametrize("teacher", [0.0, -1.0, math.nan, math.inf])
def test_a_teacher_without_a_figure(teacher: float) -> None:
    with pytest.raises(
        TrainingError, match=rf"distill\.eliminate: the teacher's validation figure is {teacher}, expected a number ab"
    ):
        Elimination(params()).judged(0.5, teacher)


def test_what_is_left_to_learn_is_checked() -> None:
    check_eliminate(loss(), params())
    check_eliminate(loss(bce=0.0, dice=0.0), None)
    with pytest.raises(ParamsError, match=r"distill\.eliminate is set, but distill\.loss\.kl and mse are 0: .*eliminate to null"):
        check_eliminate(loss(kl=0.0, mse=0.0), params())
    with pytest.raises(
        ParamsError, match=r"distill\.loss\.bce and dice are 0: nothing would be left to learn from; set one of them"
    ):
        check_eliminate(loss(bce=0.0, dice=0.0), params())


def test_params_are_checked() -> None:
    with pytest.raises(ParamsError, match=r"distill\.eliminate\.min_alpha: value is 1\.5"):
        params(min_alpha=1.5)
