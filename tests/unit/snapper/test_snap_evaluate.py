"""Tests of roiseg.snapper.evaluate: the whole stage on a tiny split, with a model that knows the answers or none."""

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from snapped_factory import snap_results
from store_factory import Project, shared_views
from torch import Tensor, nn

from roiseg.cache.params import ReaderParams
from roiseg.cache.reader import FeatureStore
from roiseg.errors import MissingImageError, PredictionError
from roiseg.files import write_parquet
from roiseg.index import Index
from roiseg.objects import Objects, build_objects
from roiseg.snapper.calibration import load_calibration
from roiseg.snapper.data import SnapDataset
from roiseg.snapper.edges import grid
from roiseg.snapper.evaluate import COLUMNS, SnapEvaluatePaths, evaluate_snapper, report
from roiseg.snapper.metrics import snap_figures
from roiseg.snapper.params import ConfidenceParams, DecisionParams, ExtremeParams, JitterParams, SnapDataParams
from roiseg.snapper.windows import EDGES
from roiseg.types import IMAGE

CPU = torch.device("cpu")
READER = ReaderParams(decode_threads=1, load_threads=1, ahead=2, concurrent_runs=1, checksums=True)
DECISION = DecisionParams(rule="expectation", reach=0.05)
CONFIDENCE = ConfidenceParams(tolerance=0.01, review_below=0.5, keep_below=0.2)
DATA = SnapDataParams(
    min_box_px=4.0,
    boxes_per_image=8,
    buffer=(1.35, 1.35),
    jitter=JitterParams(centre=0.1, scale=0.1, ratios="own"),
    extreme=ExtremeParams(policy="keep", min_iou=0.5, weight=0.1),
    val_seed=0,
    views=None,
)
POSITIONS = 224


class Knowing(nn.Module):
    """A model that answers the true edges, in the order of the split, each as wide as it is asked for."""

    def __init__(self, dataset: SnapDataset, width: float = 0.002) -> None:
        super().__init__()
        batches = [dataset.join([dataset.whole_sample(row)], {}) for row in dataset.rows.tolist()]
        self.targets, self.place, self.width = torch.cat([batch.targets for batch in batches]), 0, width

    def forward(self, features: dict[str, Tensor], windows: Tensor) -> Tensor:
        part = self.targets[self.place : self.place + len(windows)]
        self.place += len(windows)
        return -(((grid(POSITIONS, part) - part[:, :, None]) / self.width) ** 2) / 2


