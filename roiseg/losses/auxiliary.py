"""Losses of a head's further branches: where people are, the target's contour, and its depth (spec 11.9, 11.10).

All of them read logits and apply the sigmoid once: the original's contour branch ended with one of its own.

Symbols: R ROIs, (h, w) cells of the mask; distances in mask pixels.
"""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from roiseg.classes import BACKGROUND
from roiseg.dataset import Targets
from roiseg.losses.boundary import outline_distance
from roiseg.losses.part import Part, Parts
from roiseg.losses.region import IGNORE, masked_mean
from roiseg.nn.outputs import HeadOutput
from roiseg.params import Section

FOREGROUND, CONTOUR, DISTANCE = "foreground", "contour", "distance"
"""Outputs of such branches: (R, 1, h, w) logits each."""


class ForegroundParams(Section):
    """Section `loss.auxiliary.foreground`."""

    weight: float = Field(gt=0)
    pos_weight: float = Field(gt=0)


class ContourParams(Section):
    """Section `loss.auxiliary.contour`."""

    weight: float = Field(gt=0)
    width: float = Field(gt=0.5)


class DistanceParams(Section):
    """Section `loss.auxiliary.distance`."""

    weight: float = Field(gt=0)


class AuxiliaryParams(Section):
    """Section `loss.auxiliary`: branches that the head has, each with the loss that it learns by."""

    foreground: ForegroundParams | None
    contour: ContourParams | None
    distance: DistanceParams | None


def contour_map(target: Targets, width: float) -> Tensor:
    """Pixels of the target's contour, on either side of it.

    Args:
        target: distances of R ROIs.
        width: distance from the outline below which a pixel is one of the contour's.

    Returns:
        (R, h, w) float of 0 and 1.
    """
    return (outline_distance(target.target, target.boundary) < width).to(target.boundary.dtype)


def normalised_distance(target: Targets) -> Tensor:
    """Depth of each pixel in the target: its distance to the outline over the largest one in the ROI.

    The original's was a mask with softened rims, not a distance.

    Args:
        target: distances of R ROIs.

    Returns:
        (R, h, w) float from 0 outside the target to 1 where it is deepest; 1 all over where nothing but target is to be seen.
    """
    depth = torch.where(target.target == 0, target.boundary, 0.0)
    return depth / depth.amax(dim=(1, 2), keepdim=True).clamp(min=0.5)


class AuxiliaryLoss:
    """The losses of the branches that are on."""

    def __init__(self, params: AuxiliaryParams) -> None:
        """Fix coefficients."""
        self._params = params

    def __call__(self, output: HeadOutput, target: Targets) -> Parts:
        """Parts of a batch.

        Args:
            output: with the logits of the branches.
            target: of the same ROIs; `IGNORE` is left out.

        Returns:
            `foreground` with its accuracy and IoU, `contour`, `distance`: those that are on. The cross entropy of `distance` has a
            floor above 0, for its truths lie between 0 and 1.
        """
        params, counted = self._params, target.labels != IGNORE
        parts: Parts = {}
        if params.foreground is not None:
            logits, people = output.aux[FOREGROUND][:, 0], counted & (target.labels != BACKGROUND)
            pos_weight = torch.tensor(params.foreground.pos_weight, device=logits.device)
            parts[FOREGROUND] = Part(_entropy(logits, people.to(logits.dtype), counted, pos_weight), params.foreground.weight)
            parts |= _agreement(logits > 0, people, counted)
        if params.contour is not None:
            truth = contour_map(target, params.contour.width)
            parts[CONTOUR] = Part(_entropy(output.aux[CONTOUR][:, 0], truth, counted), params.contour.weight)
        if params.distance is not None:
            truth = normalised_distance(target)
            parts[DISTANCE] = Part(_entropy(output.aux[DISTANCE][:, 0], truth, counted), params.distance.weight)
        return parts


def _entropy(logits: Tensor, truth: Tensor, counted: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    return masked_mean(F.binary_cross_entropy_with_logits(logits, truth, reduction="none", pos_weight=pos_weight), counted)


def _agreement(guess: Tensor, truth: Tensor, counted: Tensor) -> Parts:
    """Share of pixels that are right, and IoU, over the whole batch; no person, said and true, is an IoU of 1."""
    accuracy = masked_mean((guess == truth).float(), counted)
    shared, either = (guess & truth & counted).sum(), ((guess | truth) & counted).sum()
    iou = torch.where(either > 0, shared / either.clamp(min=1), 1.0)
    return {"foreground_accuracy": Part(accuracy, None), "foreground_iou": Part(iou, None)}
