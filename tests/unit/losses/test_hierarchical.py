"""Tests of roiseg.losses.hierarchical: the worked examples, bounds and running averages, and each part by hand."""

import math
from typing import Any

import pytest
import torch
from loss_factory import FULL, targets_of
from torch import Tensor

from roiseg.errors import ParamsError
from roiseg.losses.hierarchical import NAMES, ClassBalance, HierarchicalLoss, HierarchicalParams, balanced
from roiseg.losses.region import IGNORE
from roiseg.nn.outputs import HeadOutput


def params_of(**changes: object) -> HierarchicalParams:
    values: dict[str, Any] = FULL["hierarchical"] | changes
    return HierarchicalParams.parse(values, "loss.hierarchical")


def unbounded(target: float = 1.5, ema: float = 0.0) -> ClassBalance:
    return ClassBalance(params_of(clamp=[0.001, 1000.0], target=target, ema=ema))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((900, 100), (0.56, 5.0)), ((95, 5), (0.53, 10.0)), ((70, 30), (0.71, 1.67)), ((40, 60), (1.25, 0.83))],
)
def test_worked_examples(counts: tuple[int, int], expected: tuple[float, float]) -> None:
    """Those of spec 11.8."""
    assert balanced(*counts) == pytest.approx(expected, abs=0.005)
    assert unbounded(target=1.0).weights((counts[0], counts[1], 0))[:2] == pytest.approx(expected, abs=0.005)


def test_people_get_the_factor() -> None:
    assert unbounded().weights((900, 100, 0))[:2] == pytest.approx((0.5556, 7.5), abs=1e-4)


def test_bounds() -> None:
    """The 7.5 and 15 of the examples are 3.0."""
    balance = ClassBalance(params_of(ema=0.0))
    assert balance.weights((900, 100, 0))[:2] == pytest.approx((0.5556, 3.0), abs=1e-4)
    assert balance.weights((95, 5, 0))[:2] == pytest.approx((0.5263, 3.0), abs=1e-4)
    assert balance.weights((0, 99, 1)) == pytest.approx((3.0, 0.75, 0.5051, 3.0), abs=1e-4)


def test_weights_of_target_and_others_go_by_people_alone() -> None:
    assert unbounded().weights((5000, 70, 30))[2:] == pytest.approx((100 / 140, 100 / 60))


def test_running_average() -> None:
    """The first batch counts whole; then 0.9 * 0.7143 + 0.1 * 1.25."""
    balance = unbounded(target=1.0, ema=0.9)
    assert balance.weights((70, 30, 0))[0] == pytest.approx(0.7143, abs=1e-4)
    assert balance.weights((40, 60, 0))[0] == pytest.approx(0.7679, abs=1e-4)


def test_batches_that_say_nothing() -> None:
    balance = unbounded(ema=0.5)
    assert balance.weights((0, 0, 0)) == (1.0, 1.0, 1.0, 1.0)
    before = balance.weights((60, 30, 10))
    assert balance.weights((0, 0, 0)) == before
    assert balance.weights((100, 0, 0))[2:] == before[2:], "no people: nothing about which"


def test_fixed_weights_see_nothing() -> None:
    balance = ClassBalance(params_of(dynamic=False))
    assert balance.weights((900, 90, 10)) == (1.0, 1.5, 1.0, 1.0)
    assert balance.state == {}


def output_of(first: Tensor, second: Tensor, mask: Tensor) -> HeadOutput:
    return HeadOutput(mask, {"bg_fg": first, "target_non_target": second})


