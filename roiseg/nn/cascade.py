"""Later stages of a cascade: each reads the shared features and what the stage before made of them (after Cascade R-CNN).

Symbols: R ROIs, C channels of the shared features, S channels of a stage, (g, g') grid of the features, (h, w) cells of the mask.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from roiseg.classes import CLASS_NAMES
from roiseg.nn.blocks import conv, residual, resize
from roiseg.nn.style import Style

CLASSES = len(CLASS_NAMES)


class BoundaryStage(nn.Module):
    """Second stage: a change to the first one's logits."""

    def __init__(self, channels: int, stage_channels: int, style: Style) -> None:
        """Build the stage.

        Args:
            channels: C.
            stage_channels: S.
            style: norms and activations.
        """
        super().__init__()
        self.change = nn.Sequential(
            conv(channels + CLASSES, stage_channels, style),
            conv(stage_channels, stage_channels, style),
            residual(stage_channels, style, 2),
            nn.Conv2d(stage_channels, CLASSES, 1),
        )

    def forward(self, shared: Tensor, logits: Tensor) -> Tensor:
        """(R, C, g, g') and (R, 3, h, w) -> (R, 3, h, w)."""
        changed: Tensor = logits + self.change(_beside(shared, logits))
        return changed


class SeparationStage(nn.Module):
    """Third stage: new logits, from wide surroundings (dilations of 2 and 4) that tell one person from the next."""

    def __init__(self, channels: int, stage_channels: int, style: Style) -> None:
        """Build the stage.

        Args:
            channels: C.
            stage_channels: S.
            style: norms and activations.
        """
        super().__init__()
        self.first = conv(channels + CLASSES, stage_channels, style, kernel=5)
        self.near, self.far = (_dilated(stage_channels, dilation, style) for dilation in (2, 4))
        self.last = nn.Sequential(residual(stage_channels, style, 2), nn.Conv2d(stage_channels, CLASSES, 1))

    def forward(self, shared: Tensor, logits: Tensor) -> Tensor:
        """(R, C, g, g') and (R, 3, h, w) -> (R, 3, h, w)."""
        x = self.first(_beside(shared, logits))
        separated: Tensor = self.last(x + self.near(x) + self.far(x))
        return separated


class Cascade(nn.Module):
    """Later stages, one after the other."""

    def __init__(self, stages: Sequence[nn.Module], features: Sequence[nn.Module]) -> None:
        """Put the stages together.

        Args:
            stages: features (R, C, g, g') and logits (R, 3, h, w) -> (R, 3, h, w).
            features: fused inputs (R, C, g, g') -> the features of each stage, of the same shape; none where all stages read the
                shared features.
        """
        super().__init__()
        self.stages, self.features = nn.ModuleList(stages), nn.ModuleList(features)

    def forward(self, fused: Tensor, shared: Tensor, logits: Tensor) -> list[Tensor]:
        """Logits of each stage.

        Args:
            fused: (R, C, g, g') the fused inputs, before the trunk.
            shared: (R, C, g, g') what the trunk made of them.
            logits: (R, 3, h, w) of the first stage.

        Returns:
            A list of (R, 3, h, w), those of the first stage in front.
        """
        seen = [part(fused) for part in self.features] or [shared] * len(self.stages)
        found = [logits]
        for stage, features in zip(self.stages, seen, strict=True):
            found.append(stage(features, found[-1]))
        return found


def make_cascade(channels: int, stage_channels: int, style: Style, *, share_features: bool) -> Cascade:
    """The second and the third stage.

    Args:
        channels: C.
        stage_channels: channels within the stages.
        style: norms and activations.
        share_features: whether both read the shared features; otherwise each makes its own of the fused inputs, as the seed's first
            stage does: a 1x1 convolution and a residual block.
    """
    own = () if share_features else (_own_features(channels, style), _own_features(channels, style))
    return Cascade([BoundaryStage(channels, stage_channels, style), SeparationStage(channels, stage_channels, style)], own)


def _own_features(channels: int, style: Style) -> nn.Sequential:
    return nn.Sequential(conv(channels, channels, style, kernel=1), residual(channels, style))


def _dilated(channels: int, dilation: int, style: Style) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation), style.make_norm(channels), style.make_activation()
    )


def _beside(shared: Tensor, logits: Tensor) -> Tensor:
    """Features at mask size, and probabilities: (R, C + 3, h, w)."""
    return torch.cat([resize(shared, (logits.shape[2], logits.shape[3])), logits.softmax(dim=1)], dim=1)
