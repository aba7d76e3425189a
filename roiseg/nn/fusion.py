"""From the maps of several layers to one: each brought to a common grid, then put together.

Symbols: R ROIs, C channels, L layers, (h, w) cells of a layer's ROI grid, (g, g') of the common one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from roiseg.nn.blocks import Resize, conv, resize
from roiseg.nn.style import Style
from roiseg.types import HW


def to_grid(channels: int, from_hw: HW, to_hw: HW, style: Style) -> nn.Module:
    """What brings a layer's ROI grid to the common one: (R, C, *from_hw) -> (R, C, *to_hw).

    Twice the grid is halved by a stride; one and a half times is widened to 2C channels, sampled down, and narrowed again, so that
    what cells lose, channels can keep; a smaller grid is sampled up and smoothed; any other is convolved before and after.

    Args:
        channels: C.
        from_hw: (h, w).
        to_hw: (g, g').
        style: norms and activations.
    """
    if from_hw == to_hw:
        return nn.Identity()
    pairs = tuple(zip(from_hw, to_hw, strict=True))
    if all(before == 2 * after for before, after in pairs):
        return nn.Sequential(conv(channels, channels, style, stride=2), conv(channels, channels, style))
    if all(2 * before == 3 * after for before, after in pairs):
        return nn.Sequential(conv(channels, 2 * channels, style), Resize(to_hw), conv(2 * channels, channels, style))
    if all(before <= after for before, after in pairs):
        return nn.Sequential(Resize(to_hw), conv(channels, channels, style))
    return nn.Sequential(conv(channels, channels, style), Resize(to_hw), conv(channels, channels, style))


class WeightedSum(nn.Module):
    """A learnt share of each layer, the same for all channels and cells; shares start out equal and sum to 1."""

    def __init__(self, layers: int) -> None:
        """Build the block.

        Args:
            layers: L.
        """
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(layers))

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """L of (R, C, g, g') -> (R, C, g, g')."""
        return total([part * share for part, share in zip(parts, self.scores.softmax(dim=0), strict=True)])


class Sum(nn.Module):
    """The sum of the layers; of one layer, the layer."""

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """L of (R, C, g, g') -> (R, C, g, g')."""
        return total(parts)


class Concat(nn.Module):
    """All layers' channels side by side, reduced to those of one by a 1x1 convolution."""

    def __init__(self, layers: int, channels: int, style: Style) -> None:
        """Build the block.

        Args:
            layers: L.
            channels: C.
            style: norm and activation.
        """
        super().__init__()
        self.reduce = conv(layers * channels, channels, style, kernel=1)

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """L of (R, C, g, g') -> (R, C, g, g')."""
        reduced: Tensor = self.reduce(torch.cat(list(parts), dim=1))
        return reduced


class TopDown(nn.Module):
    """Each layer, and all that are coarser, on the layer's own grid (Feature pyramid networks, section 3).

    The coarsest map goes down as it is; every finer one takes what comes from above, resized to its grid, on top of its own. Each
    merged map is smoothed on its way out.
    """

    def __init__(self, channels: int, order: Sequence[int]) -> None:
        """Build the block.

        Args:
            channels: C.
            order: places of the layers, the coarsest first.
        """
        super().__init__()
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in order)
        self._order = tuple(order)

    def forward(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """L of (R, C, h, w), each of its own grid -> the same shapes in the same order."""
        merged = list(parts)
        for above, place in zip(self._order, self._order[1:], strict=False):
            merged[place] = merged[place] + resize(merged[above], (merged[place].shape[2], merged[place].shape[3]))
        return [smooth(part) for smooth, part in zip(self.smooth, merged, strict=True)]


def total(parts: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape, from the first on."""
    summed = parts[0]
    for part in parts[1:]:
        summed = summed + part
    return summed
