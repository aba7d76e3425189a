"""The benches run and write what they measured; how fast anything was is nobody's concern here."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc_project import Project, make_project

pytestmark = pytest.mark.pipeline


def bench(project: Project, out: Path, name: str, *options: str) -> dict[str, Any]:
    project.run("python", "-m", f"bench.{name}", *options, "--json", str(out))
    assert not list((project.root / ".work").glob("tmp*")), "a bench left its folder behind"
    return dict(json.loads(out.read_text()))


def test_training(finished: Project, tmp_path: Path) -> None:
    """Both sides saw the same features, or their losses would differ."""
    found = bench(finished, tmp_path / "out.json", "training", "--images", "4", "--width", "0.0625")
    assert found["loss_difference"] < 1e-3
    assert found["live_over_cached"] > 0
    assert {name: set(shares) for name, shares in found["shares"].items()} == {
        "cached": {"head", "data"},
        "live": {"session", "head", "data"},
    }
    assert "layer_34 64 x 32 x 40, layer_3 16 x 64 x 80, layer_19 16 x 64 x 80, int8, lz4" in found["setting"]


def test_training_on_a_layer_that_is_not_there(finished: Project) -> None:
    said = finished.run("python", "-m", "bench.training", "--layers", "layer_4", ok=False)
    assert "the detector has no layer_4; choose --layers out of layer_3, layer_5, layer_19, layer_22, layer_34" in said


def test_loop(finished: Project, tmp_path: Path) -> None:
    """Both sides made the same steps, and all of the loop's time is told."""
    found = bench(finished, tmp_path / "out.json", "loop", "--rounds", "2")
    assert found["loss_difference"] < 1e-3
    assert found["loop_over_bare"] > 0
    assert found["loop_over_bare_cpu"] > 0
    shares = found["shares"]
    assert set(shares) == {"forward", "backward", "optimiser", "running average", "waiting for data", "rest"}
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share > 0 for share in shares.values())
    assert found["share_in_steps"] == pytest.approx(shares["forward"] + shares["backward"] + shares["optimiser"])


def test_precision(finished: Project, tmp_path: Path) -> None:
    """Both sides were trained on the same, so they score alike."""
    found = bench(finished, tmp_path / "out.json", "precision", "--epochs", "2")
    assert found["mixed_over_plain_speed"] > 0
    plain, mixed = found["scores"].values()
    assert mixed == pytest.approx(plain, abs=0.05)


@pytest.mark.slow
def test_presets(finished: Project, tmp_path: Path) -> None:
    """A row for each preset with its costs, best first; what a file holds isn't trained again, nor mixed with other budgets."""
    out = tmp_path / "out.json"
    options = ("--seeds", "3", "--minutes", "0.001", "--jobs", "1")
    found = bench(finished, out, "presets", "--heads", "default", *options)
    assert found["default"]["epochs"] == 1
    figures = found["default"]["seeds"]["3"]
    assert figures["miou_fg_roi"] == pytest.approx((figures["iou_target_roi"] + figures["iou_nontarget_roi"]) / 2)
    out.write_text(json.dumps(found | {"roi_crop": {**found["default"], "seeds": {"3": figures | {"miou_fg_roi": 0.987}}}}))
    said = finished.run("python", "-m", "bench.presets", "--heads", "default", "roi_crop", *options, "--json", str(out))
    rows = [line.split(" | ") for line in said.splitlines() if line.startswith("| `")]
    assert [row[:2] for row in rows] == [["| `roi_crop`", "0.987"], ["| `default`", f"{figures['miou_fg_roi']:.3f}"]]
    assert all(int(row[6].replace(",", "")) > 0 for row in rows)
    said = finished.run("python", "-m", "bench.presets", "--heads", "default", "--json", str(out), ok=False)
    assert "default was given 0.001 minutes, now --minutes is 5.0; name another file" in said


def test_extraction(finished: Project, tmp_path: Path) -> None:
    found = bench(finished, tmp_path / "out.json", "extraction", "--images", "4")
    assert found["images"] == 4
    assert not found["full_size"]
    assert {"pipeline_over_session", "pipeline_over_loop", "pipeline_written_gb_per_second"} <= set(found)


