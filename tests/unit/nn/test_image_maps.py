"""Tests of roiseg.nn.image_maps: what is painted, by hand; layers resized to the first one's grid and summed."""

import pytest
import torch

from roiseg.nn.blocks import resize
from roiseg.nn.image_maps import POSITION_CHANNELS, ImageMap, position_maps
from roiseg.nn.style import group_style
from roiseg.types import FeatureSpec

BOXES = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0], [1.0, 0.0, 0.0, 0.25, 0.5]])
"""Two boxes on maps of 2 x 4 cells, whose centres are at 0.25 and 0.75, and 0.125, 0.375, 0.625 and 0.875."""


def test_inside_is_where_the_centre_is() -> None:
    found = position_maps(BOXES, 2, 4, ["inside"])
    assert found.tolist() == [[[[0, 0, 0, 0], [0, 1, 1, 0]]], [[[1, 0, 0, 0], [0, 0, 0, 0]]]]


def test_offset_size_and_relative_by_hand() -> None:
    offset = position_maps(BOXES, 2, 4, ["offset"])
    torch.testing.assert_close(offset[0, 0, 1], torch.tensor([-0.375, -0.125, 0.125, 0.375]))
    torch.testing.assert_close(offset[0, 1, :, 2], torch.tensor([-0.5, 0.0]))
    size = position_maps(BOXES, 2, 4, ["size"])
    torch.testing.assert_close(size, torch.tensor([[0.5, 0.5], [0.25, 0.5]])[:, :, None, None].expand(2, 2, 2, 4))
    relative = position_maps(BOXES, 2, 4, ["relative"])
    torch.testing.assert_close(relative[0, 0, 1], torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    torch.testing.assert_close(relative[1, 0, 0], torch.tensor([0.0, 1.0, 2.0, 2.0]))


def test_maps_stand_in_the_order_asked_for() -> None:
    names = list(POSITION_CHANNELS)
    whole = position_maps(BOXES, 3, 5, names)
    assert whole.shape == (2, sum(POSITION_CHANNELS.values()), 3, 5) == (2, 7, 3, 5)
    torch.testing.assert_close(whole, torch.cat([position_maps(BOXES, 3, 5, [name]) for name in names], dim=1))
    torch.testing.assert_close(position_maps(BOXES, 3, 5, names[::-1])[:, :2], position_maps(BOXES, 3, 5, names[-1:]))


def test_no_rois_and_boxes_without_area() -> None:
    assert position_maps(BOXES[:0], 3, 5, list(POSITION_CHANNELS)).shape == (0, 7, 3, 5)
    assert torch.isfinite(position_maps(torch.tensor([[0.0, 0.5, 0.5, 0.5, 0.5]]), 3, 5, list(POSITION_CHANNELS))).all()


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_image_map_takes_the_grid_of_the_first_layer(order: tuple[str, str]) -> None:
    specs = {"a": FeatureSpec("a", 3, (8.0, 8.0)), "b": FeatureSpec("b", 2, (4.0, 4.0))}
    features = {"a": torch.randn(2, 3, 4, 6), "b": torch.randn(2, 2, 8, 12)}
    block = ImageMap([specs[name] for name in order], 4, group_style(1))
    parts = [resize(block.reduce[name](features[name]), (4, 6) if order[0] == "a" else (8, 12)) for name in order]
    torch.testing.assert_close(block(features), parts[0] + parts[1])
