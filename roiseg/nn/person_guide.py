"""What a net for people against background, the teacher, says of each ROI.

There is one polarity: the teacher's logit is more than 0 where there is a person. The original's two channels were the other way
round in one place and not in another, and its guide held people back.

Symbols: N images, R ROIs, (H, W) cells of the teacher's map, (g, g') the ROI grid.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from roiseg.nn.roi_align import roi_align
from roiseg.types import HW, TEACHER

BACKGROUND, PERSON = 0, 1
"""Channels of what `PersonMap` gives."""

FLOOR = 0.5
"""Factor of `PersonGuide` where the teacher sees nobody."""


class PersonMap(nn.Module):
    """The teacher's logits as probabilities of background and person, aligned to the ROIs; outside of the image is background."""

    def __init__(self, *, roi_hw: HW, sampling_ratio: int) -> None:
        """Build the block; it has no weights.

        Args:
            roi_hw: (g, g').
            sampling_ratio: samples along each side of a bin.
        """
        super().__init__()
        self._roi_hw, self._sampling_ratio = roi_hw, sampling_ratio

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> Tensor:
        """Layers, of them `teacher` (N, 1, H, W), and (R, 5) -> (R, 2, g, g'): `BACKGROUND`, then `PERSON`, of sum 1."""
        person = roi_align(features[TEACHER].sigmoid(), boxes, self._roi_hw, self._sampling_ratio)
        return torch.cat([1 - person, person], dim=1)


class PersonGuide(nn.Module):
    """A factor on attention: 1 where the teacher is sure of a person, half of that where it is sure that there is none."""

    def __init__(self, people: PersonMap) -> None:
        """Put the block together.

        Args:
            people: on the grid of the attention.
        """
        super().__init__()
        self.people = people

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> Tensor:
        """Layers and (R, 5) -> (R, 1, g, g')."""
        person: Tensor = self.people(features, boxes)[:, PERSON:]
        return FLOOR + (1 - FLOOR) * person
