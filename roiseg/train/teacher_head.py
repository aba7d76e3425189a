"""A trained head that another one learns from while it stands still."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from roiseg.cache.source import FeatureSource
from roiseg.errors import CheckpointError
from roiseg.heads import parse_model
from roiseg.nn.outputs import HeadOutput
from roiseg.train.checkpoint import Checkpoint, differing, load_checkpoint
from roiseg.trained import with_weights

SHARED = (("dataset", "roi_padding"), ("loss", "non_target"))
"""Params that say what an ROI and its classes are: they must be the student's."""


class TeacherHead:
    """What a head says of ROIs: no gradient, no dropout, float32.

    Attributes:
        layers: layers of the store that it reads.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str]) -> None:
        """Freeze it.

        Args:
            module: the head.
            layers: see the class.
        """
        self._module, self.layers = module.eval().requires_grad_(requires_grad=False), tuple(layers)

    def __call__(self, features: Mapping[str, Tensor], boxes: Tensor) -> HeadOutput:
        """Its outputs, in eval mode.

        Args:
            features: layer -> (B, C, H, W) float32; as they are stored, without noise.
            boxes: (R, 5), see `roiseg.batches.Batch`, on the same device.
        """
        with torch.no_grad(), torch.autocast(boxes.device.type, enabled=False):
            found: HeadOutput = self._module.to(boxes.device)({name: features[name] for name in self.layers}, boxes)
            return found


def load_teacher_head(
    file: Path, shared: Mapping[str, Mapping[str, Any]], store: FeatureSource, outputs: Collection[str]
) -> TeacherHead:
    """The head of a checkpoint, whatever its family and size.

    Args:
        file: such as `models/kept/large/default/best_model.pth`.
        shared: today's sections as plain values, as far as `SHARED` names them.
        store: features of the training split.
        outputs: that it must give beside its mask logits.

    Raises:
        CheckpointError: no checkpoint of a head; one of other features, ROIs or classes; or without an output that is learnt.
    """
    checkpoint = load_checkpoint(file)
    if "head" not in checkpoint.params.get("model", {}):
        raise CheckpointError(f"{file}: holds no head, so no head can learn from it; name a file of models/heads or of a kept run")
    lines = [*_otherwise(checkpoint, shared), *differing(checkpoint.fingerprint, store.asked)]
    if lines:
        raise CheckpointError(
            f"{file}: the head in it has learnt other features, ROIs or classes than it is to teach (then -> now); name another in "
            "distill_from, or put the values back:\n  " + "\n  ".join(lines)
        )
    model = parse_model(checkpoint.params["model"])
    missing = sorted(set(outputs) - model.aux_names)
    if missing:
        raise CheckpointError(
            f"{file}: a head {model.head!r} without the outputs {', '.join(missing)}, which loss.distill.branches reads; name a "
            "hierarchical head, or set it to 0.0"
        )
    return TeacherHead(with_weights(checkpoint, file, model, store.specs), model.layers)


def _otherwise(checkpoint: Checkpoint, shared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    then, now = (
        {section: {key: values.get(section, {}).get(key)} for section, key in SHARED} for values in (checkpoint.params, shared)
    )
    return differing(then, now)
