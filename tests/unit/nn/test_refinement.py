"""Tests of roiseg.nn.refinement: edges of probabilities by hand, an upsampler of each kind, a refiner that starts gently."""

from typing import Literal

import pytest
import torch

from roiseg.nn.refinement import BoundaryRefinement, SubPixels, make_upsampling, probability_edges
from roiseg.nn.style import group_style

STYLE = group_style(1)


def test_edges_lie_between_the_classes() -> None:
    logits = torch.zeros(1, 3, 4, 6)
    logits[:, 1, :, 3:] = 50.0
    logits[:, 0, :, :3] = 50.0
    edges = probability_edges(logits)
    torch.testing.assert_close(edges[0, 0, 1], torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(probability_edges(logits.transpose(2, 3)), edges.transpose(2, 3))


def test_each_roi_has_edges_from_0_to_1() -> None:
    edges = probability_edges(torch.randn(3, 3, 5, 7) * torch.tensor([0.1, 1.0, 9.0]).view(3, 1, 1, 1))
    torch.testing.assert_close(edges.amax((1, 2, 3)), torch.ones(3), atol=1e-2, rtol=0)
    assert not edges.amin((1, 2, 3)).any()


def test_flat_logits_have_no_edges_and_finite_gradients() -> None:
    logits = torch.zeros(2, 3, 4, 5, requires_grad=True)
    edges = probability_edges(logits)
    assert not edges.detach().any()
    edges.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_refinement_starts_gently_and_only_at_edges() -> None:
    torch.manual_seed(0)
    block, logits = BoundaryRefinement(4, STYLE), torch.zeros(1, 3, 4, 8)
    logits[:, 1, :, 4:] = 50.0
    logits[:, 0, :, :4] = 50.0
    change = (block(logits) - logits).detach().abs()
    assert 0 < float(change.max()) < 0.1
    assert float(change[:, :, :, [0, 1, 6, 7]].max()) < 1e-3 * float(change.max()) + 1e-6
    block.weight.data.zero_()
    torch.testing.assert_close(block(logits), logits)


@pytest.mark.parametrize("kind", ["progressive", "subpixel"])
@pytest.mark.parametrize("mask_hw", [(12, 20), (7, 9)])
def test_upsampling_sizes(kind: Literal["progressive", "subpixel"], mask_hw: tuple[int, int]) -> None:
    block = make_upsampling(kind, 8, mask_hw, STYLE)
    for rois in (0, 2):
        assert block(torch.randn(rois, 8, 3, 5)).shape == (rois, 3, *mask_hw)


def test_sub_pixels_match_pixel_shuffle_and_bear_no_rois() -> None:
    x = torch.randn(2, 12, 3, 5)
    assert torch.equal(SubPixels()(x), torch.nn.PixelShuffle(2)(x))
    empty = torch.zeros(0, 12, 3, 5, requires_grad=True)
    SubPixels()(empty).sum().backward()
    assert empty.grad is not None
