"""Section `train` of small runs."""

from typing import Any

EPOCHS = 4
TRAIN: dict[str, Any] = {
    "seed": 0,
    "epochs": EPOCHS,
    "images_per_batch": 1,
    "lr": 0.02,
    "min_lr": 0.0001,
    "warmup_epochs": 1.0,
    "weight_decay": 0.01,
    "clip_norm": 5.0,
    "accumulate": 1,
    "optimizer": "adamw",
    "momentum": 0.9,
    "lr_factors": {},
    "scheduler": "cosine",
    "restart_epochs": 1,
    "restart_factor": 2,
    "step_epochs": [2],
    "decay_factor": 0.5,
    "plateau_epochs": 0,
    "early_stop": {"metric": "miou_fg_roi", "mode": "max", "patience": None},
    "max_skipped_steps": 0,
    "keep_checkpoints": None,
    "average_decay": 0.5,
    "device": "cpu",
    "precision": "32-true",
}
