"""A small project in a folder of its own, with a git repository, in which DVC runs the real stages."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PROJECT = (
    "roiseg",
    "stages",
    "bench",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvc/plots",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "params.yaml",
    "pyproject.toml",
    "models/kept/nothing",
    "models/kept/nobody",
)
SMALL: dict[str, dict[str, Any]] = {
    "sample": {
        "train_images": 8,
        "val_images": 8,
        "image_hw": [240, 320],
        "backbone_width": 0.0625,
        "backbone_images": 1,
        "backbone_steps": 0,
    },
    "extractor": {"input_hw": [256, 320], "batch_size": 3},
    "cache": {"shard_mib": 1, "image": False},
    "data": {"min_box_px": 8.0},
    "model": {
        **dict.fromkeys(("layer_channels", "mid_channels", "deep_channels", "out_channels"), 16),
        "roi_hw": [14, 14],
        "mask_hw": [28, 28],
    },
    "train": {"epochs": 2, "images_per_batch": 3},
}
NET: dict[str, Any] = {"encoder": "timm-efficientnet-b0", "input_hw": [32, 64], "decoder_channels": [8, 8, 8, 8, 8]}
ONE_EPOCH: dict[str, Any] = {"epochs": 1, "images_per_batch": 4}
SMALL_NETS: dict[str, dict[str, Any]] = {
    "cache": {"image": True},
    "unet": {"model": NET, "train": ONE_EPOCH, "export": {"images": 2}},
    "distill": {"model": NET, "features": {"hidden": 8}, "train": ONE_EPOCH, "export": {"images": 2}},
    "rgb": {
        "model": {"mid_channels": 8, "base_channels": 4, "mask_hw": [28, 28], "inputs": {"roi_hw": [14, 14]}},
        "train": ONE_EPOCH,
        "export": {"images": 2, "calibration_images": 2},
    },
}
"""Changes to `SMALL` for a project that has the second track too."""
SMALL_SNAPPER: dict[str, dict[str, Any]] = {
    "snapper": {
        "model": {"positions": 32, "roi_hw": [12, 12], "layer_channels": 4, "mid_channels": 8, "convolutions": 1},
        "train": {"epochs": 2},
        "export": {"images": 2},
    }
}
"""The same for Snapper."""
SNAPPER = ("snapper_train", "snapper_evaluate", "snapper_export")
SECOND_TRACK = ("unet", "teacher", "distill", "rgb_train", "rgb_evaluate", "rgb_export")
EXP_SHOW = (
    "dvc exp show --only-changed --drop '(?!Exp|heads)[^.]*$|val|.*/|train.(total|ce|dice|mean|boundary_a|grad)' "
    "--keep '(.*:)?((miou_fg|iou_(non)?target)_roi|boundary_iou_crop|separation_accuracy|(oracle|detector)_box_ap)$'"
)
"""The README's table of experiments: the leading figures and the params that differ.

Names of params have dots, those of figures don't; with several heads a file stands before them.
"""
COUNTS = {"images", "rois", "rois_target", "rois_nontarget", "separation_pixels"}
"""Figures of `evaluate` that may be more than 1, but for the `detector_boxes*`."""


@dataclass(frozen=True)
class Project:
    """A working copy of the project.

    Attributes:
        root: its folder.
    """

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """What programs that run in the folder find in theirs."""
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "PYTHONPATH": str(self.root),
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *command: str, ok: bool = True) -> str:
        """Run a program of this environment in the folder; returns what it printed, errors included."""
        # Into a file: a worker of DVC's queue inherits it and may outlive its last experiment, and a pipe is read to its end.
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            done = subprocess.run(command, cwd=self.root, env=self.environment, stdout=file, stderr=file, check=False)
            file.seek(0)
            printed = file.read()
        assert (done.returncode == 0) == ok, f"{command} ended with {done.returncode}:\n{printed[-6000:]}"
        return printed

    def dvc(self, *arguments: str, ok: bool = True) -> str:
        """Run DVC."""
        return self.run(sys.executable, "-m", "dvc", *arguments, ok=ok)

    def commit(self) -> None:
        """Commit everything that isn't ignored."""
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "state", "--allow-empty")

    def params(self) -> dict[str, Any]:
        """params.yaml."""
        return dict(YAML(typ="safe").load((self.root / "params.yaml").read_text()))

    def set_params(self, changes: dict[str, Any]) -> None:
        """Merge changes into params.yaml."""
        values = self.params()
        _merge(values, changes)
        with (self.root / "params.yaml").open("w") as file:
            YAML().dump(values, file)

    def stages_run(self, printed: str) -> list[str]:
        """Names of the stages that DVC says it ran."""
        return [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage '")]


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def make_project(root: Path, *, second_track: bool = False) -> Project:
    """Copy the project's sources to `root`, with small params, under git.

    Args:
        root: where to.
        second_track: whether its DAG has the stages of `SECOND_TRACK`, which cost as much again. Those of `SNAPPER` it never has.
    """
    for name in PROJECT:
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    project = Project(root)
    project.set_params(SMALL)
    if second_track:
        project.set_params(SMALL_NETS)
    else:
        drop_stages(root / "dvc.yaml", SECOND_TRACK)
    drop_stages(root / "dvc.yaml", SNAPPER)
    project.run("git", "init", "-q", "-b", "main")
    project.commit()
    return project


def drop_stages(file: Path, names: Sequence[str]) -> None:
    """Take stages out of a dvc.yaml."""
    document = YAML().load(file.read_text())
    for name in names:
        del document["stages"][name]
    with file.open("w") as out:
        YAML().dump(document, out)


def copy_of(project: Project, root: Path) -> Project:
    """A copy at `root` that a test may change."""
    shutil.copytree(project.root, root, symlinks=True)
    return Project(root)


def assert_sane(figures: dict[str, float]) -> None:
    """Figures of `evaluate` are shares, or counts, and lie in their intervals."""
    shares = {name: value for name, value in figures.items() if name not in COUNTS and not name.startswith("detector_boxes")}
    assert {name: value for name, value in shares.items() if not 0 <= value <= 1} == {}
    counts = [value for name, value in figures.items() if name not in shares]
    assert len(counts) == len(COUNTS) + sum(name.startswith("detector_boxes") for name in figures)
    assert all(value >= 0 and value == round(value) for value in counts)
    leading = [name.removesuffix("_low") for name in figures if name.endswith("_low")]
    assert "miou_fg_roi" in leading
    assert all(figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"] for name in leading)


def readme_commands() -> list[str]:
    """Lines that are indented by four spaces and more, without their comments."""
    lines = (ROOT / "README.md").read_text().splitlines()
    code = [line.strip().split("  #")[0].strip() for line in lines if line.startswith("    ")]
    return [line for line in code if line]