def test_parts_by_hand() -> None:
    """Four pixels: background, target, non-target, ignored."""
    target = targets_of(torch.tensor([[[0, 1, 2, 0]]]))
    target.labels[0, 0, 3] = IGNORE
    first, second = torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4)
    first[0, 1, 0] = torch.tensor([1.0, 2.0, -1.0, 50.0])
    second[0, 1, 0] = torch.tensor([70.0, -1.0, 3.0, 50.0])
    mask = torch.zeros(1, 3, 1, 4)
    parts = HierarchicalLoss(params_of(dynamic=False))(output_of(first, second, mask), target)

    def soft(score: float) -> float:
        return math.log(1 + math.exp(score))

    people = 1.5
    expected = (soft(1) + people * soft(-2) + people * soft(1)) / (1 + 2 * people)
    assert float(parts["bg_fg"].value) == pytest.approx(expected, rel=1e-5)
    assert float(parts["target_non_target"].value) == pytest.approx((soft(-1) + soft(-3)) / 2, rel=1e-5)
    shares = [1 / (1 + math.exp(-score)) for score in (1, 2, -1)]
    assert float(parts["consistency"].value) == pytest.approx(sum((share - 2 / 3) ** 2 for share in shares) / 3, rel=1e-5)
    assert {name: part.weight for name, part in parts.items() if part.weight is not None} == {
        "bg_fg": 2.0,
        "target_non_target": 1.0,
        "consistency": 0.1,
    }


def test_balanced_classes_count_alike() -> None:
    """7 pixels of the target, 1 of another person: with their weights, each class is half of the mean."""
    target = targets_of(torch.tensor([[[1, 1, 1, 1, 1, 1, 1, 2]]]))
    second = torch.zeros(1, 2, 1, 8)
    second[0, 1] = 1.0
    output = output_of(torch.zeros(1, 2, 1, 8), second, torch.zeros(1, 3, 1, 8))
    parts = HierarchicalLoss(params_of(clamp=[0.01, 100.0]))(output, target)
    expected = (math.log(1 + math.exp(1)) + math.log(1 + math.exp(-1))) / 2
    assert float(parts["target_non_target"].value) == pytest.approx(expected, rel=1e-5)
    found = {name: float(parts[f"weight_hier_{name}"].value) for name in NAMES}
    assert found == pytest.approx({"bg": 4.0, "fg": 0.75, "target": 8 / 14, "non_target": 4.0})


def test_exact_combination_agrees_with_the_mask() -> None:
    """With logits combined by `logprob` the first step's people are those of the mask (spec 11.12)."""
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(2, 2, 3, 5, generator=generator) for _ in range(2))
    step, kind = first.log_softmax(1), second.log_softmax(1)
    mask = torch.stack([step[:, 0], step[:, 1] + kind[:, 0], step[:, 1] + kind[:, 1]], dim=1)
    target = targets_of(torch.randint(3, (2, 3, 5), generator=generator))
    assert float(HierarchicalLoss(params_of())(output_of(first, second, mask), target)["consistency"].value) < 1e-12


def test_logits_of_another_size_are_brought_to_that_of_the_mask() -> None:
    target = targets_of(torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]]))
    first = torch.tensor([[[[1.0, -1.0]], [[-1.0, 1.0]]]])
    widened = torch.nn.functional.interpolate(first, (2, 4), mode="bilinear", align_corners=False)
    mask = torch.zeros(1, 3, 2, 4)
    small, large = (HierarchicalLoss(params_of())(output_of(item, item, mask), target) for item in (first, widened))
    assert {name: float(part.value) for name, part in small.items()} == {name: float(part.value) for name, part in large.items()}


def test_state_goes_on_where_it_was() -> None:
    first, second = HierarchicalLoss(params_of()), HierarchicalLoss(params_of())
    first.balance.weights((70, 20, 10))
    second.load_state(first.state())
    assert first.balance.weights((10, 20, 70)) == second.balance.weights((10, 20, 70))
    second.load_state({})
    assert second.state() == {}


@pytest.mark.parametrize("clamp", [[3.0, 0.5], [0.0, 3.0]])
def test_clamp_is_checked(clamp: list[float]) -> None:
    with pytest.raises(ParamsError, match=r"loss\.hierarchical\.clamp: value is .*two numbers above 0, the lower one first"):
        params_of(clamp=clamp)
