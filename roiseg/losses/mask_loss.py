"""The one loss: weighted cross entropy and Dice, and every further term that section `loss` switches on.

Symbols: R ROIs, K = 3 classes, (h, w) cells of the mask.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from roiseg.dataset import Targets
from roiseg.errors import TrainingError
from roiseg.losses.auxiliary import AuxiliaryLoss
from roiseg.losses.boundary import boundary_cross_entropy, boundary_weight_map, separation_weight_map
from roiseg.losses.cascade import earlier_stages
from roiseg.losses.class_weights import ClassWeights
from roiseg.losses.contour import active_contour
from roiseg.losses.contrastive import EMBEDDING, contrastive
from roiseg.losses.edge import edge_loss
from roiseg.losses.focal import focal_map
from roiseg.losses.full_map import FULL_MAP, full_map_loss
from roiseg.losses.head_distill import HeadDistillation
from roiseg.losses.hierarchical import HierarchicalLoss
from roiseg.losses.params import LossParams
from roiseg.losses.part import Part, Parts, total_of
from roiseg.losses.region import IGNORE, cross_entropy_map, dice, masked_mean, tversky, weighted_mean
from roiseg.losses.schedule import between
from roiseg.losses.truth import truth_of
from roiseg.nn.outputs import HeadOutput


class MaskLoss:
    """`loss(output, target) -> dict` of scalars with `total` and its parts."""

    def __init__(self, params: LossParams, weights: ClassWeights) -> None:
        """Fix coefficients and class weights.

        Args:
            params: section `loss`.
            weights: of background, target, non-target.
        """
        self._params, self._weights = params.of_known_classes(), weights
        self._auxiliary = AuxiliaryLoss(params.auxiliary)
        self._hierarchical = None if params.hierarchical is None else HierarchicalLoss(params.hierarchical)
        self._distillation = None if params.distill is None else HeadDistillation(params.distill)
        self.begin_epoch(0.0)

    def begin_epoch(self, share: float) -> None:
        """Set what changes over a run.

        Args:
            share: of the run: 0 in its first epoch, 1 in its last.
        """
        params, adaptive = self._params, self._params.adaptive
        self._boundary_weight, self._separation_weight = params.boundary_weight, params.instance_sep_weight
        if adaptive is not None:
            self._boundary_weight = between(params.boundary_weight, adaptive.end_boundary_weight, share, adaptive.curve)
            self._separation_weight = between(params.instance_sep_weight, adaptive.end_instance_sep_weight, share, adaptive.curve)

    def state(self) -> dict[str, float]:
        """What the loss has seen of the run; empty where it learns nothing from one batch for the next."""
        return {} if self._hierarchical is None else self._hierarchical.state()

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from what `state` gave; from the beginning where it is empty."""
        if self._hierarchical is not None:
            self._hierarchical.load_state(state)

    def __call__(self, output: HeadOutput, target: Targets, teacher: HeadOutput | None = None) -> dict[str, Tensor]:
        """Losses of a batch of ROIs.

        Args:
            output: `mask_logits` (R, K, h, w), and in `aux` what `needed_aux` names.
            target: labels and distances of the same ROIs, and frames where `needs_frames` says so.
            teacher: what a larger head gives for the same ROIs, with what `taught_outputs` names; not read without `loss.distill`.

        Returns:
            `total`, each part by name (before its coefficient, but for the total), `mean_pixel_weight`, `boundary_accuracy`, and
            the weights in force as `weight_*`, for the log.

        Raises:
            TrainingError: `loss.distill` without a teacher.
        """
        with torch.autocast(output.mask_logits.device.type, enabled=False):
            return self._losses(_in_float32(output), truth_of(target, self._params.non_target, self._params.ignore_px), teacher)

    def _losses(self, output: HeadOutput, target: Targets, teacher: HeadOutput | None) -> dict[str, Tensor]:
        params, logits = self._params, output.mask_logits
        pixels = boundary_weight_map(target.boundary, params.boundary_width, self._boundary_weight)
        pixels = pixels * separation_weight_map(target.target, target.non_target, params.near_px, self._separation_weight)
        of_mask = self._of_mask(logits, target, pixels)
        summed = self._of_stages(output, target, pixels, of_mask) or of_mask
        summed = self._of_teacher(output, summed | self._of_branches(output, target), target, teacher)
        named = of_mask | summed
        return {
            "total": total_of(summed),
            **{name: part.value.detach() for name, part in named.items()},
            "mean_pixel_weight": masked_mean(pixels, torch.ones_like(pixels, dtype=torch.bool)).detach(),
            "boundary_accuracy": _boundary_accuracy(logits, target, params.boundary_width),
            **{f"weight_{name}": torch.tensor(part.weight) for name, part in named.items() if part.weight is not None},
            "weight_boundary": torch.tensor(self._boundary_weight),
            "weight_instance_sep": torch.tensor(self._separation_weight),
        }

    def _class_weights(self, like: Tensor) -> Tensor:
        return torch.tensor(self._weights, dtype=like.dtype, device=like.device)

    def _of_mask(self, logits: Tensor, target: Targets, pixels: Tensor) -> Parts:
        """Terms that look at the logits of a mask alone."""
        params, labels = self._params, target.labels
        weights = self._class_weights(logits)
        entropy = cross_entropy_map(logits, labels)
        if params.focal_gamma:
            entropy = focal_map(entropy, labels, params.focal_gamma, params.focal_classes)
        parts = {
            "ce": Part(weighted_mean(entropy, labels, weights, pixels), params.ce),
            "dice": Part(dice(logits, labels, params.dice_classes, params.dice_smooth), params.dice),
        }
        if params.tversky is not None:
            parts["tversky"] = Part(tversky(logits, labels, params.tversky, params.dice_smooth), params.tversky.weight)
        if params.boundary_ce is not None:
            parts["boundary_ce"] = Part(boundary_cross_entropy(logits, labels, params.boundary_ce), params.boundary_ce.weight)
        if params.edge is not None:
            parts["edge"] = Part(edge_loss(logits, target, params.edge), params.edge.weight)
        if params.active_contour is not None:
            value = active_contour(logits, labels, params.active_contour.curvature)
            parts["active_contour"] = Part(value, params.active_contour.weight)
        return parts

    def _of_stages(self, output: HeadOutput, target: Targets, pixels: Tensor, last: Parts) -> Parts:
        """The terms of each stage of a cascade, added up; nothing for a head that isn't one."""
        stages = [total_of(self._of_mask(logits, target, pixels)) for logits in earlier_stages(output)]
        if not stages:
            return {}
        values = enumerate([*stages, total_of(last)], start=1)
        return {
            f"stage_{number}": Part(value, weight) for (number, value), weight in zip(values, self._params.cascade, strict=True)
        }

    def _of_teacher(self, output: HeadOutput, own: Parts, target: Targets, teacher: HeadOutput | None) -> Parts:
        """The terms of the truth with what is left of their coefficients beside a teacher, and those of the teacher."""
        if self._distillation is None or self._params.distill is None:
            return own
        if teacher is None:
            raise TrainingError("loss.distill is set, but the step has no teacher's answers; name one in train.distill_from")
        rest = 1 - self._params.distill.alpha
        shared = {name: Part(value, None if weight is None else rest * weight) for name, (value, weight) in own.items()}
        return shared | self._distillation(output, _in_float32(teacher), target.labels != IGNORE)

    def _of_branches(self, output: HeadOutput, target: Targets) -> Parts:
        """Terms that look at other outputs than the mask."""
        parts = self._auxiliary(output, target)
        if self._params.contrastive is not None:
            value = contrastive(output.aux[EMBEDDING], target.labels, self._params.contrastive)
            parts["contrastive"] = Part(value, self._params.contrastive.weight)
        if self._params.full_map is not None:
            logits = output.aux[FULL_MAP]
            value = full_map_loss(logits, target.frames, self._class_weights(logits), self._params.full_map.outside)
            parts[FULL_MAP] = Part(value, self._params.full_map.weight)
        if self._hierarchical is not None:
            parts |= self._hierarchical(output, target)
        return parts


def _in_float32(output: HeadOutput) -> HeadOutput:
    return HeadOutput(output.mask_logits.float(), {name: value.float() for name, value in output.aux.items()})


def _boundary_accuracy(logits: Tensor, target: Targets, width: float) -> Tensor:
    """Share of right answers beside borders, within half the band; where there is no border, nothing is wrong.

    Those are the pixels above 1.5 where the weight is 2 on the border (spec 11.5), and they stay the same when the weight changes.
    """
    near = (target.boundary < width / 2) & (target.labels != IGNORE)
    return 1 - masked_mean((logits.argmax(dim=1) != target.labels).float(), near)
