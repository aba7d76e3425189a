"""A program that trains on a project of `store_factory` in a number of processes; Fabric starts it again for each further one."""

import json
import sys
from pathlib import Path
from typing import Any

from head_factory import MODELS
from store_factory import Project, sampler_params
from trainer_factory import LOSS, TRAIN

from roiseg.console import run_stage
from roiseg.losses import LossParams
from roiseg.train.params import TrainParams
from roiseg.train.train import TrainPaths, TrainSections, train_head

EVEN: dict[str, Any] = {
    "class_weights": {"mode": "none", "values": None, "cap": None},
    "boundary_weight": 1.0,
    "instance_sep_weight": 1.0,
}
"""Changes to section `loss` after which all pixels weigh alike, so that a mean over ROIs is one over pixels."""


def main(root: Path, out: Path, changes: dict[str, Any], model: dict[str, Any], loss: dict[str, Any]) -> None:
    """Train a head, `roi_crop` where nothing else is said.

    Args:
        root: of the project.
        out: where `head` and `live` are published.
        changes: to section `train`.
        model: section `model`; empty for that of `roi_crop`.
        loss: changes to section `loss`.
    """
    project = Project(root, "float16", {})
    params = TrainParams.parse(TRAIN | changes, "train")
    terms = LossParams.parse(LOSS | EVEN | loss, "loss")
    sections = TrainSections(project.sections(model or MODELS["roi_crop"]), sampler_params(), terms, params)
    train_head(
        "default",
        sections,
        TrainPaths(project.statistics, project.rois, project.index, project.features, out / "head", out / "live"),
    )


if __name__ == "__main__":
    run_stage("train@default", lambda: main(Path(sys.argv[1]), Path(sys.argv[2]), *map(json.loads, sys.argv[3:])))
