"""Tests of roiseg.snapper.train and .task: a killed run is the unbroken one, what it writes, and what can't be begun."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from net_factory import digests, run_until_done, stored_sections
from snap_factory import NETWORK_HW, SPECS, link_snapper, shared_section, shared_snapper, snap_dataset, snapper_section
from store_factory import Project, shared_views

from roiseg.batches import Loading
from roiseg.errors import CheckpointError, ParamsError
from roiseg.own_training import OF_HEADS
from roiseg.snapper.build import load_snapper
from roiseg.snapper.cached_model import CachedSnapper
from roiseg.snapper.checks import snap_training
from roiseg.snapper.infer import snap_results
from roiseg.snapper.metrics import FIGURES, snap_figures
from roiseg.snapper.results import SnapResults
from roiseg.snapper.split import MODELS
from roiseg.snapper.task import ROUGH
from roiseg.snapper.train import LIVE, train_snapper
from roiseg.train.checkpoint import BEST, load_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_views(tmp_path_factory)


@pytest.fixture(scope="module", params=["cached", "crop"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return shared_snapper(tmp_path_factory, request.param), request.param


def test_a_killed_run_is_the_unbroken_one(tmp_path: Path, project: Project) -> None:
    found = []
    for name, ends in (("whole", ()), ("killed", (("after a step", 2), ("before replace best_model.pth", 1)))):
        folder = tmp_path / name
        folder.mkdir()
        link_snapper(folder, project)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            run_until_done(lambda: train_snapper(snapper_section(), stored_sections()), CachedSnapper, ends)
        found.append({path: digest for path, digest in digests(folder).items() if not path.startswith(".work")})
    assert found[0] == found[1]
    assert f"{MODELS}/{BEST}" in found[0]


def test_what_a_run_writes(trained: tuple[Path, str]) -> None:
    root, kind = trained
    metrics = json.loads((root / LIVE / "metrics.json").read_text())
    assert set(metrics["val"]) == {"mean_iou", "rough_mean_iou", "share_iou_above_90", "edge_px_mean", "edge_share_within_3px"}
    curves = (root / LIVE / "curves/iou.tsv").read_text()
    assert "\tmean_iou\t" in curves
    assert "\trough_mean_iou\t" in curves
    pictures = sorted((root / LIVE / "pictures").glob("validation_all_images_epoch_*.png"))
    assert len(pictures) == {"cached": 3, "crop": 1}[kind]
    picture = cv2.imread(str(pictures[0]))
    assert picture is not None
    assert picture.ndim == 3


def test_the_best_model_has_the_figures_of_its_checkpoint(trained: tuple[Path, str]) -> None:
    root, kind = trained
    params = shared_section(kind)
    module = load_snapper(root / MODELS / BEST, params.model, SPECS, NETWORK_HW)
    val = snap_dataset(root, params, "val")
    results = SnapResults.together(list(snap_results(module, val, params.decision, CPU, Loading(3, 1, 1))))
    figures, kept = snap_figures(results), load_checkpoint(root / MODELS / BEST).metrics
    assert set(kept) == {*FIGURES, ROUGH}
    assert {name: figures[name] for name in FIGURES} == pytest.approx({name: kept[name] for name in FIGURES}, abs=1e-4)
    assert np.isfinite(results.snapped).all()
    assert len(results) == len(val.objects)


def test_a_checkpoint_of_another_model(trained: tuple[Path, str]) -> None:
    root, _ = trained
    other = snapper_section(model={"mid_channels": 16}).model
    with pytest.raises(CheckpointError, match=r"(?s)don't fit the model.*give the section `snapper.model`"):
        load_snapper(root / MODELS / BEST, other, SPECS, NETWORK_HW)


@pytest.mark.parametrize("key", sorted(OF_HEADS))
def test_keys_of_train_without_effect(key: str) -> None:
    with pytest.raises(ParamsError, match=rf"snapper.train.{key}: has no effect"):
        snap_training({key: 1})


@pytest.mark.parametrize(
    ("given", "metric"), [({}, "mean_iou"), ({"early_stop": {"metric": "edge_share_within_3px"}}, "edge_share_within_3px")]
)
def test_figure_that_a_run_is_judged_by(given: dict[str, Any], metric: str) -> None:
    assert snap_training(given).early_stop.metric == metric


def test_unknown_figure_to_be_judged_by() -> None:
    with pytest.raises(ParamsError, match=r"early_stop.metric is 'mean_iuo'.*did you mean 'mean_iou'"):
        snap_training({"early_stop": {"metric": "mean_iuo"}})