class Silent(nn.Module):
    """A model that has diverged."""

    def forward(self, features: dict[str, Tensor], windows: Tensor) -> Tensor:
        return torch.full((len(windows), 4, POSITIONS), float("nan"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_views(tmp_path_factory)


@pytest.fixture
def split(project: Project, tmp_path: Path) -> SnapDataset:
    dataset = project.open("val")
    table, _ = build_objects(json.loads(project.annotations("val").read_text()), dataset.index.images)
    write_parquet(tmp_path / "val.parquet", table)
    store = FeatureStore(project.features / "val.zarr", checksums=True)
    return SnapDataset(dataset.index, Objects(tmp_path / "val.parquet", DATA.min_box_px), store, [IMAGE], DATA)


def paths_in(folder: Path, index: Path | None) -> SnapEvaluatePaths:
    usual = SnapEvaluatePaths()
    outs = (usual.figures, usual.plots, usual.curves, usual.table, usual.calibration)
    return SnapEvaluatePaths(index, *(folder / out for out in outs))


def run(module: nn.Module, split: SnapDataset, paths: SnapEvaluatePaths) -> dict[str, Any]:
    return evaluate_snapper(module, split, DECISION, CONFIDENCE, READER, paths, device=CPU)


def test_a_model_that_knows_is_told_to_be_nearly_perfect(project: Project, split: SnapDataset, tmp_path: Path) -> None:
    """All outs are there; what is between two positions is told to a tenth of their distance."""
    paths = paths_in(tmp_path, project.index / "val")
    found = run(Knowing(split), split, paths)
    assert found["boxes"] == len(split.objects)
    assert found["images"] == len(split.rows)
    assert found["mean_iou"] > 0.95 > found["rough"]["mean_iou"] > found["whole_crop"]["mean_iou"]
    assert found["mean_iou"] <= found["clipped_oracle"]["mean_iou"] + 1e-3
    assert found["over_rough"]["gain_mean_iou_low"] > 0.05
    assert found["confidence"]["right"] > 0.9
    written = json.loads(paths.figures.read_text())
    assert written["mean_iou"] == pytest.approx(found["mean_iou"], abs=1e-6)
    assert written["rough"].keys() == {name for name in written if name.startswith(("mean", "share", "edge", "corner"))}
    table = pd.read_parquet(paths.table)
    assert table["annotation_id"].tolist() == [int(item) for row in split.rows for item in split.objects.of(row).annotation_ids]
    assert table["image_id"].tolist() == split.index.image_ids[table["row"]].tolist()
    assert table["iou"].mean() == pytest.approx(found["mean_iou"])
    assert table[[f"error_px_{edge}" for edge in EDGES]].to_numpy().mean() == pytest.approx(found["edge_px_mean"])
    assert load_calibration(paths.calibration)[1] == CONFIDENCE.tolerance
    assert {path.name for path in paths.plots.iterdir()} == {"best.png", "worst.png", "least_sure.png", "validation.png"}
    assert all(cv2.imread(str(path)) is not None for path in paths.plots.iterdir())


def test_a_second_run_writes_the_same_bytes(project: Project, split: SnapDataset, tmp_path: Path) -> None:
    written = []
    for name in ("first", "second"):
        run(Knowing(split, width=0.02), split, paths_in(tmp_path / name, project.index / "val"))
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        written.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert len(written[0]) == 3 + 4 + len(COLUMNS)
    assert written[0] == written[1]


def test_a_model_that_diverged_is_refused(split: SnapDataset, tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match=r"annotation \d+ is \[nan, .*the model diverged"):
        run(Silent(), split, paths_in(tmp_path, None))


def test_without_previews_the_remedy_is_told(split: SnapDataset, tmp_path: Path) -> None:
    with pytest.raises(MissingImageError, match=r"previews.parquet: no previews .* run `dvc repro prepare`"):
        run(Knowing(split), split, paths_in(tmp_path, tmp_path / "index"))


@dataclass(frozen=True)
class Split:
    """As much of a split as a report wants without pictures."""

    index: Index


@pytest.fixture
def reported(project: Project, tmp_path: Path) -> tuple[dict[str, Any], SnapEvaluatePaths]:
    """Four images of five boxes."""
    paths = paths_in(tmp_path, None)
    return report(snap_results(20), Split(project.open("val").index), CONFIDENCE, paths), paths


def test_curves_agree_with_the_figures(reported: tuple[dict[str, Any], SnapEvaluatePaths]) -> None:
    found, paths = reported
    tables = {name: list(csv.DictReader((paths.curves / f"{name}.csv").read_text().splitlines())) for name in COLUMNS}
    assert {path.stem for path in paths.curves.iterdir()} == set(COLUMNS)
    for name, columns in COLUMNS.items():
        assert list(tables[name][0]) == list(columns)
    at_three = {row["curve"]: float(row["share"]) for row in tables["deviance"] if row["px"] == "3"}
    told = {"snapped": found, "rough": found["rough"], "clipped oracle": found["clipped_oracle"]}
    assert at_three == pytest.approx({name: figures["edge_share_within_3px"] for name, figures in told.items()}, abs=1e-6)
    (top,) = [row for row in tables["edges"] if row["stratum"] == "top, rough" and row["figure"] == "edge_share_within_1px"]
    assert float(top["value"]) == pytest.approx(found["rough"]["edge_top_share_within_1px"], abs=1e-6)
    assert float(tables["error_by_confidence"][-1]["edge_px_mean"]) == pytest.approx(found["edge_px_mean"], abs=1e-6)
    for name in ("reliability", "reliability_peak"):
        assert sum(int(row["edges"]) for row in tables[name]) == 80
    assert not list(paths.plots.iterdir())


def test_figures_are_those_of_metrics(reported: tuple[dict[str, Any], SnapEvaluatePaths]) -> None:
    found, _ = reported
    results = snap_results(20)
    assert {name: found[name] for name in snap_figures(results)} == snap_figures(results)
    assert found["rough"] == snap_figures(replace(results, snapped=results.rough))
    assert found["whole_crop"] == snap_figures(replace(results, snapped=results.windows))
    assert np.isclose(found["over_rough"]["gain_mean_iou"], found["mean_iou"] - found["rough"]["mean_iou"])
