"""Tests of roiseg.unet.grid: areas and lines by hand, by a slow copy, and by torch where it has the same."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from roiseg.unet.grid import axis_weights, to_grid


def drawn(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def test_areas_by_hand() -> None:
    """Three cells to two: the middle one counts half in each."""
    torch.testing.assert_close(axis_weights(3, 2), torch.tensor([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]))
    torch.testing.assert_close(axis_weights(2, 4), torch.tensor([[1.0, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]))


@pytest.mark.parametrize(("cells", "wanted"), [(5, 5), (7, 3), (80, 13), (3, 8), (1, 4), (4, 1)])
def test_shares_sum_to_one(cells: int, wanted: int) -> None:
    weights = axis_weights(cells, wanted)
    assert weights.shape == (wanted, cells)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(wanted))


@pytest.mark.parametrize("hw", [(4, 3), (2, 1)])
def test_whole_areas_are_those_of_pooling(hw: tuple[int, int]) -> None:
    x = drawn(2, 3, 8, 6)
    torch.testing.assert_close(to_grid(x, hw), F.avg_pool2d(x, (8 // hw[0], 6 // hw[1])))


def test_areas_match_reference() -> None:
    """Each cell cut into 5 by 3 pieces, and the pieces averaged."""
    x = drawn(1, 2, 7, 4)
    pieces = x.repeat_interleave(5, dim=2).repeat_interleave(3, dim=3)
    torch.testing.assert_close(to_grid(x, (5, 3)), F.avg_pool2d(pieces, (7, 4)))


def test_lines_are_those_of_torch() -> None:
    x = drawn(2, 3, 4, 5)
    torch.testing.assert_close(to_grid(x, (9, 7)), F.interpolate(x, (9, 7), mode="bilinear", align_corners=False))


def test_each_axis_goes_its_own_way() -> None:
    x = drawn(1, 2, 8, 3)
    torch.testing.assert_close(
        to_grid(x, (4, 6)), F.interpolate(F.avg_pool2d(x, (2, 1)), (4, 6), mode="bilinear", align_corners=False)
    )


def test_the_same_size_is_left_alone() -> None:
    x = drawn(1, 1, 3, 4)
    assert to_grid(x, (3, 4)) is x


def test_no_images_and_types() -> None:
    assert to_grid(torch.zeros(0, 3, 4, 4), (2, 2)).shape == (0, 3, 2, 2)
    assert to_grid(torch.ones(1, 1, 4, 4, dtype=torch.bfloat16), (2, 3)).dtype == torch.bfloat16
