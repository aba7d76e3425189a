"""Snapper through DVC, and what people do with it from the command line."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from dvc_project import ROOT, SECOND_TRACK, SMALL_SNAPPER, SNAPPER, Project, drop_stages

pytestmark = pytest.mark.pipeline

IMAGES, ANNOTATIONS = "data/sample/images/val", "data/sample/annotations/instances_val.json"
OUTS = (
    "models/snapper/{best_model,untrained_model}.pth",
    "models/onnx/snapper/{snapper,snapper.fp16,backbone}.onnx",
    "metrics/train/snapper/pictures/validation_all_images_epoch_0002.png",
    "metrics/train/snapper/curves/{loss,iou,weights,learning_rate}.tsv",
    "metrics/plots/snapper/{validation,best,worst,least_sure}.png",
    "metrics/curves/snapper/{error_by_confidence,reliability,reliability_peak,deviance,edges}.csv",
    "data/snapper/calibration.json",
    "logs/complexity/snapper.json",
)


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished run, gone on with by Snapper."""
    root = tmp_path_factory.mktemp("snapper") / "project"
    subprocess.run(["cp", "-a", str(finished.root), str(root)], check=True)
    project = Project(root)
    shutil.copyfile(ROOT / "dvc.yaml", root / "dvc.yaml")
    drop_stages(root / "dvc.yaml", SECOND_TRACK)
    project.set_params(SMALL_SNAPPER)
    assert project.stages_run(project.dvc("repro")) == list(SNAPPER)
    project.commit()
    return project


def figures(project: Project, name: str) -> dict[str, float]:
    return dict(json.loads((project.root / "metrics" / name).read_text()))


def test_outs_are_there(project: Project) -> None:
    for pattern in OUTS:
        spelled = project.run("bash", "-c", f"ls {pattern}").split()
        assert all((project.root / name).stat().st_size for name in spelled)


def test_figures_stand_beside_the_baselines(project: Project) -> None:
    found = json.loads((project.root / "metrics/evaluate/snapper.json").read_text())
    assert len(pd.read_parquet(project.root / "data/predictions/snapper.parquet")) == found["boxes"]
    assert found["boxes"] <= figures(project, "prepare.json")["val_objects_kept"]
    assert found["whole_crop"]["mean_iou"] < found["rough"]["mean_iou"] < found["clipped_oracle"]["mean_iou"] <= 1
    assert found["over_rough"]["gain_mean_iou"] == pytest.approx(found["mean_iou"] - found["rough"]["mean_iou"], abs=1e-5)
    exported = figures(project, "export/snapper.json")
    assert exported["parity_max_abs"] < 1e-3
    assert abs(exported["fp16_mean_iou_loss"]) < 0.01


def test_what_a_change_makes_stale(project: Project) -> None:
    """Training only where it learns otherwise; nothing of the other tracks ever, and nothing of Snapper from theirs."""
    before = (project.root / "params.yaml").read_bytes()
    for changes, stale in (
        ({"snapper": {"loss": {"giou": 0.5}}}, {"snapper_train", "snapper_export"}),
        ({"snapper": {"confidence": {"review_below": 0.6}}}, {"snapper_evaluate", "snapper_export"}),
        ({"snapper": {"export": {"images": 3}}}, {"snapper_export"}),
        ({"loss": {"dice": 0.5}}, {"train@default"}),
    ):
        project.set_params(changes)
        ran = set(project.stages_run(project.dvc("repro", "--dry")))
        (project.root / "params.yaml").write_bytes(before)
        assert ran == stale, changes


def test_an_image_is_snapped(project: Project, tmp_path: Path) -> None:
    """Commands of the README."""
    project.run("roiseg", "snap", f"{IMAGES}/000000500001.jpg", "--box", "60,40,90,150", "--out", str(tmp_path / "out"))
    (told,) = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    assert len(told["boxes"]) == 1
    assert list((tmp_path / "out").glob("*.png"))
    refused = project.run("roiseg", "snap", f"{IMAGES}/000000500001.jpg", "--box", "60,40,0,150", ok=False)
    assert "BoxError" in refused


def test_annotations_are_cleaned(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "clean.json"
    project.run("roiseg", "snap", "--coco", ANNOTATIONS, "--images", IMAGES, "--out", str(out))
    before, after = (json.loads(path.read_text()) for path in (project.root / ANNOTATIONS, out))
    assert [item["id"] for item in before["annotations"]] == [item["id"] for item in after["annotations"]]
    assert {**before, "annotations": []} == {**after, "annotations": []}
    assert (tmp_path / "clean.review.json").is_file()


def test_boxes_are_snapped_before_masks_are_made(project: Project, tmp_path: Path) -> None:
    project.run("roiseg", "predict", IMAGES, "--boxes", ANNOTATIONS, "--snap", "--out", str(tmp_path / "masks"))
    assert json.loads((tmp_path / "masks/predictions.json").read_text())


def test_the_effect_on_masks_is_told(project: Project, tmp_path: Path) -> None:
    said = project.run("roiseg", "snap-effect", "--out", str(tmp_path / "effect.json"))
    told = json.loads((tmp_path / "effect.json").read_text())
    assert told["rough_box_iou"] < told["annotated_box_iou"] == 1
    assert {"rough_ap", "snapped_ap", "annotated_ap"} <= told.keys()
    assert "snapped" in said


def test_the_readmes_program(project: Project) -> None:
    """Of "Snapping boxes"."""
    _, program = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert re.fullmatch(r"\[.*\]\n", project.run("python", "-c", program), flags=re.DOTALL)


def test_a_forced_training_changes_no_hash(project: Project) -> None:
    force(project, ["snapper_train"])


@pytest.mark.slow
def test_a_forced_run_changes_no_hash(project: Project) -> None:
    force(project, SNAPPER)


def force(project: Project, targets: Sequence[str]) -> None:
    """Run stages again, with nothing to go on from."""
    lock = project.root / "dvc.lock"
    before = lock.read_bytes()
    shutil.rmtree(project.root / ".work", ignore_errors=True)
    assert project.stages_run(project.dvc("repro", "--force", "--single-item", *targets)) == list(targets)
    assert lock.read_bytes() == before
