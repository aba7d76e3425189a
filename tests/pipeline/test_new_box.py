"""A new GPU box: features come from the remote, nothing is extracted again."""

import shutil
from pathlib import Path

import pytest
from dvc_project import SMALL, Project, make_project

pytestmark = pytest.mark.pipeline

TRAIN = "train@default"


def clone(project: Project, remote: Path, target: Path) -> Project:
    project.dvc("remote", "add", "-d", "-f", "storage", str(remote))
    project.dvc("push")
    project.commit()
    project.run("git", "clone", "-q", str(project.root), str(target))
    return Project(target)


def test_without_images_nothing_runs_again_and_a_changed_loss_trains(finished: Project, tmp_path: Path) -> None:
    """All is pulled but the images; what needs them is up to date, for their hashes are in dvc.lock."""
    box = clone(finished, tmp_path / "remote", tmp_path / "box")
    stages = [line.split()[0] for line in box.dvc("stage", "list", "--name-only").splitlines()]
    box.dvc("pull", *(name for name in stages if name != "sample"))
    assert box.stages_run(box.dvc("repro", "--allow-missing")) == []
    printed = box.dvc("exp", "run", "--allow-missing", "-S", "loss.boundary_weight=3.0", "-S", "train.epochs=1", TRAIN)
    assert box.stages_run(printed) == [TRAIN]
    assert not (box.root / "data/sample").exists()
    assert (box.root / "data/features/train.zarr/zarr.json").is_file()


@pytest.mark.slow
def test_images_outside_and_absent(finished: Project, tmp_path: Path) -> None:
    """The images lie beside the repository and don't come along; a changed loss still trains."""
    outside = tmp_path / "coco"
    shutil.copytree(finished.root / "data/sample", outside)
    home = make_project(tmp_path / "home" / "project")
    splits = {
        split: {"images": str(outside / "images" / split), "annotations": str(outside / "annotations" / f"instances_{split}.json")}
        for split in ("train", "val")
    }
    home.set_params(
        {
            **SMALL,
            "data": {**splits, "min_box_px": 8.0},
            "extractor": {**SMALL["extractor"], "onnx": str(outside / "backbone.onnx")},
        }
    )
    home.commit()
    home.dvc("repro", TRAIN)
    home.commit()
    box = clone(home, tmp_path / "remote", tmp_path / "box")
    outside.rename(tmp_path / "elsewhere")
    box.dvc("pull", "--allow-missing")
    assert (box.root / "data/features/train.zarr/zarr.json").is_file()
    assert box.stages_run(box.dvc("repro", "--allow-missing", TRAIN)) == []
    printed = box.dvc("exp", "run", "--allow-missing", "-S", "loss.boundary_weight=3.0", "-S", "train.epochs=1", TRAIN)
    assert box.stages_run(printed) == [TRAIN]
    assert (box.root / "data/features/train.zarr/zarr.json").is_file()
