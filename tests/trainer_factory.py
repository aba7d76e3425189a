"""Small training runs, and losses that go wrong."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from head_factory import MODELS, every_part
from loss_factory import FULL, PLAIN
from store_factory import Project, sampler_params
from torch import Tensor

from roiseg.dataset import Targets
from roiseg.evaluate.pictures import load_fixed
from roiseg.heads import build_head, parse_model
from roiseg.losses import LossParams, MaskLoss
from roiseg.nn.outputs import HeadOutput
from roiseg.params import NOBODY, NOTHING_KEPT, overlay
from roiseg.train.folder import RunFolder
from roiseg.train.head_task import HeadTask
from roiseg.train.learner import Learner
from roiseg.train.params import TrainParams
from roiseg.train.run import Phase, Run
from roiseg.train.train import TrainSections
from roiseg.train.world import World, make_fabric

EPOCHS = 4
TRAIN: dict[str, Any] = {
    "seed": 0,
    "epochs": EPOCHS,
    "resume_from": NOTHING_KEPT,
    "distill_from": NOBODY,
    "additional_epochs": None,
    "extend_policy": "stretch",
    "phases": [],
    "phase_warmup_epochs": 1.0,
    "phase_warmup_factor": 0.1,
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
    "pictures": "two_row",
    "device": "cpu",
    "devices": 1,
    "precision": "32-true",
    "compile": False,
}


LOSS: dict[str, Any] = PLAIN | {
    "dice": 1.0,
    "class_weights": {"mode": "separation", "values": None, "cap": None},
    "boundary_weight": 2.0,
    "instance_sep_weight": 3.0,
    "near_px": 3.0,
}


def loss_params() -> LossParams:
    return LossParams.parse(LOSS, "loss")


PARTS: dict[str, Any] = {**every_part(4), "full_map": True}
"""Parts that heads may have, by their keys."""


def with_everything(family: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Section `model` with all parts of a family, and `loss` with the terms that read them, each coefficient 0 that may be."""
    model = overlay(MODELS[family], {key: value for key, value in PARTS.items() if key in MODELS[family]})
    given = parse_model(model).aux_names
    loss: dict[str, Any] = FULL | {"ce": 0.0, "dice": 0.0, "cascade": [0.0, 0.0, 1.0]}
    unweighted = FULL["hierarchical"] | {"bg": 0.0, "fg": 0.0, "consistency": 0.0}
    loss["hierarchical"] = unweighted if "bg_fg" in given else None
    for key, output in (("contrastive", "embedding"), ("full_map", "full_map")):
        loss[key] = FULL[key] if output in given else None
    loss["auxiliary"] = {name: term if name in given else None for name, term in FULL["auxiliary"].items()}
    return model, loss


def sections_of(project: Project, family: str = "roi_unet", /, **changes: object) -> TrainSections:
    """Sections to train a head of a family by, with changes to `TRAIN`."""
    return TrainSections(
        project.sections(MODELS[family]), sampler_params(), loss_params(), TrainParams.parse(TRAIN | changes, "train")
    )


def run_of(
    project: Project,
    family: str = "roi_unet",
    loss: MaskLoss | None = None,
    sampler: Mapping[str, Any] | None = None,
    **changes: object,
) -> Run:
    """A run of one phase; roi_unet has dropout, so torch's generator counts.

    Args:
        project: with both splits.
        family: of the head.
        loss: in place of the usual one.
        sampler: changes to section `sampler`.
        changes: to section `train`.
    """
    params = TrainParams.parse(TRAIN | changes, "train")
    sections = project.sections(MODELS[family])
    drawn, val = project.sampler(MODELS[family], **(sampler or {})), project.open("val", MODELS[family])
    fixed = load_fixed(project.index / "val" / "pictures", val)
    chosen = loss or MaskLoss(loss_params(), (2.0, 0.5, 2.0))
    described = {"model": json.loads(sections.model.model_dump_json())}
    build = partial(build_head, sections.model, val.store.specs)
    task = HeadTask(build, chosen, drawn, val, fixed, params.pictures)
    return Run([Phase(None, None, task, described)], params, sections.reader)


def task_of(run: Run) -> HeadTask:
    """What the first phase of a run of heads learns."""
    task = run.phases[0].task
    assert isinstance(task, HeadTask)
    return task


def learner_of(run: Run) -> Learner:
    """What learns in the first phase, with the weights that the run starts with."""
    fabric = make_fabric(run.params)
    torch.manual_seed(run.params.seed)
    return Learner(fabric, World(fabric), run.phases[0], run.params)


def rows_of(folder: Path) -> list[dict[str, float]]:
    """The record of a run, from its newest checkpoint."""
    found = RunFolder(folder).last()
    return [] if found is None else [dict(row) for row in found.rows]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@dataclass
class Crash:
    """Calls through a number of times, then fails before or after the call."""

    function: Callable[..., Any]
    calls: int
    after: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self.calls -= 1
        if self.calls or self.after:
            value = self.function(*args, **kwargs)
        if not self.calls:
            raise KeyboardInterrupt
        return value


class Poisoned(MaskLoss):
    """Spoils the loss, or its gradient alone, from some step on."""

    at: int

    def __init__(self, at: int, factor: float, *, gradient_only: bool = False) -> None:
        super().__init__(loss_params(), (1.0, 1.0, 1.0))
        self.at, self.factor, self.gradient_only = at, factor, gradient_only

    def __call__(self, output: HeadOutput, target: Targets, teacher: HeadOutput | None = None) -> dict[str, Tensor]:
        parts = super().__call__(output, target, teacher)
        self.at -= 1
        if self.at < 0:
            spoilt = parts["total"] * self.factor
            parts["total"] = spoilt - spoilt.detach() if self.gradient_only else spoilt
        return parts