def test_sample_cues(finished: Project, tmp_path: Path) -> None:
    found = bench(finished, tmp_path / "out.json", "sample_cues")
    assert set(found) == {"whole_box", "linear_rgb", "linear_rgb_best", "best_threshold"}


def test_reader(finished: Project, tmp_path: Path) -> None:
    found = bench(finished, tmp_path / "out.json", "reader", "--split", "val", "--layer", "layer_34", "--megabytes", "1")
    default = found["forms"]["int8 lz4 noshuffle"]
    assert 0 < default["share_of_raw_float16"] < 1
    assert {"memmap copy", "roiseg", "roiseg, no checksums", "zarr-python"} <= set(default["images_per_second_over_memmap"])


def test_tiles(finished: Project, tmp_path: Path) -> None:
    found = bench(finished, tmp_path / "out.json", "tiles", "--split", "val", "--images", "3")
    assert set(found["layers"]["layer_3"]) == {"whole", "10x10", "20x20", "40x40"}


def test_snap(finished: Project, tmp_path: Path) -> None:
    """Both models answered, and a box costs the one on crops more."""
    found = bench(finished, tmp_path / "out.json", "snap", "--boxes", "1", "5", "--rounds", "1")
    assert found["parameters"]["cached"] < found["parameters"]["crop"]
    told = found["cpu"]
    assert told["ms_per_box"]["crop"] > told["ms_per_box"]["cached"]
    assert told["peak_mib"]["crop"] > told["peak_mib"]["cached"] > 0
    assert told["crop_over_cached"] == told["crop_over_cached_range"][0] > 1
    said = finished.run("python", "-m", "bench.snap", "--boxes", "5", "1", ok=False)
    assert "--boxes is 5 1, expected two numbers from 1, the first the smaller" in said


@pytest.mark.slow
def test_memory(finished: Project, tmp_path: Path) -> None:
    found = bench(finished, tmp_path / "out.json", "memory", "--images", "3")
    assert [peak["images"] for peak in found["peaks"]] == [3]
    assert all(peak["training_mb"] > 100 for peak in found["peaks"])


@pytest.mark.slow
def test_evaluation(finished: Project, tmp_path: Path) -> None:
    found = bench(finished, tmp_path / "out.json", "evaluation", "--rounds", "1", "--rois", "30")
    assert set(found["seconds"]) == {"own_epoch", "epoch", "pass", "shown"}
    assert 0 < found["pass_over_epoch"] < found["evaluation_over_epoch"]
    (row,) = found["memory"]
    assert row["rois"] >= 30
    assert row["peak_mb"] > 100


@pytest.mark.slow
def test_distill(finished: Project, tmp_path: Path) -> None:
    """Both sides saw the same maps, or their losses would differ; the project is one with the second track."""
    project = make_project(tmp_path / "project", second_track=True)
    shutil.copytree(finished.root / ".dvc/cache", project.root / ".dvc/cache")
    shutil.copyfile(finished.root / "dvc.lock", project.root / "dvc.lock")
    project.dvc("repro", "unet", "teacher")
    found = bench(project, tmp_path / "out.json", "distill", "--steps", "4", "--rounds", "1")
    assert found["first_loss_difference"] < 1e-3
    assert found["loss_difference"] < 0.05
    assert set(found["peak_mb"]) == {"student", "cached", "live"}
    assert all(peak > 100 for peak in found["peak_mb"].values())
    assert found["cached_over_live"] > 0
    assert found["cached_over_student"] > 0
    said = project.run("python", "-m", "bench.distill", "--steps", "2", ok=False)
    assert "--steps is 2, expected more than 2" in said


def test_latency(finished: Project, tmp_path: Path) -> None:
    """Every way of every part is there; the first is what the others are measured by."""
    found = bench(finished, tmp_path / "out.json", "latency", "--rois", "3", "--rounds", "1", "--no-compile")["cpu"]
    assert set(found) == {f"{group}, 3 ROIs" for group in ("head", "parts", "image")}
    assert list(found["head, 3 ROIs"]) == [*(f"onnxruntime head.{name}onnx" for name in ("", "fp16.", "int8.")), "torch eager"]
    assert list(found["image, 3 ROIs"]) == ["step by step", "end_to_end.onnx"]
    for ways in found.values():
        assert next(iter(ways.values()))["ratio"] == 1
        assert all(way["ms"] > 0 for way in ways.values())
