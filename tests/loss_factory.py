"""Losses with few or all terms, and made-up outputs of heads with every branch."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from roiseg.dataset import Targets
from roiseg.losses import LossParams
from roiseg.masks import label_distances
from roiseg.nn.outputs import HeadOutput

PLAIN: dict[str, Any] = {
    "non_target": "own",
    "ce": 1.0,
    "focal_gamma": 0.0,
    "focal_classes": [0, 1, 2],
    "dice": 0.0,
    "dice_classes": [1],
    "dice_smooth": 1.0,
    "tversky": None,
    "class_weights": {"mode": "none", "values": None, "cap": None},
    "boundary_weight": 1.0,
    "boundary_width": 3.0,
    "instance_sep_weight": 1.0,
    "near_px": 2.0,
    "adaptive": None,
    "ignore_px": 0.0,
    "boundary_ce": None,
    "edge": None,
    "active_contour": None,
    "contrastive": None,
    "full_map": None,
    "hierarchical": None,
    "auxiliary": {"foreground": None, "contour": None, "distance": None},
    "cascade": [0.3, 0.3, 0.4],
    "distill": None,
}
"""Section `loss` of plain cross entropy."""

FULL: dict[str, Any] = {
    **PLAIN,
    "focal_gamma": 2.0,
    "focal_classes": [1, 2],
    "dice": 0.8,
    "dice_classes": [1, 2],
    "tversky": {"weight": 0.5, "alpha": 0.3, "beta": 0.7, "classes": [1, 2]},
    "class_weights": {"mode": "manual", "values": [0.5, 1.0, 4.0], "cap": 2.0},
    "boundary_weight": 2.0,
    "instance_sep_weight": 3.0,
    "adaptive": {"curve": "linear", "end_boundary_weight": 1.2, "end_instance_sep_weight": 1.1},
    "ignore_px": 0.0,
    "boundary_ce": {"weight": 0.1, "width": 5, "factor": 2.0},
    "edge": {"weight": 0.2, "form": "bce", "source": "laplacian", "distractors": False},
    "active_contour": {"weight": 0.1, "curvature": 0.5},
    "contrastive": {"weight": 0.1, "temperature": 0.1, "samples": 4},
    "full_map": {"weight": 0.5, "outside": 0.1},
    "hierarchical": {
        "bg": 2.0,
        "fg": 1.0,
        "target": 1.5,
        "consistency": 0.1,
        "dynamic": True,
        "clamp": [0.5, 3.0],
        "ema": 0.9,
    },
    "auxiliary": {
        "foreground": {"weight": 0.3, "pos_weight": 2.0},
        "contour": {"weight": 0.1, "width": 2.0},
        "distance": {"weight": 0.1},
    },
}
"""Section `loss` with every term on."""


def _alone(**changes: object) -> dict[str, Any]:
    return PLAIN | {"ce": 0.0} | changes


ALONE: dict[str, dict[str, Any]] = {
    "ce": _alone(ce=1.0),
    "focal": _alone(ce=1.0, focal_gamma=2.0, focal_classes=[1, 2]),
    "boundary": _alone(ce=1.0, boundary_weight=3.0),
    "instance_sep": _alone(ce=1.0, instance_sep_weight=3.0),
    "dice": _alone(dice=1.0, dice_classes=[1, 2]),
    "tversky": _alone(tversky=FULL["tversky"]),
    "boundary_ce": _alone(boundary_ce=FULL["boundary_ce"]),
    "edge": _alone(edge=FULL["edge"] | {"distractors": True}),
    "edge l1": _alone(edge=FULL["edge"] | {"form": "l1", "source": "distance", "distractors": True}),
    "active_contour": _alone(active_contour=FULL["active_contour"]),
    "contrastive": _alone(contrastive=FULL["contrastive"]),
    "full_map": _alone(full_map=FULL["full_map"]),
    **{
        f"hierarchical {name}": _alone(hierarchical=FULL["hierarchical"] | {"bg": 0.0, "fg": 0.0, "consistency": 0.0, name: 1.0})
        for name in ("bg", "fg", "consistency")
    },
    "hierarchical fixed": _alone(hierarchical=FULL["hierarchical"] | {"dynamic": False}),
    **{
        name: _alone(auxiliary=PLAIN["auxiliary"] | {name: FULL["auxiliary"][name]})
        for name in ("foreground", "contour", "distance")
    },
}
"""Section `loss` of each term by itself; weights of pixels go with the cross entropy that they weigh."""

SHAPES: dict[str, tuple[int, tuple[int, int]]] = {
    "foreground": (1, (8, 12)),
    "contour": (1, (8, 12)),
    "distance": (1, (8, 12)),
    "bg_fg": (2, (4, 6)),
    "target_non_target": (2, (8, 12)),
    "embedding": (5, (4, 6)),
    "full_map": (3, (9, 7)),
    "stage_1": (3, (8, 12)),
    "stage_2": (3, (8, 12)),
}
"""Output -> channels, and size for a mask of 8 x 12."""


def loss_params(base: dict[str, Any] = PLAIN, **changes: object) -> LossParams:
    """Section `loss`: `base` with changes."""
    return LossParams.parse(base | changes, "loss")


def targets_of(labels: Tensor) -> Targets:
    """Labels (R, h, w) with their distances."""
    found = [label_distances(item.astype(np.uint8)) for item in labels.numpy()]
    empty = np.zeros((0, *labels.shape[1:]), dtype=np.float32)
    boundary, target, non_target = (
        torch.from_numpy(np.stack([getattr(item, name) for item in found]) if found else empty)
        for name in ("boundary", "target", "non_target")
    )
    return Targets(labels, boundary, target, non_target, frames_of(labels))


def frames_of(labels: Tensor) -> Tensor:
    """Frames of 9 rows and 7 columns: in the last 8 and 6 what labels (R, h, w) show there, and above a row that reaches out."""
    height, width = labels.shape[1:]
    rows, columns = torch.arange(8) * height // 8, torch.arange(6) * width // 6
    known = torch.where(labels <= 2, labels, 0).to(torch.uint8)
    frames = torch.zeros(2, len(labels), 9, 7, dtype=torch.uint8)
    frames[0, :, 1:, 1:], frames[1, :, 1:, 1:] = known[:, rows[:, None], columns], 1
    frames[0, :, 0, 1:] = known[:, height // 2, columns]
    return frames


def two_people() -> Tensor:
    """Labels (2, 8, 12): the target beside another person, and the target alone."""
    labels = torch.zeros(2, 8, 12, dtype=torch.int64)
    labels[0, 2:7, 1:6], labels[0, 2:7, 6:9] = 1, 2
    labels[1, 1:5, 3:9] = 1
    return labels


def drawn_output(rois: int, *, seed: int = 0, branches: bool = True) -> HeadOutput:
    """Random outputs for masks of 8 x 12, with gradients."""
    generator = torch.Generator().manual_seed(seed)

    def draw(channels: int, size: tuple[int, int]) -> Tensor:
        return torch.randn(rois, channels, *size, generator=generator).requires_grad_()

    logits = draw(3, (8, 12))
    return HeadOutput(logits, {name: draw(*shape) for name, shape in SHAPES.items()} if branches else {})
