"""Tests of roiseg.nn.relational: who hears whom, a slow reference, and no or one ROI."""

import pytest
import torch

from roiseg.nn.relational import RoiAttention


@pytest.fixture
def block() -> RoiAttention:
    torch.manual_seed(0)
    return RoiAttention(8, heads=2, dropout=0.0)


def rois(count: int, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(count, 2, generator=generator) * 0.5
    number = (torch.arange(count) % images).float()[:, None]
    boxes = torch.cat([number, corner, corner + 0.1 + torch.rand(count, 2, generator=generator) * 0.4], dim=1)
    return torch.randn(count, 8, 3, 5, generator=generator), boxes


def test_matches_reference_image_by_image(block: RoiAttention) -> None:
    x, boxes = rois(7, 3)
    found = block(x, boxes)
    for image in range(3):
        mine = boxes[:, 0] == image
        low, high = boxes[mine, 1:3], boxes[mine, 3:]
        tokens = block.norm(x[mine].mean((2, 3)) + block.place(torch.cat([(low + high) / 2, high - low], 1)))
        heard = []
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            query, key, value = (layer(tokens)[:, part] for layer in (block.query, block.key, block.value))
            heard.append(torch.softmax(query @ key.T / 2, dim=1) @ value)
        expected = x[mine] + block.out(torch.cat(heard, 1))[:, :, None, None]
        torch.testing.assert_close(found[mine], expected, atol=1e-5, rtol=1e-5)


def test_rois_hear_those_of_their_image_only(block: RoiAttention) -> None:
    x, boxes = rois(6, 2)
    changed = x.clone()
    changed[0] += torch.randn(8, 1, 1)
    difference = (block(changed, boxes) - block(x, boxes)).detach().abs().amax((1, 2, 3))
    assert (difference[[0, 2, 4]] > 1e-4).all()
    assert not difference[[1, 3, 5]].any()


def test_order_makes_no_difference(block: RoiAttention) -> None:
    x, boxes = rois(6, 2)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(block(x[order], boxes[order]), block(x, boxes)[order])


def test_the_place_of_a_box_counts(block: RoiAttention) -> None:
    x, boxes = rois(3, 1)
    moved = boxes.clone()
    moved[1, 1:] += 0.1
    assert (block(x, moved) - block(x, boxes)).abs().max() > 1e-4


@pytest.mark.parametrize("count", [0, 1, 289])
def test_any_number_of_rois(block: RoiAttention, count: int) -> None:
    x, boxes = rois(count, 1)
    found = block(x, boxes)
    assert found.shape == x.shape
    assert torch.isfinite(found).all()
    found.sum().backward()
    assert all(item.grad is None or torch.isfinite(item.grad).all() for item in block.parameters())


def test_dropout_is_for_training() -> None:
    block = RoiAttention(8, heads=2, dropout=0.5)
    x, boxes = rois(6, 1)
    assert not torch.equal(block(x, boxes), block(x, boxes))
    block.eval()
    assert torch.equal(block(x, boxes), block(x, boxes))
