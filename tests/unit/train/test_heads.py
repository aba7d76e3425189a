"""Every family of heads trains, with all parts that it may have, and its best weights come back for evaluation."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from head_factory import MODELS, SPECS, fresh_head
from loss_factory import targets_of
from store_factory import Project, shared_project, shared_views
from trainer_factory import TRAIN, rows_of, run_of, task_of, with_everything

from roiseg.export.onnx import example_inputs
from roiseg.heads import FAMILIES, parse_model
from roiseg.losses import LossParams, MaskLoss, check_outputs
from roiseg.params import overlay
from roiseg.train.checkpoint import BEST
from roiseg.train.loop import Trainer
from roiseg.trained import load_head

PIXELS = {"layers": ["image"], "guided": False}
"""Changes to a head on pixels, whose teacher isn't in these stores."""


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, family: str) -> Project:
    return shared_views(tmp_path_factory) if family == "rgb_hierarchical" else shared_project(tmp_path_factory)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    model, loss = with_everything(family)
    if family == "rgb_hierarchical":
        model = overlay(model, PIXELS)
    monkeypatch.setitem(MODELS, family, model)
    chosen = MaskLoss(LossParams.parse(loss | {"ce": 1.0, "full_map": None}, "loss"), (2.0, 0.5, 2.0))
    Trainer(run_of(project, family, chosen, epochs=2), tmp_path / "head").fit()
    rows = rows_of(tmp_path / "head")
    assert len(rows) == 2
    assert all(math.isfinite(value) for row in rows for value in row.values())
    head, best = load_head(tmp_path / "head", BEST, project.sections(MODELS[family]), project.open("val", MODELS[family]))
    assert best.epoch in (1, 2)
    torch.manual_seed(TRAIN["seed"])
    fresh = task_of(run_of(project, family)).build().state_dict()
    moved = [name for name, item in head.state_dict().items() if not torch.equal(item, fresh[name])]
    assert len(moved) > len(fresh) / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_is_in_the_loss(family: str) -> None:
    """Several processes wait for the gradient of each, also of those whose terms have a coefficient of 0."""
    model, loss = with_everything(family)
    params = parse_model(model)
    check_outputs(LossParams.parse(loss, "loss"), family, params.aux_names)
    head = fresh_head(params, SPECS).train()
    *maps, boxes = example_inputs([SPECS[name] for name in params.layers], (64, 96), 2, 3, seed=1)
    output = head(dict(zip(params.layers, maps, strict=True)), boxes)
    labels = torch.randint(3, (3, *params.mask_hw), generator=torch.Generator().manual_seed(0))
    target = replace(targets_of(labels), frames=torch.ones(2, 3, 8, 12, dtype=torch.uint8))
    MaskLoss(LossParams.parse(loss, "loss"), (1.0, 1.0, 1.0))(output, target)["total"].backward()  # type: ignore[no-untyped-call]
    assert [name for name, item in head.named_parameters() if item.grad is None] == []
