"""Tests of roiseg.nn.rgb_extractor: sizes as published, the ROI's own grid, what is built of what."""

import pytest
import torch
from torch import nn

from roiseg.nn.blocks import ConvNormAct, ResBlock
from roiseg.nn.rgb_extractor import RgbExtractor, Steps
from roiseg.nn.style import Style

BATCH = Style(norm="batch")


@pytest.mark.parametrize(("steps", "expected"), [(3, 1_988_992), (4, 2_882_496)])
def test_published_sizes(steps: Steps, expected: int) -> None:
    with torch.device("meta"):
        extractor = RgbExtractor(256, steps=steps, style=BATCH)
    assert sum(item.numel() for item in extractor.parameters()) == expected


@pytest.mark.parametrize(
    ("steps", "widths", "blocks"), [(3, [4, 8, 16, 16], [4, 8, 16]), (4, [4, 8, 12, 16], [8, 12, 16])], ids=["three", "four"]
)
def test_steps_widen_and_blocks_stand_behind_them(steps: Steps, widths: list[int], blocks: list[int]) -> None:
    extractor = RgbExtractor(16, steps=steps, style=BATCH)
    convolutions = [part.conv for part in extractor.steps if isinstance(part, ConvNormAct)]
    assert [item.out_channels for item in convolutions] == widths
    assert [item.kernel_size for item in convolutions] == [(3, 3)] * 3 + [(1, 1) if steps == 3 else (3, 3)]
    assert [part.second.out_channels for part in extractor.modules() if isinstance(part, ResBlock)] == blocks
    assert all(item.stride == (1, 1) for item in extractor.modules() if isinstance(item, nn.Conv2d))


@pytest.mark.parametrize("steps", [3, 4])
@pytest.mark.parametrize("rois", [0, 1, 3])
def test_the_grid_stays(steps: Steps, rois: int) -> None:
    extractor = RgbExtractor(8, steps=steps, style=BATCH)
    found = extractor(torch.rand(rois, 3, 7, 5))
    assert found.shape == (rois, 8, 7, 5)
    found.sum().backward()
    assert all(item.grad is None or torch.isfinite(item.grad).all() for item in extractor.parameters())


def test_the_style_is_that_of_the_head() -> None:
    extractor = RgbExtractor(8, steps=3, style=Style(norm="instance", activation="gelu"))
    assert any(isinstance(item, nn.GELU) for item in extractor.modules())
    assert not any(isinstance(item, nn.ReLU | nn.BatchNorm2d) for item in extractor.modules())
