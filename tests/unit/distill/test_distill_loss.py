"""Tests of roiseg.distill.loss: the divergence by hand and at its extremes, and the sum of the parts."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from roiseg.distill.loss import DistillLoss, DistillLossParams, bernoulli_kl, logit_mse
from roiseg.errors import ParamsError, TrainingError
from roiseg.unet.person_loss import binary_cross_entropy, binary_dice

SEED: dict[str, Any] = {"kl": 1.0, "mse": 0.5, "bce": 0.5, "dice": 1.0, "feature": 0.5, "pos_weight": 2.0}
"""The seed's coefficients (spec 13.1)."""

ALIGNED = {"feature": torch.tensor(0.25), "feature_deep": torch.tensor(0.25), "weight_feature_deep": torch.tensor(1.0)}


def loss_of(**changes: object) -> DistillLoss:
    return DistillLoss(DistillLossParams.parse(SEED | changes, "distill.loss"), 2.0)


def drawn(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def logit(value: float) -> float:
    return math.log(value / (1 - value))


def divergence(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_divergence_by_hand() -> None:
    """p 0.8 and q 0.5 at T = 1; at T = 3 the logits that give the same two."""
    teacher, student = torch.tensor([[[[logit(0.8)]]]]), torch.tensor([[[[0.0]]]])
    assert divergence(0.8, 0.5) == pytest.approx(0.192745, abs=1e-6)
    assert float(bernoulli_kl(student, teacher, 1.0)) == pytest.approx(0.192745, abs=1e-6)
    assert float(bernoulli_kl(3 * student, 3 * teacher, 3.0)) == pytest.approx(9 * 0.192745, abs=1e-5)


@given(st.floats(-12, 12), st.floats(-12, 12), st.floats(0.5, 10))
def test_divergence_matches_reference(teacher: float, student: float, temperature: float) -> None:
    p, q = (1 / (1 + math.exp(-value / temperature)) for value in (teacher, student))
    mine, theirs = (torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (student, teacher))
    found = bernoulli_kl(mine, theirs, temperature)
    assert float(found) == pytest.approx(divergence(p, q) * temperature**2, rel=1e-6, abs=1e-9)


def test_divergence_is_least_where_the_two_agree() -> None:
    teacher = drawn(2, 1, 3, 4) * 5
    assert float(bernoulli_kl(teacher, teacher, 3.0)) == 0
    assert all(float(bernoulli_kl(teacher + step, teacher, 3.0)) > 0 for step in (-0.5, 0.5))


def test_gradient_of_the_divergence() -> None:
    """(q - p) * T of each pixel, over their number: the teacher gets none."""
    student, teacher = (drawn(2, 1, 3, 4, seed=seed).double().requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(lambda x: bernoulli_kl(x, teacher.detach(), 2.5), (student,))
    bernoulli_kl(student, teacher, 2.5).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    torch.testing.assert_close(student.grad, ((student / 2.5).sigmoid() - (teacher / 2.5).sigmoid()).detach() * 2.5 / 24)
    assert teacher.grad is None


@pytest.mark.parametrize(
    ("student", "teacher", "expected"), [(1e4, 1e4, 0.0), (-1e4, 1e4, 1e4), (1e4, -1e4, 1e4), (0.0, 1e4, 0.69315)]
)
def test_huge_logits(student: float, teacher: float, expected: float) -> None:
    """Where probabilities are 0 and 1 the divergence is the logit, and the way back still shows."""
    mine = torch.full((1, 1, 1, 2), student, requires_grad=True)
    found = bernoulli_kl(mine, torch.full((1, 1, 1, 2), teacher), 1.0)
    found.backward()  # type: ignore[no-untyped-call]
    assert float(found.detach()) == pytest.approx(expected, abs=1e-4)
    assert mine.grad is not None
    expected_slope = torch.tensor(student).sigmoid() - torch.tensor(teacher).sigmoid()
    torch.testing.assert_close(mine.grad, expected_slope.expand(1, 1, 1, 2) / 2)


def test_gradients_keep_their_size_at_high_temperatures() -> None:
    student, teacher = drawn(1, 1, 4, 4).requires_grad_(), drawn(1, 1, 4, 4, seed=1)
    sizes: list[float] = []
    for temperature in (10.0, 100.0):
        student.grad = None
        bernoulli_kl(student, teacher, temperature).backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_total_is_the_weighted_sum() -> None:
    student, teacher = drawn(2, 1, 4, 6), drawn(2, 1, 4, 6, seed=1) * 3
    truth = (drawn(2, 1, 4, 6, seed=2) > 0).float()
    found = loss_of()(student, truth, teacher, ALIGNED, temperature=3.0)
    parts = {
        "kl": bernoulli_kl(student, teacher, 3.0),
        "mse": logit_mse(student, teacher),
        "bce": binary_cross_entropy(student, truth, 2.0),
        "dice": binary_dice(student, truth),
        "feature": ALIGNED["feature"],
    }
    for name, value in parts.items():
        torch.testing.assert_close(found[name], value)
        assert float(found[f"weight_{name}"]) == SEED[name]
    assert float(found["total"]) == pytest.approx(sum(SEED[name] * float(value) for name, value in parts.items()))
    assert float(found["weight_temperature"]) == 3
    assert (float(found["feature_deep"]), float(found["weight_feature_deep"])) == (0.25, 1)
    assert float(parts["mse"]) == pytest.approx(float(((student - teacher) ** 2).mean()))


@pytest.mark.parametrize("name", ["kl", "mse", "bce", "dice", "feature"])
def test_a_part_without_coefficient_is_not_computed(name: str) -> None:
    found = loss_of(**{name: 0.0})(drawn(1, 1, 2, 2), torch.ones(1, 1, 2, 2), drawn(1, 1, 2, 2), ALIGNED, temperature=1.0)
    assert name not in found
    assert f"weight_{name}" not in found
    assert ("feature_deep" in found) == (name != "feature")


def test_neither_teacher_nor_features_are_wanted_without_coefficients() -> None:
    loss = loss_of(kl=0.0, mse=0.0, feature=0.0)
    assert set(loss(drawn(1, 1, 2, 2), torch.ones(1, 1, 2, 2), None, {}, temperature=1.0)) == {
        *("total", "bce", "dice", "weight_bce", "weight_dice", "weight_temperature")
    }


def test_share_of_the_teacher() -> None:
    """At 0 it is measured and teaches nothing; the features go on."""
    student, truth, teacher = drawn(1, 1, 3, 3), torch.ones(1, 1, 3, 3), drawn(1, 1, 3, 3, seed=1)
    full, half, none = (loss_of()(student, truth, teacher, ALIGNED, temperature=2.0, share=share) for share in (1.0, 0.5, 0.0))
    assert (float(half["weight_kl"]), float(half["weight_mse"]), float(half["weight_feature"])) == (0.5, 0.25, 0.5)
    assert float(half["kl"]) == float(none["kl"]) == float(full["kl"])
    assert float(full["total"]) - float(half["total"]) == pytest.approx(float(half["total"]) - float(none["total"]))
    without = loss_of(kl=0.0, mse=0.0)(student, truth, None, ALIGNED, temperature=2.0)
    assert float(none["total"]) == pytest.approx(float(without["total"]))


def test_no_gradient_at_share_zero() -> None:
    student = drawn(1, 1, 3, 3).requires_grad_()
    truth, teacher = torch.ones(1, 1, 3, 3), drawn(1, 1, 3, 3, seed=1)
    (mine,) = torch.autograd.grad(loss_of()(student, truth, teacher, ALIGNED, temperature=2.0, share=0.0)["total"], student)
    (other,) = torch.autograd.grad(loss_of(kl=0.0, mse=0.0)(student, truth, None, ALIGNED, temperature=2.0)["total"], student)
    torch.testing.assert_close(mine, other)


def test_gradient_reaches_student_and_alignment() -> None:
    student, feature = drawn(1, 1, 2, 2).requires_grad_(), torch.tensor(2.0, requires_grad=True)
    found = loss_of()(student, torch.ones(1, 1, 2, 2), drawn(1, 1, 2, 2), {"feature": feature}, temperature=1.0)
    found["total"].backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert feature.grad is not None
    assert float(feature.grad) == 0.5


def test_no_images() -> None:
    empty = torch.zeros(0, 1, 4, 4, requires_grad=True)
    total = loss_of()(empty, torch.zeros(0, 1, 4, 4), torch.zeros(0, 1, 4, 4), {"feature": torch.tensor(0.0)}, temperature=3.0)[
        "total"
    ]
    total.backward()  # type: ignore[no-untyped-call]
    assert float(total.detach()) == 0


def test_half_precision_is_computed_in_full() -> None:
    student, teacher, truth = drawn(1, 1, 4, 4).bfloat16(), drawn(1, 1, 4, 4, seed=1).half(), torch.ones(1, 1, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss_of()(student, truth, teacher, ALIGNED, temperature=3.0)
    expected = loss_of()(student.float(), truth, teacher.float(), ALIGNED, temperature=3.0)
    assert float(found["total"]) == float(expected["total"])


def test_what_is_missing_is_named() -> None:
    student, truth = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    with pytest.raises(TrainingError, match=r"distill\.loss has kl 1\.0 and mse 0\.5, but the step has no logits .* set both to 0"):
        loss_of()(student, truth, None, ALIGNED, temperature=1.0)
    with pytest.raises(TrainingError, match=r"distill\.loss\.feature is 0\.5, but the step has no aligned features.* to 0"):
        loss_of()(student, truth, student, {}, temperature=1.0)
    with pytest.raises(
        TrainingError, match=r"teacher's logits: size \(1, 1, 8, 8\), the net's logits have \(1, 1, 4, 4\); expected"
    ):
        loss_of()(student, truth, torch.zeros(1, 1, 8, 8), ALIGNED, temperature=1.0)
    with pytest.raises(TrainingError, match=r"masks: size \(1, 4, 4\)"):
        loss_of()(student, truth[0], student, ALIGNED, temperature=1.0)


def test_params() -> None:
    params = DistillLossParams.parse(SEED | {"kl": 0.0, "bce": 0.0}, "distill.loss")
    assert params.reads_teacher
    assert params.reads_truth
    assert not DistillLossParams.parse(SEED | {"kl": 0.0, "mse": 0.0}, "distill.loss").reads_teacher
    assert not DistillLossParams.parse(SEED | {"bce": 0.0, "dice": 0.0}, "distill.loss").reads_truth
    with pytest.raises(ParamsError, match=r"kl, mse, bce and dice are all 0: features alone teach no mask; expected at least one"):
        DistillLossParams.parse(SEED | dict.fromkeys(("kl", "mse", "bce", "dice"), 0.0), "distill.loss")
    with pytest.raises(ParamsError, match=r"distill\.loss\.kl: value is -1\.0"):
        DistillLossParams.parse(SEED | {"kl": -1.0}, "distill.loss")
