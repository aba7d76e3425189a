"""Every command of the README is run: here, or by the test that is named."""

import re

import pytest
from dvc_project import EXP_SHOW, ROOT, Project, copy_of, readme_commands

pytestmark = pytest.mark.pipeline

ELSEWHERE = {
    "pip install uv && uv run dvc repro": "the `finished` fixture runs `dvc repro`; .ci/run installs uv and runs `uv run`",
    "pip install uv": ".ci/run",
    "uv run pytest": ".ci/run",
    "uv run --group bench python -m bench.reader --layer layer_14 --megabytes 400": "test_bench.py, on the sample",
    "uv run dvc repro": "the `finished` fixture",
    "uv run dvc exp run -S loss.boundary_weight=3.0": "test_experiments.py",
    f"uv run {EXP_SHOW}": "test_experiments.py",
    "uv run dvc exp run -S 'heads=[baseline,multiscale]'": "test_experiments.py, narrow heads",
    "uv run dvc exp run --queue -S 'heads=[baseline],[multiscale]'": "test_experiments.py, narrow heads",
    "uv run dvc exp run --run-all": "test_experiments.py",
    **dict.fromkeys((line for line in readme_commands() if " --queue " in line), "unit/test_sweeps.py reads them as DVC does"),
    "uv run dvc exp run -S train.resume_from=models/kept/first -S train.additional_epochs=16": "test_kept_runs.py, fewer epochs",
    **dict.fromkeys((line for line in readme_commands() if "train.distill_from=" in line), "test_kept_runs.py, one epoch"),
    "uv run roiseg train keep large": "test_kept_runs.py, under another name",
    "uv run dvc repro export": "test_second_track.py, what it would run",
    "uv run dvc repro distill": "test_second_track.py, with all others of the second track",
    "uv run dvc exp run -S distill.temperature.start=4.0": "test_second_track.py, what it would run",
    "uv run dvc exp run -S +unet.train.weight_decay=0.05": "test_second_track.py, what it would run",
    "uv run dvc exp run -S rgb.train.epochs=12": "test_second_track.py, what it would run",
    "uv run roiseg evaluate models/rgb": "test_second_track.py, in a folder of its own",
    **dict.fromkeys((line for line in readme_commands() if "models/onnx/rgb" in line), "test_second_track.py"),
    "uv run dvc repro snapper_export": "test_snapper_stages.py",
    "uv run dvc exp run -S snapper.loss.giou=0.0": "test_snapper_stages.py, what it would run",
    **dict.fromkeys((line for line in readme_commands() if line.startswith("uv run roiseg snap")), "test_snapper_stages.py"),
    **dict.fromkeys((line for line in readme_commands() if line.endswith(" --snap")), "test_snapper_stages.py"),
    **dict.fromkeys((line for line in readme_commands() if "roiseg serve" in line), "unit/test_cli_serve.py, a moment long"),
    **dict.fromkeys((line for line in readme_commands() if line.startswith("curl")), "unit/snap/test_service.py, without curl"),
    "uv run dvc remote add -d storage /mnt/storage/roiseg": "test_new_box.py, with a folder of the test",
    "uv run dvc push": "test_new_box.py",
    "uv run dvc pull": "test_new_box.py",
    "uv run dvc repro --allow-missing": "test_new_box.py",
    "uv run dvc exp run --allow-missing -S train.epochs=40": "test_new_box.py",
}


@pytest.fixture(scope="module")
def copy(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy that commands may change."""
    return copy_of(finished, tmp_path_factory.mktemp("readme") / "project")


def test_readme_has_its_commands() -> None:
    commands = readme_commands()
    assert commands[0] == "pip install uv && uv run dvc repro"
    assert "uv run pytest" in commands
    assert set(ELSEWHERE) <= set(commands), "a command that no test runs any more"


@pytest.mark.parametrize("command", list(dict.fromkeys(item for item in readme_commands() if item not in ELSEWHERE)))
def test_readme_command(copy: Project, command: str) -> None:
    assert command.startswith("uv run "), f"{command!r} is neither run here nor named in ELSEWHERE"
    before = (copy.root / "params.yaml").read_bytes()
    try:
        copy.run("bash", "-c", command.removeprefix("uv run "))
    finally:
        (copy.root / "params.yaml").write_bytes(before)


def test_readme_program(copy: Project) -> None:
    """The program of "Using a head"."""
    program, _ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert re.fullmatch(r"[01]\.\d+ \(240, 320\) \d+\n", copy.run("python", "-c", program))
