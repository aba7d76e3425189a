"""The second track through DVC: people against background, distillation, and the head on pixels."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from dvc_project import ROOT, SECOND_TRACK, SMALL_NETS, SNAPPER, Project, assert_sane, drop_stages

pytestmark = [pytest.mark.pipeline, pytest.mark.thorough]

STAGES = {"unet", "teacher@train", "teacher@val", "distill", "rgb_train", "rgb_evaluate", "rgb_export"}
OUTS = (
    "models/{unet,distill,rgb}/{best_model,untrained_model}.pth",
    "models/onnx/unet/{person_net,person_net.fp16,backbone}.onnx",
    "models/onnx/distill/{person_net,person_net.fp16}.onnx",
    "models/onnx/rgb/{head,head.fp16,head.int8,backbone,end_to_end}.onnx",
    "metrics/train/{unet,distill,rgb}/pictures/validation_all_images_epoch_0001.png",
    "metrics/train/{unet,distill,rgb}/curves/{loss,iou,weights,learning_rate}.tsv",
    "metrics/curves/rgb/pr.csv",
    "data/predictions/rgb.json",
    "reports/rgb.html",
    "logs/complexity/{unet,distill,rgb}.json",
)

Changes = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished run, gone on with by the second track; its own heads are not trained on the new stores."""
    root = tmp_path_factory.mktemp("second") / "project"
    subprocess.run(["cp", "-a", str(finished.root), str(root)], check=True)
    project = Project(root)
    shutil.copyfile(ROOT / "dvc.yaml", root / "dvc.yaml")
    drop_stages(root / "dvc.yaml", SNAPPER)
    project.set_params(SMALL_NETS)
    project.dvc("repro", *SECOND_TRACK)
    project.commit()
    return project


def figures(project: Project, name: str) -> dict[str, Any]:
    return dict(json.loads((project.root / "metrics" / name).read_text()))


def stale(project: Project, changes: Changes, targets: Sequence[str]) -> set[str]:
    """Stages that DVC would run, were the params changed so."""
    before = (project.root / "params.yaml").read_bytes()
    project.set_params(changes)
    try:
        return set(project.stages_run(project.dvc("repro", "--dry", *targets)))
    finally:
        (project.root / "params.yaml").write_bytes(before)


def test_outs_are_there(project: Project) -> None:
    for pattern in OUTS:
        spelled = project.run("bash", "-c", f"ls {pattern}").split()
        assert all((project.root / name).stat().st_size for name in spelled)


def test_figures_are_flat_numbers_of_two_classes(project: Project) -> None:
    """None of them has the name of a head's figure; those of the head on pixels are a head's."""
    heads = figures(project, "evaluate/rgb.json")
    assert_sane(heads)
    assert heads.keys() >= {"miou_fg_roi", "iou_target_roi", "oracle_box_ap"}
    for name in ("unet.json", "distill.json", "teacher_val.json", "export/rgb.json"):
        assert all(isinstance(value, int | float) for value in figures(project, name).values()), name
    unet, student = figures(project, "unet.json"), figures(project, "distill.json")
    for found in (unet, student):
        assert 0 <= found["miou_2class"] <= 1
        assert found["parity_max_abs"] < 1e-3
        assert not {"miou_fg_roi", "iou_target_roi", "miou_3class"} & set(found)
    assert student["teacher_miou_2class"] == pytest.approx(unet["miou_2class"], abs=0.01)
    assert 0 <= student["agreement"] <= 1
    assert student["feature_loss"] > 0
    assert student["size_ratio"] == 1  # the small nets are alike
    assert "speed_ratio" in json.loads((project.root / "logs/complexity/distill.json").read_text())


def test_the_teacher_is_a_store_of_logits(project: Project) -> None:
    group = zarr.open_group(project.root / "data/teacher/val.zarr", mode="r")
    layer = group["teacher"]
    assert isinstance(layer, zarr.Array)
    assert layer.dtype == np.float16
    assert layer.shape == (figures(project, "prepare.json")["val_images_used"], 1, 32, 64)
    assert np.isfinite(np.asarray(layer[:])).all()


def test_the_head_on_pixels_goes_where_heads_go(project: Project, tmp_path: Path) -> None:
    """Commands of the README."""
    said = project.run("roiseg", "evaluate", "models/rgb", "--out", str(tmp_path / "evaluated"), "--no-pictures")
    assert "rgb_hierarchical on image+teacher" in said
    boxes = "data/sample/annotations/instances_val.json"
    model = ("--model", "models/onnx/rgb", "--out", str(tmp_path / "predicted"))
    project.run("roiseg", "predict", "data/sample/images/val", "--boxes", boxes, *model)
    assert json.loads((tmp_path / "predicted/predictions.json").read_text())
    assert list((tmp_path / "predicted/overlays").glob("*.jpg"))


def test_neither_track_makes_the_other_stale(project: Project) -> None:
    """Each stage is named that reads what was changed; those after it follow what it then writes."""
    own: Changes = {
        "unet": {"train": {"weight_decay": 0.05}},
        "distill": {"temperature": {"start": 4.0}},
        "rgb": {"train": {"epochs": 12}},
    }
    assert stale(project, own, SECOND_TRACK) == {"unet", "distill", "rgb_train"}
    main: Changes = {"loss": {"dice": 0.5}, "model": {"dropout": 0.2}, "train": {"epochs": 3}, "export": {"opset": 19}}
    assert stale(project, main, SECOND_TRACK) == set()


def test_the_main_path_alone_runs_nothing_of_it(project: Project) -> None:
    """Though both are stale; the heads are, for their features were extracted anew."""
    changes: Changes = {"unet": {"train": {"weight_decay": 0.05}}, "rgb": {"train": {"epochs": 2}}}
    ran = stale(project, changes, ["export"])
    assert "train@default" in ran
    assert not ran & STAGES


def test_a_forced_run_of_the_teacher_changes_no_hash(project: Project) -> None:
    force(project, ["teacher@val"])


@pytest.mark.slow
def test_a_forced_run_of_all_changes_no_hash(project: Project) -> None:
    assert force(project, SECOND_TRACK) == STAGES


def force(project: Project, targets: Sequence[str]) -> set[str]:
    """Run stages again, with nothing to go on from; returns which."""
    lock = project.root / "dvc.lock"
    before = lock.read_bytes()
    shutil.rmtree(project.root / ".work", ignore_errors=True)
    ran = set(project.stages_run(project.dvc("repro", "--force", "--single-item", *targets)))
    assert lock.read_bytes() == before
    return ran
