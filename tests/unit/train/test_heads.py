"""Every family of heads trains, with all parts that it may have, and its best weights come back for evaluation."""

import math
from pathlib import Path

import pytest
import torch
from store_factory import COMPOSED, MODELS, Project, shared_project
from trainer_factory import TRAIN, rows_of, run_of

from roiseg.heads import FAMILIES
from roiseg.params import overlay
from roiseg.train.checkpoint import BEST
from roiseg.train.loop import Trainer
from roiseg.trained import load_head

BRANCH = {"channels": 4}
ALL = {
    "attention": "cbam",
    "auxiliary": {
        **dict.fromkeys(("foreground", "contour", "distance", "embedding"), BRANCH),
        "correct_by_foreground": True,
    },
    "refine": {"upsampling": "progressive", "boundary": True},
    "relational": {"heads": 2, "dropout": 0.1},
    "cascade": {"channels": 8},
}


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    parts = ALL if set(COMPOSED) <= set(MODELS[family]) else {}
    monkeypatch.setitem(MODELS, family, overlay(MODELS[family], parts))
    Trainer(run_of(project, family, epochs=2), tmp_path / "head").fit()
    rows = rows_of(tmp_path / "head")
    assert len(rows) == 2
    assert all(math.isfinite(value) for row in rows for value in row.values())
    head, best = load_head(tmp_path / "head", BEST, project.sections(MODELS[family]), project.open("val", MODELS[family]))
    assert best.epoch in (1, 2)
    torch.manual_seed(TRAIN["seed"])
    fresh = run_of(project, family).phases[0].build().state_dict()
    moved = [name for name, item in head.state_dict().items() if not torch.equal(item, fresh[name])]
    assert len(moved) > len(fresh) / 2
