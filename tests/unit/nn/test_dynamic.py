"""Tests of roiseg.nn.dynamic: filters against convolutions one ROI at a time, coordinates by hand."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from roiseg.nn.dynamic import DynamicFilters, box_coordinates


@pytest.mark.parametrize("widths", [(4, 3), (4, 5, 3), (10, 8, 8, 3)])
def test_filters_match_reference(widths: tuple[int, ...]) -> None:
    block, x = DynamicFilters(widths), torch.randn(3, widths[0], 4, 6)
    made = torch.randn(3, block.parameters_per_roi)
    found = block(x, made)
    for roi in range(3):
        y, start = x[roi : roi + 1], 0
        for number, (before, after) in enumerate(pairwise(widths), start=1):
            weights = made[roi, start : start + before * after].view(after, before, 1, 1)
            biases = made[roi, start + before * after : start + before * after + after]
            y, start = F.conv2d(y, weights, biases), start + before * after + after
            y = y.relu() if number < len(widths) - 1 else y
        assert start == block.parameters_per_roi
        torch.testing.assert_close(found[roi : roi + 1], y, atol=1e-5, rtol=1e-5)


def test_condinst_s_filters_have_its_number_of_weights() -> None:
    """CondInst, section 3.2: 8 channels and 2 coordinates, two layers of 8 and one of 1 make 169."""
    assert DynamicFilters((10, 8, 8, 1)).parameters_per_roi == 169


def test_no_rois() -> None:
    block = DynamicFilters((4, 5, 3))
    assert block(torch.zeros(0, 4, 4, 6), torch.zeros(0, block.parameters_per_roi)).shape == (0, 3, 4, 6)


def test_coordinates_are_one_at_the_sides_of_the_box() -> None:
    x, y = box_coordinates(2, 4, torch.zeros(3, 7))[1]
    torch.testing.assert_close(x, torch.tensor([-0.75, -0.25, 0.25, 0.75]).expand(2, 4))
    torch.testing.assert_close(y, torch.tensor([[-0.5], [0.5]]).expand(2, 4))
    assert box_coordinates(2, 4, torch.zeros(0, 7)).shape == (0, 2, 2, 4)
