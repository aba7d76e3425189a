"""`dvc repro` on the built-in sample: what it leaves behind, and that it leaves the same each time."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from dvc_project import Project, assert_sane

from roiseg.evaluate.table import RoiTable

pytestmark = pytest.mark.pipeline


def test_outs_are_there(finished: Project) -> None:
    root = finished.root
    for name in ("full", "500", "100"):
        end = "" if name == "full" else f"_{name}"
        assert (root / f"data/annotations/instances_train_person_only_no_crowd{end}.json").is_file()
    figures = json.loads((root / "metrics/evaluate/default.json").read_text())
    assert {"miou_fg_roi", "iou_target_roi", "iou_nontarget_roi", "never_class_2_miou_fg_roi", "oracle_box_ap"} <= set(figures)
    assert {"miou_fg_roi_low", "boundary_iou_crop", "separation_accuracy", "target_ece", "whole_box_oracle_box_ap"} <= set(figures)
    assert_sane(figures)
    names = sorted(path.name for path in (root / "models/heads/default/checkpoints").iterdir())
    assert [bool(re.fullmatch(r"checkpoint_epoch_\d{4}_28x28_\d{4}\.pth", name)) for name in names] == [True, True]
    assert (root / "metrics/train/default/pictures/validation_all_images_epoch_0002.png").is_file()
    exported = json.loads((root / "metrics/export/default.json").read_text())
    assert exported["parity_max_abs"] < 1e-3
    assert min(exported[name] for name in ("parameters", "gflops_per_roi", "peak_mib_1_roi", "onnx_bytes")) > 0


def test_outs_of_evaluate_are_there(finished: Project) -> None:
    """The sample's backbone finds no boxes of its own, so nothing is in them."""
    root = finished.root
    assert {path.stem for path in (root / "metrics/curves/default").iterdir()} == {
        "pr",
        "iou_histogram",
        "calibration",
        "breakdown",
    }
    pictures = {path.name for path in (root / "metrics/plots/default").iterdir()}
    assert {"confusion.png", "best.png", "worst.png", "validation_two_row.png", "validation_four_panel.png"} <= pictures
    figures = json.loads((root / "metrics/evaluate/default.json").read_text())
    assert len(RoiTable.read(root / "data/predictions/default.parquet")) == figures["rois"]
    assert len(json.loads((root / "data/predictions/default.json").read_text())) == figures["rois"]
    assert json.loads((root / "data/predictions/default.detector.json").read_text()) == []
    assert (figures["detector_boxes"], "detector_box_ap" in figures) == (0, False)
    assert "<svg" in (root / "reports/default.html").read_text()


def test_stores_open_with_plain_zarr(finished: Project) -> None:
    group = zarr.open_group(finished.root / "data/features/val.zarr", mode="r")
    layer = group["layer_34"]
    assert isinstance(layer, zarr.Array)
    assert layer.dtype == np.int8
    assert layer.shape[1:] == (64, 32, 40)
    assert np.isfinite(np.asarray(layer[0])).all()
    assert np.asarray(layer[0]).any()


def test_metrics_are_flat_numbers(finished: Project) -> None:
    for path in (finished.root / "metrics").glob("**/*.json"):
        if path.name in ("data_analyze.json",) or "train" in path.parts:
            continue
        assert all(isinstance(value, int | float) for value in json.loads(path.read_text()).values()), path


def test_a_second_run_runs_nothing(finished: Project) -> None:
    assert finished.stages_run(finished.dvc("repro")) == []


def test_looks_make_only_evaluate_stale(finished: Project) -> None:
    """Templates of DVC's charts none, those of the page evaluate: both are drawn anew without training."""
    page, chart = (finished.root / name for name in ("roiseg/evaluate/templates/report.css", ".dvc/plots/curves.json"))
    page.write_text(page.read_text() + "\n")
    chart.write_text(chart.read_text() + "\n")
    try:
        assert list(json.loads(finished.dvc("status", "--json"))) == ["evaluate@default"]
    finally:
        finished.run("git", "checkout", "-q", "--", ".")


def test_features_are_links_into_the_cache(finished: Project) -> None:
    """DVC took the stores over without a copy, shard by shard: flat keys let it hash them side by side."""
    cached = {path.stat().st_ino for path in (finished.root / ".dvc/cache").rglob("*") if path.is_file()}
    shards = list((finished.root / "data/features").glob("*.zarr/layer_*/c.*"))
    assert len(shards) >= 6
    assert all(shard.stat().st_ino in cached for shard in shards)


def test_plots_render(finished: Project, tmp_path: Path) -> None:
    finished.dvc("plots", "show", "--out", str(tmp_path / "plots"))
    page = (tmp_path / "plots" / "index.html").read_text()
    assert "confusion" in page
    assert "miou_fg_roi" in page


def test_nothing_of_this_machine_in_the_outs(finished: Project) -> None:
    path = str(finished.root).encode()
    for folder in ("models/onnx", "metrics", "data/index", "data/annotations", "data/predictions", "reports"):
        for file in (finished.root / folder).rglob("*"):
            assert not file.is_file() or path not in file.read_bytes(), file


@pytest.mark.thorough
def test_forced_run_changes_no_hash(finished: Project) -> None:
    """Also with the work folder and the local cache emptied."""
    lock = finished.root / "dvc.lock"
    before = lock.read_bytes()
    shutil.rmtree(finished.root / ".work", ignore_errors=True)
    shutil.rmtree(finished.root / ".dvc/cache")
    for out in ("data/features", "data/sample", "models/heads"):
        shutil.rmtree(finished.root / out)
    ran = finished.stages_run(finished.dvc("repro", "--force"))
    assert len(ran) == 10
    assert lock.read_bytes() == before
    assert finished.run("git", "status", "--porcelain").strip() == ""
