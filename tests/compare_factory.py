"""Runs to compare: in memory, and in a repository with two branches and an experiment."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from table_factory import table_of

from roiseg.compare.runs import Run
from roiseg.evaluate.metrics import roi_figures
from roiseg.evaluate.table import RoiTable

NAMES = {"user.name": "t", "user.email": "t@t", "core.hooksPath": "/dev/null"}


@dataclass(frozen=True)
class Kept:
    """A state of the project that is in memory; see `roiseg.compare.sources.Source`."""

    name: str
    tables: Mapping[str, RoiTable] = field(default_factory=dict)

    def listed(self) -> list[str]:
        return sorted(Path(path).stem for path in self.tables)

    def text(self, path: str) -> str | None:
        return None

    def fetch(self, path: str, target: Path, *, pull: bool) -> str | None:
        if path not in self.tables:
            return f"{path} isn't kept"
        self.tables[path].write(target)
        return None


def run_of(
    name: str,
    metrics: Mapping[str, float],
    *,
    head: str = "default",
    params: Mapping[str, Any] | None = None,
    costs: Mapping[str, float] | None = None,
    table: RoiTable | None = None,
) -> Run:
    """A run in memory; with a table, its figures are among the metrics."""
    tables = {} if table is None else {f"data/predictions/{head}.parquet": table}
    figures = {} if table is None else roi_figures(table)
    return Run(Kept(name, tables), head, {**figures, **metrics}, costs or {}, params)


def overlapping(*quarters: int, image_ids: Sequence[int] | None = None) -> RoiTable:
    """An ROI for each number: of 4 cells of target as many are found, nothing else is there, so that its IoU is number / 4."""
    confusions = np.zeros((len(quarters), 3, 3), dtype=np.int64)
    confusions[:, 1, 1] = quarters
    confusions[:, 1, 0] = 4 - np.array(quarters)
    return table_of(confusions, image_ids)


STAGES = {
    "stages": {
        "evaluate": {
            "matrix": {"head": "${heads}"},
            "cmd": "cp made/${loss.boundary_weight}/${item.head}.json metrics/evaluate/"
            " && cp made/${loss.boundary_weight}/${item.head}.parquet data/predictions/",
            "params": ["loss"],
            "outs": ["data/predictions/${item.head}.parquet"],
            "metrics": [{"metrics/evaluate/${item.head}.json": {"cache": False}}],
        }
    }
}
PARAMS = {"heads": ["default"], "model": {"head": "roi_unet", "layers": ["deep"]}, "loss": {"boundary_weight": 1.0}}
SCORES = {
    (1.0, "default"): (2, 2, 2, 2),
    (2.0, "default"): (3, 3, 3, 3),
    (2.0, "wide"): (4, 4, 4, 4),
    (3.0, "default"): (1, 1, 1, 1),
}
"""Weight in the params, and head -> quarters of four people that are found."""


def make_repository(root: Path) -> None:
    """Branches `main` (boundary_weight 1.0) and `sharper` (2.0, and a second head), experiment `blunt` (3.0) at `main`."""
    for (weight, head), quarters in SCORES.items():
        folder, table = root / f"made/{weight}", overlapping(*quarters)
        folder.mkdir(parents=True, exist_ok=True)
        table.write(folder / f"{head}.parquet")
        (folder / f"{head}.json").write_text(json.dumps({**roi_figures(table), "images": 4, "rois": 4}))
    for name, text in {"default": "{}", "wide": "model: {layers: [deep, shallow]}"}.items():
        _write(root / f"roiseg/presets/{name}.yaml", f"# A preset.\n{text}\n")
    for place in ("metrics/evaluate", "data/predictions"):
        _write(root / place / ".gitkeep", "")
    write_yaml(root / "dvc.yaml", STAGES)
    write_yaml(root / "params.yaml", PARAMS)
    command(root, "git", "init", "-q", "-b", "main")
    for key, value in NAMES.items():
        command(root, "git", "config", key, value)
    # What `dvc init` leaves, without its two seconds.
    _write(root / ".dvc/.gitignore", "/cache\n/tmp\n/config.local\n")
    _write(root / ".dvc/config", "[core]\n    analytics = false\n    autostage = false\n")
    _reproduce(root, "main")
    command(root, sys.executable, "-m", "dvc", "exp", "run", "-q", "-n", "blunt", "-S", "loss.boundary_weight=3.0")
    command(root, "git", "checkout", "-q", "--", ".")
    command(root, "git", "checkout", "-q", "-b", "sharper")
    write_yaml(root / "params.yaml", {**PARAMS, "heads": ["default", "wide"], "loss": {"boundary_weight": 2.0}})
    _reproduce(root, "sharper")
    command(root, "git", "tag", "v1")


def _reproduce(root: Path, message: str) -> None:
    command(root, sys.executable, "-m", "dvc", "repro", "-q")
    command(root, "git", "add", "-A")
    command(root, "git", "commit", "-qm", message)


def command(root: Path, *arguments: str) -> str:
    """Run a program in a folder; what it printed."""
    done = subprocess.run(arguments, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Write a YAML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        YAML().dump(dict(values), file)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
