"""`roiseg compare` on branches, a tag, an experiment and the workspace, with tables from DVC's cache and remote."""

import json
import shutil
from pathlib import Path

import pytest
from compare_factory import PARAMS, command, make_repository, write_yaml
from typer.testing import CliRunner, Result

from roiseg import cli
from roiseg.compare.runs import find_runs
from roiseg.errors import RunError
from roiseg.evaluate.table import RoiTable

pytestmark = pytest.mark.pipeline

ALONE = "treat the runs as independent and come out too wide"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_repository`; tests leave it as it is."""
    root = tmp_path_factory.mktemp("compare") / "project"
    root.mkdir()
    make_repository(root)
    return root


@pytest.fixture
def repository(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, to be in."""
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def copy(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may change, to be in."""
    root = tmp_path / "project"
    shutil.copytree(made, root, symlinks=True)
    monkeypatch.chdir(root)
    return root


def compare(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(cli.app, ["compare", *arguments])
    assert result.exit_code == status, result.output
    return result


def read(*arguments: str) -> dict[str, dict[str, float]]:
    """Label -> change of `iou_target_roi`."""
    values = json.loads(compare(*arguments, "--json", "--metric", "iou_target_roi").stdout)
    return {item["label"]: item for item in values["differences"]}


def notes(*arguments: str) -> list[str]:
    found: list[str] = json.loads(compare(*arguments, "--json").stdout)["notes"]
    return found


def test_every_name_of_a_state_gives_its_own_metrics_params_and_rows(repository: Path) -> None:
    runs = find_runs(["main", "v1", "blunt", "HEAD~1", "workspace"], [])
    assert [(run.name, run.head, run.metrics["iou_target_roi"]) for run in runs] == [
        ("main", "default", 0.5),
        ("v1", "default", 0.75),
        ("v1", "wide", 1.0),
        ("blunt", "default", 0.25),
        ("HEAD~1", "default", 0.5),
        ("workspace", "default", 0.75),
        ("workspace", "wide", 1.0),
    ]
    params = [run.params for run in runs if run.params is not None]
    assert [item["loss"]["boundary_weight"] for item in params] == [1.0, 2.0, 2.0, 3.0, 1.0, 2.0, 2.0]
    assert [item["model"]["layers"] for item in params][:3] == [["deep"], ["deep"], ["deep", "shallow"]]
    tables = [run.table(pull=False) for run in runs]
    found = [table.confusions[:, 1, 1].tolist() for table in tables if isinstance(table, RoiTable)]
    assert found == [[2] * 4, [3] * 4, [4] * 4, [1] * 4, [2] * 4, [3] * 4, [4] * 4]


def test_branches_and_an_experiment_in_pairs(repository: Path) -> None:
    changes = read("main", "sharper", "blunt")
    assert list(changes) == ["sharper:default", "sharper:wide", "blunt:default"]
    assert [item["value"] for item in changes.values()] == pytest.approx([0.25, 0.5, -0.25])
    assert all(item["paired"] and item["clear"] for item in changes.values())
    # All four people change alike, so that it doesn't matter which images are drawn.
    assert changes["blunt:default"]["low"] == pytest.approx(changes["blunt:default"]["high"])
    assert notes("main", "sharper", "blunt") == []
    assert read("main", "sharper", "--head", "default", "--base", "sharper")["main"]["value"] == pytest.approx(-0.25)


def test_what_a_terminal_shows(repository: Path) -> None:
    text = compare("main", "blunt", "--metric", "iou_target_roi").stdout
    lines = [line.split() for line in text.splitlines()]
    assert ["2", "blunt", "0.250", "–", "-0.250*", "-0.250", "to", "-0.250"] in lines
    assert ["loss.boundary_weight", "1.0", "3.0"] in lines
    assert ["distance", "loss", "1", "1", "-0.250", "1", "-0.250"] in lines
    assert "Where it helps and hurts: iou_target_roi against 1 main" in text
    assert "Intervals: paired bootstrap over images." in " ".join(text.split())


def test_markdown_json_and_chart_have_the_standard_output_alone(repository: Path, tmp_path: Path) -> None:
    chart = tmp_path / "chart.png"
    text = compare("main", "blunt", "--markdown", "--chart", str(chart)).stdout
    assert text.startswith("### Runs\n\n| # | run |")
    assert text.endswith("differ in nothing else.\n")
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert list(json.loads(compare("main", "blunt", "--json").stdout)) == [
        "base", "metrics", "runs", "differences", "strata", "params", "features", "notes",
    ]  # fmt: skip


def test_rows_come_from_the_remote_when_that_is_asked_for(copy: Path) -> None:
    shutil.move(copy / ".dvc/cache", copy.parent / "remote")
    with (copy / ".dvc/config").open("a") as file:
        file.write(f"    remote = storage\n['remote \"storage\"']\n    url = {copy.parent / 'remote'}\n")
    path = "data/predictions/default.parquet"
    missing = f"{path} isn't in DVC's cache; --pull asks the remote"
    assert notes("main", "blunt") == [f"main (the base): all intervals of differences {ALONE}: {missing}"]
    assert not read("main", "blunt")["blunt"]["paired"]
    assert notes("main", "blunt", "--pull") == []
    assert read("main", "blunt", "--pull")["blunt"]["paired"]


def test_rows_that_are_nowhere(copy: Path) -> None:
    shutil.rmtree(copy / ".dvc/cache")
    note = notes("workspace", "blunt", "--head", "default", "--pull")[0]
    reason = "data/predictions/default.parquet is neither in DVC's cache nor to be had from its remote ("
    assert note.startswith(f"blunt: intervals of differences {ALONE}: {reason}")
    assert note.endswith("); `dvc push` it where the run was made")


def test_a_workspace_that_dvc_has_not_checked_out(copy: Path) -> None:
    """After `git checkout` alone the metrics are those of main, and the rows those of sharper."""
    command(copy, "git", "checkout", "-q", "main")
    (note,) = notes("workspace", "blunt")
    reason = "data/predictions/default.parquet is of another evaluation than metrics/evaluate/"
    assert note.startswith(f"workspace (the base): all intervals of differences {ALONE}: {reason}")


def test_params_that_were_edited_after_the_figures_were_made(copy: Path) -> None:
    command(copy, "git", "checkout", "-q", "main")
    write_yaml(copy / "params.yaml", {**PARAMS, "loss": {"boundary_weight": 9.0}})
    said = notes("main", "workspace")
    assert "workspace: figures are of other params than params.yaml (loss.boundary_weight); `dvc repro` makes them anew" in said


def test_an_experiment_of_the_same_name_at_another_commit(copy: Path) -> None:
    sha = command(copy, "git", "rev-parse", "main").strip()
    (own,) = [
        ref for ref in command(copy, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split() if ref.endswith("/blunt")
    ]
    head = command(copy, "git", "rev-parse", "HEAD").strip()
    here, there = f"refs/exps/{head[:2]}/{head[2:]}/blunt", f"refs/exps/aa/{'b' * 38}/blunt"
    command(copy, "git", "update-ref", there, sha)
    with pytest.raises(
        RunError, match=f"experiment 'blunt': there are 2 of this name, expected one; name {min(own, there)} or {max(own, there)}"
    ):
        find_runs(["blunt"], [])
    assert find_runs([own], [])[0].metrics["iou_target_roi"] == 0.25
    command(copy, "git", "update-ref", here, sha)
    assert find_runs(["blunt"], [])[0].metrics["iou_target_roi"] == 0.5, "the one that began at HEAD"


def test_a_state_without_metrics(copy: Path) -> None:
    command(copy, "git", "rm", "-rq", "metrics")
    command(copy, "git", "commit", "-qm", "no metrics")
    remedy = "check it out, run `dvc repro` and commit metrics/ and dvc.lock"
    text = compare("HEAD", "main", status=1).stderr
    assert f"RunError: run 'HEAD': there is no metrics/evaluate/HEAD.json of any of its `heads`; {remedy}" in text


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("shaper", "did you mean 'sharper'?"),
        ("blont", "did you mean 'blunt'?"),
        ("--", ""),
        ("zzz", "known: blunt, main, sharper, v1, workspace"),
    ],
)
def test_a_name_that_stands_for_nothing(repository: Path, name: str, hint: str) -> None:
    with pytest.raises(RunError) as caught:
        find_runs([name], [])
    assert str(caught.value).startswith(f"run {name!r}: no revision, experiment, metrics file or folder of such has this name")
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--markdown", "--json"], "--markdown and --json are both given, expected at most one of them"),
        (["--chart", "chart.jpg"], "--chart chart.jpg: a file of type .jpg, expected .png"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage_is_status_two(arguments: list[str], message: str) -> None:
    result = compare(*(["main", *arguments] if arguments else []), status=2)
    assert message in " ".join(result.stderr.replace("│", " ").split())
