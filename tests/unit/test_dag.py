"""The DAG agrees with the code: deps with imports, params with sections, files with their limits."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
TALKS_ONLY = {"roiseg/console.py", "roiseg/errors.py", "roiseg/progress.py"}
"""Modules that shape no out: a mended message must not train a head again."""

EXTRACTIONS = ("extract", "teacher")
"""Stages that cost GPU days, so that a typo mended in a docstring must not re-run them."""

LAYERS = [
    {"errors", "types", "classes", "onnx_names"},
    {"params", "geometry", "cut_graph", "runtime", "files", "progress"},
    {"masks", "paste", "network_input", "polygons"},
    {"placed"},
    {"overlap"},
    {
        "work",
        "coco",
        "index",
        "objects",
        "extractor",
        "cache",
        "previews",
        "prepare",
        "analyze",
        "sample",
        "calibrate",
        "backbone",
        "preset",
    },
    {"dataset", "batches", "sampler", "shares", "balance", "noise"},
    {"nn", "heads", "losses", "filters"},
    {"defaults"},
    {"train", "evaluate", "trained", "stored", "own_training", "distill", "unet"},
    {"rgb"},
    {"predict", "snap", "export", "snapper"},
    {"schema", "console"},
    {"doctor", "verify", "compare"},
    {"snap_effect"},
    {"cli_serve", "cli_snap"},
    {"cli"},
]
"""Rooms from the ground up: a room imports its own and those below."""


def stages() -> dict[str, dict[str, Any]]:
    document = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
    return {
        name: {**stage.get("do", {}), **{k: v for k, v in stage.items() if k != "do"}} for name, stage in document["stages"].items()
    }


def module_file(name: str) -> Path | None:
    path = ROOT / name.replace(".", "/")
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def first_party_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("roiseg", "stages"))


def reached(path: Path) -> set[Path]:
    seen: set[Path] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        for name in first_party_imports(current):
            parts = name.split(".")
            files = (module_file(".".join(parts[:count])) for count in range(1, len(parts) + 1))
            todo += [file for file in files if file is not None]
    return seen


def says_something(path: Path) -> bool:
    """False for an `__init__.py` that holds a docstring, or the version, and nothing else."""
    return path.name != "__init__.py" or any(
        isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(path.read_text()).body
    )


def relative(paths: set[Path]) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in paths if says_something(path)}


@pytest.mark.parametrize("stage", [name for name in stages() if name not in EXTRACTIONS])
def test_deps_are_the_modules_a_stage_reaches(stage: str) -> None:
    wanted = relative(reached(ROOT / "stages" / f"{stage}.py")) - TALKS_ONLY
    listed: set[Path] = set()
    for dep in stages()[stage]["deps"]:
        if dep.startswith(("roiseg/presets", "data", "metrics", "models", "${")):
            continue
        path = ROOT / dep
        assert path.exists(), f"{stage} depends on {dep}, which isn't there"
        listed |= set(path.rglob("*.py")) if path.is_dir() else {path}
    assert relative(listed) == wanted


@pytest.mark.parametrize("stage", EXTRACTIONS)
def test_extraction_depends_on_one_number_of_the_code(stage: str) -> None:
    code = [dep for dep in stages()[stage]["deps"] if dep.endswith(".py")]
    assert code == ["roiseg/cache/version.py"]


def test_every_stage_is_described_and_thin() -> None:
    for name, stage in stages().items():
        assert stage.get("desc"), name
        script = ROOT / "stages" / f"{name}.py"
        assert len(script.read_text().splitlines()) <= 80, script


def test_declared_params_exist_and_sections_are_declared() -> None:
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    used: set[str] = set()
    for name, stage in stages().items():
        for key in stage["params"]:
            current: Any = params
            for part in key.replace("${key}", "train").split("."):
                assert part in current, f"{name}: {key}"
                current = current[part]
            used.add(key.split(".")[0])
    # `reader` only makes things fast; `heads` is the matrix itself.
    assert used == set(params) - {"reader", "watch", "heads"}


@pytest.mark.parametrize("section", ["loss", "sampler"])
def test_some_sections_reach_only_training_and_what_follows(section: str) -> None:
    touched = {name for name, stage in stages().items() if any(key.split(".")[0] == section for key in stage["params"])}
    assert touched == {"train"}


def test_no_persist_and_no_uncached_large_outs() -> None:
    for name, stage in stages().items():
        for out in stage.get("outs", []):
            assert isinstance(out, str), f"{name}: {out} has options"


def test_imports_only_go_down() -> None:
    height = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
    for path in (ROOT / "roiseg").rglob("*.py"):
        parts = path.relative_to(ROOT / "roiseg").with_suffix("").parts
        if parts == ("__init__",):
            continue
        assert parts[0] in height, f"{parts[0]} stands in no layer"
        for name in first_party_imports(path):
            rooms = name.split(".")
            if len(rooms) > 1 and rooms[1] in height:
                assert height[rooms[1]] <= height[parts[0]], f"{path.relative_to(ROOT)} imports {name}, which is above it"


def test_extraction_knows_no_heads() -> None:
    names = {
        path.relative_to(ROOT).parts[1] for path in reached(ROOT / "stages" / "extract.py") if len(path.relative_to(ROOT).parts) > 1
    }
    assert not names & {"nn", "heads", "losses", "train", "evaluate", "export"}


def test_files_and_functions_are_short() -> None:
    for path in [*(ROOT / "roiseg").rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                assert (node.end_lineno or 0) - first.lineno < 60, f"{path}: {node.name}"
