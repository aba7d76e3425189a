"""Values of keys that the sections of the second track needn't give: a section there is laid over the one of the same name here.

`unet.train`, `distill.train` and the sub-sections of `rgb` are sections of their own, so that a change to `train` or `loss` doesn't
reach them. These are the published settings of that track (spec 10.3, 13.1) where there are any; else what does nothing.
"""

from collections.abc import Mapping
from typing import Any

from roiseg.errors import ParamsError
from roiseg.params import NOBODY, NOTHING_KEPT, overlay

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "dataset": {"roi_padding": 0.0},
    "sampler": {
        "rois_per_image": 16,
        "jitter_centre": 0.1,
        "jitter_scale": 0.1,
        "crop": 1.0,
        "extra_rois": 0,
        "extra_jitter": 0.3,
        "extra_iou": 0.5,
        "non_target_gamma": 0.0,
        "balance": "none",
        "feature_noise": 0.0,
        "views": None,
    },
    "loss": {
        "non_target": "own",
        "ce": 1.0,
        "focal_gamma": 0.0,
        "focal_classes": [0, 1, 2],
        "dice": 1.0,
        "dice_classes": [1, 2],
        "dice_smooth": 50.0,
        "tversky": None,
        "class_weights": {"mode": "separation", "values": None, "cap": None},
        "boundary_weight": 2.0,
        "boundary_width": 5.0,
        "instance_sep_weight": 1.5,
        "near_px": 5.0,
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
    },
    "train": {
        "seed": 0,
        "epochs": 100,
        "resume_from": NOTHING_KEPT,
        "additional_epochs": None,
        "extend_policy": "stretch",
        "distill_from": NOBODY,
        "phases": [],
        "phase_warmup_epochs": 5.0,
        "phase_warmup_factor": 0.1,
        "images_per_batch": 4,
        "accumulate": 1,
        "optimizer": "adamw",
        "momentum": 0.9,
        "weight_decay": 0.01,
        "lr": 0.0001,
        "lr_factors": {},
        "scheduler": "cosine",
        "min_lr": 0.000001,
        "warmup_epochs": 1.0,
        "restart_epochs": 10,
        "restart_factor": 2,
        "step_epochs": [20, 28],
        "decay_factor": 0.1,
        "plateau_epochs": 5,
        "early_stop": {"metric": "miou_fg_roi", "mode": "max", "patience": None},
        "clip_norm": 1.0,
        "max_skipped_steps": 10,
        "average_decay": 0.98,
        "keep_checkpoints": 1,
        "pictures": "two_row",
        "device": "auto",
        "devices": 1,
        "precision": "32-true",
        "compile": False,
    },
    "evaluate": {
        "checkpoint": "best_model.pth",
        "images_per_batch": 4,
        "detections": "data/detections/val.parquet",
        "boundary_ap": False,
    },
    "export": {
        "checkpoint": "best_model.pth",
        "opset": 18,
        "tolerance": 0.001,
        "images": 64,
        "include_aux": False,
        "simplify": True,
        "variants": ["fp16", "int8"],
        "calibration_images": 64,
        "end_to_end": ["boxes"],
        "preprocess": True,
        "filter": None,
    },
}


def filled(section: str, given: object, where: str) -> dict[str, Any]:
    """A section of the second track with all its keys.

    Args:
        section: key of `DEFAULTS`.
        given: the keys that the params give.
        where: dotted path, for messages.

    Raises:
        ParamsError: it isn't a mapping.
    """
    if not isinstance(given, Mapping):
        raise ParamsError(f"{where}: value is {given!r}, expected a mapping of keys of `{section}`, {{}} for none")
    return overlay(DEFAULTS[section], given)
