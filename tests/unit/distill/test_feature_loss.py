"""Tests of roiseg.distill.feature_loss: errors of cells, where they matter, and what they are measured against."""

import pytest
import torch
from torch import Tensor

from roiseg.distill.feature_loss import STILL, attention, cell_errors, feature_loss, variance


def drawn(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def test_errors_by_hand() -> None:
    guess = torch.tensor([[3.0, 0.0], [4.0, 1.0]]).view(1, 2, 1, 2)  # cells (3, 4) and (0, 1)
    truth = torch.tensor([[4.0, 0.0], [3.0, -2.0]]).view(1, 2, 1, 2)  # cells (4, 3) and (0, -2)
    torch.testing.assert_close(cell_errors(guess, truth, "mse"), torch.tensor([[[1.0, 4.5]]]))
    torch.testing.assert_close(cell_errors(guess, truth, "cosine"), torch.tensor([[[1 - 24 / 25, 2.0]]]))


def test_mse_is_that_of_torch_and_cosine_asks_for_the_direction_alone() -> None:
    guess, truth = drawn(2, 5, 3, 4), drawn(2, 5, 3, 4, seed=1)
    plain = feature_loss(cell_errors(guess, truth, "mse"), None, None)
    torch.testing.assert_close(plain, torch.nn.functional.mse_loss(guess, truth))
    torch.testing.assert_close(cell_errors(7 * guess, truth, "cosine"), cell_errors(guess, truth, "cosine"))


def test_cosine_of_nothing() -> None:
    guess = torch.zeros(1, 3, 2, 2, requires_grad=True)
    errors = cell_errors(guess, drawn(1, 3, 2, 2), "cosine")
    errors.sum().backward()  # type: ignore[no-untyped-call]
    assert errors.tolist() == [[[1, 1], [1, 1]]]
    assert guess.grad is not None
    assert guess.grad.isfinite().all()


def test_attention_by_hand() -> None:
    truth = torch.tensor([[1.0, 0.0, 2.0], [1.0, 0.0, 0.0]]).view(1, 2, 1, 3)  # mean squares 1, 0, 2
    torch.testing.assert_close(attention(truth), torch.tensor([[[1.0, 0.0, 2.0]]]))


def test_attention_keeps_the_scale_of_each_image() -> None:
    truth = drawn(3, 4, 5, 6) * torch.tensor([1.0, 100.0, 1e-3]).view(3, 1, 1, 1)
    weights = attention(truth.requires_grad_())
    torch.testing.assert_close(weights.mean(dim=(1, 2)), torch.ones(3))
    torch.testing.assert_close(weights, attention(truth * 8))
    assert not weights.requires_grad


def test_attention_to_an_empty_map_is_even() -> None:
    assert attention(torch.zeros(1, 3, 2, 2)).tolist() == [[[1, 1], [1, 1]]]
    assert attention(torch.full((1, 1, 1, 1), 1e-30)).isfinite().all()


def test_variance_is_the_error_of_knowing_the_means() -> None:
    truth = drawn(2, 3, 4, 5) * torch.tensor([1.0, 5.0, 0.1]).view(1, 3, 1, 1) + 2
    guess = truth.mean(dim=(0, 2, 3), keepdim=True).expand_as(truth)
    torch.testing.assert_close(variance(truth), cell_errors(guess, truth, "mse").mean())


def test_variance_of_a_still_map_and_of_none() -> None:
    for truth in (torch.full((2, 3, 4, 4), 7.0), torch.zeros(0, 3, 4, 4)):
        assert float(variance(truth)) == pytest.approx(STILL)


def test_clamped_cells_leave_the_others_their_gradient() -> None:
    errors = torch.tensor([[[0.5, 20.0, 3.0]]], requires_grad=True)
    found = feature_loss(errors, None, (1.0, 10.0))
    found.backward()  # type: ignore[no-untyped-call]
    assert float(found.detach()) == pytest.approx((1 + 10 + 3) / 3)
    assert errors.grad is not None
    torch.testing.assert_close(errors.grad, torch.tensor([[[0, 0, 1 / 3]]]))


def test_weights_of_cells() -> None:
    found = feature_loss(torch.tensor([[[1.0, 2.0, 30.0]]]), torch.tensor([[[0.5, 0.5, 2.0]]]), (0.0, 10.0))
    assert float(found) == pytest.approx((0.5 + 1 + 20) / 3)


def test_no_images() -> None:
    empty = torch.zeros(0, 3, 4, 4)
    assert float(feature_loss(cell_errors(empty, empty, "cosine"), attention(empty), (0.0, 10.0))) == 0
