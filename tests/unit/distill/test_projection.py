"""Tests of roiseg.distill.projection."""

import torch

from roiseg.distill.projection import Projection


def test_parameters_of_the_seed() -> None:
    """40 -> 768 -> 1024 (spec 13.1)."""
    assert sum(weight.numel() for weight in Projection(40, 768, 1024).parameters()) == 820_480


def test_cells_are_projected_one_by_one() -> None:
    torch.manual_seed(0)
    projection = Projection(3, 4, 5).eval()
    x = torch.randn(2, 3, 4, 6)
    found = projection(x)
    assert found.shape == (2, 5, 4, 6)
    torch.testing.assert_close(found[1:, :, 2:3, 5:], projection(x[1:, :, 2:3, 5:]))
    first, last = projection.widen, projection.project
    assert first.bias is not None
    assert last.bias is not None
    hidden = torch.einsum("oi,bihw->bohw", first.weight[:, :, 0, 0], x) + first.bias.view(1, -1, 1, 1)
    hidden = torch.relu(hidden / (1 + projection.norm.eps) ** 0.5)  # fresh running figures: mean 0, variance 1
    expected = torch.einsum("oi,bihw->bohw", last.weight[:, :, 0, 0], hidden) + last.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(found, expected)


def test_no_images() -> None:
    assert Projection(3, 4, 5).train()(torch.zeros(0, 3, 4, 6)).shape == (0, 5, 4, 6)
