"""The sweeps of the README as DVC reads them: each is of several runs, all with params that pass, no two alike."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from dvc_project import ROOT, readme_commands

from roiseg.params import PARAMS_FILE, get_dotted, read_yaml
from roiseg.schema import check_params

SWEEPS = [line for line in readme_commands() if " --queue " in line]


def runs(line: str, folder: Path) -> list[dict[str, Any]]:
    """The params of each run that a line queues."""
    words = shlex.split(line)
    found = []
    for number, overrides in enumerate(get_hydra_sweeps({PARAMS_FILE.name: words[words.index("-S") + 1 :: 2]})):
        file = folder / f"{number}.yaml"
        file.write_bytes((ROOT / PARAMS_FILE).read_bytes())
        apply_overrides(file, overrides[PARAMS_FILE.name])
        found.append(read_yaml(file))
    return found


@pytest.mark.parametrize("line", SWEEPS)
def test_a_sweep_is_of_several_good_runs(line: str, tmp_path: Path) -> None:
    words = shlex.split(line)
    assert words[:6] == ["uv", "run", "dvc", "exp", "run", "--queue"]
    assert set(words[6::2]) == {"-S"}
    found = runs(line, tmp_path)
    for values in found:
        check_params(values)
    assert len(found) > 1
    assert not any(one == two for place, one in enumerate(found) for two in found[:place])


@pytest.mark.parametrize(
    ("question", "keys", "expected"),
    [
        ("sweep", ["heads"], [[["baseline"]], [["multiscale"]]]),
        ("class 2", ["loss.non_target"], [["own"], ["background"]]),
        ("context", ["heads"], [[["roi_crop"]], [["positional"]]]),
        (
            "loss",
            ["loss.dice", "loss.boundary_weight", "loss.instance_sep_weight"],
            [[0.0, 1.0, 1.0], [0.0, 2.0, 1.0], [1.0, 1.0, 1.0], [1.0, 2.0, 1.0]],
        ),
        ("imbalance", ["loss.class_weights.mode"], [["none"], ["separation"]]),
    ],
)
def test_each_question_of_the_seeds_has_its_sweep(
    question: str, keys: list[str], expected: list[list[Any]], tmp_path: Path
) -> None:
    """Spec 22's table: the value of class 2, of context, of the terms of the loss, of class weights."""
    answers = []
    for number, line in enumerate(SWEEPS):
        (tmp_path / str(number)).mkdir()
        answers.append([[get_dotted(values, key) for key in keys] for values in runs(line, tmp_path / str(number))])
    assert expected in answers, question
