"""Tests of roiseg.unet.person_loss: cross entropy and Dice by hand, and where the weight of people comes from."""

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from roiseg.errors import AnnotationError, ParamsError, TrainingError
from roiseg.unet.person_loss import PersonLoss, PersonLossParams, binary_cross_entropy, binary_dice, mean, pos_weight_of

SECTION: dict[str, Any] = {"bce": 1.0, "dice": 0.5, "pos_weight": "measured"}


def parse(**changes: object) -> PersonLossParams:
    return PersonLossParams.parse(SECTION | changes, "unet.loss")


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def test_cross_entropy_by_hand() -> None:
    """The weight acts on people alone, and doesn't divide the mean."""
    found = binary_cross_entropy(row(1, -2, 3), row(1, 1, 0), 2.0)
    assert float(found) == pytest.approx((2 * softplus(-1) + 2 * softplus(2) + softplus(3)) / 3, rel=1e-6)


def test_dice_by_hand() -> None:
    """One pixel of smoothing, and a mean over images: a large one doesn't outweigh a small one."""
    logits = torch.cat([row(0, 0, 0), row(math.log(3), -math.log(3), 0)])
    truth = torch.cat([row(1, 0, 0), row(1, 1, 0)])
    first = 1 - (2 * 0.5 + 1) / (1.5 + 1 + 1)
    second = 1 - (2 * 1.0 + 1) / (1.5 + 2 + 1)
    assert float(binary_dice(logits, truth)) == pytest.approx((first + second) / 2, rel=1e-6)


def test_dice_matches_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(3, 1, 4, 5, generator=generator), (torch.rand(3, 1, 4, 5, generator=generator) > 0.6).float()
    losses = []
    for image, mask in zip(logits.numpy(), truth.numpy(), strict=True):
        shared = total = 0.0
        for logit, person in zip(image.flat, mask.flat, strict=True):
            probability = 1 / (1 + math.exp(-logit))
            shared += probability * person
            total += probability + person
        losses.append(1 - (2 * shared + 1) / (total + 1))
    assert float(binary_dice(logits, truth)) == pytest.approx(sum(losses) / 3, rel=1e-5)


@pytest.mark.parametrize("person", [0.0, 1.0])
def test_images_of_nobody_and_of_people_all_over(person: float) -> None:
    truth = torch.full((1, 1, 3, 4), person)
    right = truth * 60 - 30
    assert float(binary_dice(right, truth)) < 1e-6
    assert float(binary_dice(-right, truth)) > 0.9
    assert float(binary_cross_entropy(right, truth, 5.0)) < 1e-6


def test_total_and_parts() -> None:
    logits, truth = row(1, -2, 3), row(1, 1, 0)
    found = PersonLoss(2.0, 0.5, 3.0)(logits, truth)
    assert set(found) == {"total", "bce", "dice", "weight_bce", "weight_dice"}
    assert float(found["total"]) == pytest.approx(2 * float(found["bce"]) + 0.5 * float(found["dice"]))
    assert float(found["bce"]) == pytest.approx(float(binary_cross_entropy(logits, truth, 3.0)))
    assert (float(found["weight_bce"]), float(found["weight_dice"])) == (2, 0.5)


@pytest.mark.parametrize(("bce", "dice", "left"), [(0.0, 1.0, "dice"), (1.0, 0.0, "bce")])
def test_a_part_without_coefficient_is_not_computed(bce: float, dice: float, left: str) -> None:
    assert set(PersonLoss(bce, dice, 1.0)(row(0.0), row(1.0))) == {"total", left, f"weight_{left}"}


def test_gradients() -> None:
    logits = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    truth = (torch.arange(24).view(2, 1, 3, 4) % 3 == 0).double()
    assert torch.autograd.gradcheck(lambda x: binary_cross_entropy(x, truth, 2.5) + binary_dice(x, truth), (logits,))


def test_huge_logits() -> None:
    logits = row(1e5, -1e5, 1e5, -1e5).requires_grad_()
    found = PersonLoss(1.0, 1.0, 2.0)(logits, row(1, 0, 0, 1))
    assert float(found["bce"]) == pytest.approx((1e5 + 2e5) / 4)
    found["total"].backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_no_images() -> None:
    logits = torch.zeros(0, 1, 4, 4, requires_grad=True)
    total = PersonLoss(1.0, 1.0, 2.0)(logits, torch.zeros(0, 1, 4, 4))["total"]
    total.backward()  # type: ignore[no-untyped-call]
    assert float(total.detach()) == 0
    assert float(mean(torch.zeros(0))) == 0


def test_half_precision_is_computed_in_full() -> None:
    logits = row(1, -2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = PersonLoss(1.0, 1.0, 2.0)(logits.bfloat16(), row(1, 1, 0))
    expected = PersonLoss(1.0, 1.0, 2.0)(logits, row(1, 1, 0))
    assert found["total"].dtype == torch.float32
    assert float(found["total"]) == float(expected["total"])


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(
        TrainingError, match=r"masks: size \(1, 4, 4\), the net's logits have \(1, 1, 4, 4\); expected .* resampled"
    ):
        PersonLoss(1.0, 1.0, 1.0)(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))


def test_weight_of_people() -> None:
    """The seed's figures of COCO: 5.17, and 2.27 as a root (spec 4.4, 13.4)."""
    person, background = 16_203_512, 83_796_488
    assert pos_weight_of("measured", person, background) == pytest.approx(5.1715, abs=1e-4)
    assert pos_weight_of("sqrt", person, background) == pytest.approx(2.2741, abs=1e-4)
    assert pos_weight_of(3, 0, 0) == 3.0


@pytest.mark.parametrize("choice", ["measured", "sqrt"])
def test_weight_without_pixels_of_one_kind(choice: Literal["measured", "sqrt"]) -> None:
    message = (
        rf"loss\.pos_weight is '{choice}', but the training images have 0 pixels of people and 9 of background; .* to a number"
    )
    with pytest.raises(AnnotationError, match=message):
        pos_weight_of(choice, 0, 9)
    with pytest.raises(AnnotationError, match="9 pixels of people and 0 of background"):
        pos_weight_of(choice, 9, 0)


@pytest.mark.parametrize("value", ["measured", "sqrt", 2, 2.5])
def test_weights_that_params_may_have(value: object) -> None:
    assert parse(pos_weight=value).pos_weight == value


@pytest.mark.parametrize("value", ["median", 0, -1.0, True, None, math.inf, math.nan])
def test_weights_that_params_may_not_have(value: object) -> None:
    with pytest.raises(
        ParamsError, match=r"unet\.loss\.pos_weight: value is .*; .*expected 'measured' \(.*\), 'sqrt' .*, or a number"
    ):
        parse(pos_weight=value)


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"unet\.loss: .*bce and dice are both 0, which leaves nothing to learn; expected one"):
        parse(bce=0.0, dice=0.0)
