"""Tests of roiseg.losses.region: hand-written sums, closed forms, what is ignored, and nothing at all."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from roiseg.errors import ParamsError
from roiseg.losses.region import IGNORE, TverskyParams, cross_entropy_map, dice, masked_mean, tversky, weighted_mean

ONES = torch.ones(3)


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor, pixel_weights: Tensor) -> Tensor:
    return weighted_mean(cross_entropy_map(logits, labels), labels, class_weights, pixel_weights)


def tversky_params(alpha: float, beta: float, classes: list[int]) -> TverskyParams:
    return TverskyParams.parse({"weight": 1.0, "alpha": alpha, "beta": beta, "classes": classes}, "loss.tversky")


def drawn(seed: int, rois: int = 2, height: int = 3, width: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rois, 3, height, width, generator=generator) * 2
    labels = torch.randint(3, (rois, height, width), generator=generator)
    return logits, labels, torch.rand(rois, height, width, generator=generator) * 3 + 0.1


def certain(labels: Tensor) -> Tensor:
    """Logits (R, 3, h, w) of an answer without any doubt."""
    return F.one_hot(labels, 3).movedim(-1, 1).float() * 80


# --- cross entropy ---


@given(seed=st.integers(0, 1000), ignored=st.booleans())
def test_cross_entropy_is_the_sum_by_hand(seed: int, ignored: bool) -> None:
    logits, labels, pixels = drawn(seed)
    if ignored:
        labels[0, 1, 2], labels[1, 0] = IGNORE, IGNORE
    weights = [0.4, 1.7, 0.9]
    above = below = 0.0
    for roi, row, column in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(5)).tolist():
        label = int(labels[roi, row, column])
        if label == IGNORE:
            continue
        scores = [math.exp(value) for value in logits[roi, :, row, column].tolist()]
        weight = weights[label] * float(pixels[roi, row, column])
        above -= weight * math.log(scores[label] / sum(scores))
        below += weight
    found = cross_entropy(logits, labels, torch.tensor(weights), pixels)
    assert float(found) == pytest.approx(above / below, rel=1e-4)


def test_without_weights_it_is_plain_cross_entropy() -> None:
    logits, labels, _ = drawn(3)
    found = cross_entropy(logits, labels, ONES, torch.ones(2, 3, 5))
    torch.testing.assert_close(found, F.cross_entropy(logits, labels))


def test_class_weights_act_on_each_pixel() -> None:
    """The original multiplied the mean loss by the mean weight (spec 11.5, flaw i)."""
    logits = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]], [[0.0, 0.0]]]])
    labels = torch.tensor([[[0, 1]]])
    first, second = math.log(3), math.log(math.exp(2) + 2)
    for weight in (0.5, 1.0, 4.0):
        found = cross_entropy(logits, labels, torch.tensor([1.0, weight, 1.0]), torch.ones(1, 1, 2))
        assert float(found) == pytest.approx((first + weight * second) / (1 + weight))


def test_weights_scale_the_gradient_of_their_pixels() -> None:
    logits, labels = torch.zeros(1, 3, 1, 2, requires_grad=True), torch.tensor([[[0, 1]]])
    cross_entropy(logits, labels, torch.tensor([1.0, 3.0, 1.0]), torch.tensor([[[1.0, 2.0]]])).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    share = logits.grad[0, 1, 0, 1] / logits.grad[0, 0, 0, 0]
    assert float(share) == pytest.approx(6.0)


def test_scale_of_the_weights_changes_nothing() -> None:
    logits, labels, pixels = drawn(4)
    torch.testing.assert_close(cross_entropy(logits, labels, ONES * 7, pixels * 5), cross_entropy(logits, labels, ONES, pixels))


@pytest.mark.parametrize("value", [60.0, 1000.0])
def test_extreme_logits_stay_finite(value: float) -> None:
    logits = (torch.randn(1, 3, 2, 2).sign() * value).requires_grad_()
    cross_entropy(logits, torch.ones(1, 2, 2, dtype=torch.int64), ONES, torch.ones(1, 2, 2)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


# --- Dice ---


def test_dice_of_each_roi_by_closed_form() -> None:
    labels = torch.zeros(2, 2, 4, dtype=torch.int64)
    labels[0, :, :2] = 1  # 4 pixels, guessed right
    labels[1, 0] = 1  # 4 pixels, of which 2 are guessed, and 1 beside them
    guess = labels.clone()
    guess[1, 0, :2], guess[1, 1, 0] = 0, 1
    smooth = 0.5
    expected = (0 + (1 - (2 * 2 + smooth) / (3 + 4 + smooth))) / 2
    assert float(dice(certain(guess), labels, [1], smooth)) == pytest.approx(expected)


def test_dice_is_the_mean_over_rois_and_not_over_pixels() -> None:
    logits, labels, _ = drawn(5, rois=3)
    alone = [dice(logits[place : place + 1], labels[place : place + 1], [1, 2], 1.0) for place in range(3)]
    torch.testing.assert_close(dice(logits, labels, [1, 2], 1.0), torch.stack(alone).mean())
    by_class = [dice(logits, labels, [label], 1.0) for label in (1, 2)]
    torch.testing.assert_close(dice(logits, labels, [1, 2], 1.0), torch.stack(by_class).mean())


def test_dice_of_an_absent_class() -> None:
    labels = torch.zeros(1, 2, 5, dtype=torch.int64)
    assert float(dice(certain(labels), labels, [2], 1.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(dice(certain(labels + 2), labels, [2], 1.0)) == pytest.approx(1 - 1 / 11)


def test_dice_of_soft_probabilities() -> None:
    labels = torch.tensor([[[1, 0, 0, 1]]])
    assert float(dice(torch.zeros(1, 3, 1, 4), labels, [1], 1.0)) == pytest.approx(1 - (2 * 2 / 3 + 1) / (4 / 3 + 2 + 1))


# --- Tversky ---


def test_tversky_by_hand() -> None:
    """4 pixels of the class, of which 3 are found, and 2 beside them: 3 / (3 + 0.3 * 2 + 0.7 * 1)."""
    labels, guess = torch.zeros(1, 2, 5, dtype=torch.int64), torch.zeros(1, 2, 5, dtype=torch.int64)
    labels[0, 0, :4], guess[0, 0, :3], guess[0, 1, :2] = 2, 2, 2
    found = float(tversky(certain(guess), labels, tversky_params(0.3, 0.7, [2]), 1e-9))
    assert found == pytest.approx(1 - 3 / (3 + 0.6 + 0.7))
    swapped = float(tversky(certain(guess), labels, tversky_params(0.7, 0.3, [2]), 0.5))
    assert swapped == pytest.approx(1 - 3.5 / (3.5 + 1.4 + 0.3))


def test_tversky_with_halves_is_dice_with_twice_the_smoothing() -> None:
    logits, labels, _ = drawn(8)
    labels[0, 0] = IGNORE
    found = tversky(logits, labels, tversky_params(0.5, 0.5, [0, 1, 2]), 3.0)
    torch.testing.assert_close(found, dice(logits, labels, [0, 1, 2], 6.0))


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_tversky_params_are_checked(name: str) -> None:
    values = {"weight": 1.0, "alpha": 0.5, "beta": 0.5, "classes": [1]}
    with pytest.raises(ParamsError, match=rf"loss\.tversky\.{name}: value is -0.1"):
        TverskyParams.parse(values | {name: -0.1}, "loss.tversky")


# --- all ---


def test_masked_mean() -> None:
    values = torch.tensor([1.0, 2.0, 9.0])
    assert float(masked_mean(values, torch.tensor([True, True, False]))) == 1.5
    assert float(masked_mean(values, torch.zeros(3, dtype=torch.bool))) == 0


def test_ignored_pixels_make_no_difference() -> None:
    logits, labels, pixels = drawn(6)
    labels[:, 1] = IGNORE
    other = logits.clone()
    other[:, :, 1] = torch.randn(2, 3, 5) * 9
    params = tversky_params(0.3, 0.7, [0, 1, 2])
    for first, second in (
        (cross_entropy(logits, labels, ONES, pixels), cross_entropy(other, labels, ONES, pixels)),
        (dice(logits, labels, [0, 1, 2], 1.0), dice(other, labels, [0, 1, 2], 1.0)),
        (tversky(logits, labels, params, 1.0), tversky(other, labels, params, 1.0)),
    ):
        torch.testing.assert_close(first, second)


def test_all_ignored_is_nought() -> None:
    logits, _, pixels = drawn(7)
    labels = torch.full((2, 3, 5), IGNORE)
    assert float(cross_entropy(logits, labels, ONES, pixels)) == 0
    assert float(dice(logits, labels, [1], 1.0)) == pytest.approx(0, abs=1e-6)
    assert float(tversky(logits, labels, tversky_params(0.3, 0.7, [1]), 1.0)) == pytest.approx(0, abs=1e-6)


def test_no_rois_is_nought_with_a_gradient() -> None:
    logits = torch.zeros(0, 3, 4, 5, requires_grad=True)
    labels = torch.zeros(0, 4, 5, dtype=torch.int64)
    total = cross_entropy(logits, labels, ONES, torch.zeros(0, 4, 5)) + dice(logits, labels, [1, 2], 1.0)
    total = total + tversky(logits, labels, tversky_params(0.3, 0.7, [1, 2]), 1.0)
    total.backward()  # type: ignore[no-untyped-call]
    assert float(total.detach()) == 0
