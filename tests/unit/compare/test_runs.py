"""Tests of roiseg.compare.runs and its sources on metrics files, and of every message about them."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from compare_factory import command, overlapping, run_of, write_yaml

from roiseg.compare.revisions import LISTED, unknown
from roiseg.compare.runs import Figure, find_runs, labels
from roiseg.errors import RunError
from roiseg.evaluate.table import RoiTable


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, which is no repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def write(path: str, values: object) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(values if isinstance(values, str) else json.dumps(values))


def state(heads: list[str], metrics: Mapping[str, object]) -> None:
    """A workspace with these heads in its params and these metrics."""
    write_yaml(Path("params.yaml"), {"heads": heads, "loss": {"dice": 1.0, "edge": None}})
    for head, values in metrics.items():
        write(f"metrics/evaluate/{head}.json", values)
        write(f"roiseg/presets/{head}.yaml", "# A preset.\nloss:\n  dice: 0.0\n" if head == "other" else "{}")


def test_the_workspace_has_the_heads_of_its_params() -> None:
    state(["default", "other"], {"default": {"a": 1.0}, "other": {"a": 2}, "stale": {"a": 3.0}})
    write("metrics/export/other.json", {"parameters": 12})
    first, second = find_runs(["workspace"], [])
    assert [(run.name, run.head, run.metrics["a"]) for run in (first, second)] == [
        ("workspace", "default", 1.0),
        ("workspace", "other", 2.0),
    ]
    assert [dict(run.costs) for run in (first, second)] == [{}, {"parameters": 12.0}]
    assert first.params == {"heads": ["default", "other"], "loss": {"dice": 1.0, "edge": None}}
    assert second.params == {"heads": ["default", "other"], "loss": {"dice": 0.0, "edge": None}}, "its preset laid over"
    assert [run.head for run in find_runs(["workspace"], ["stale"])] == ["stale"], "asked for by its name"


def test_the_head_on_pixels_has_params_of_its_own() -> None:
    """It is no entry of `heads`, and is asked for by its name."""
    state(["default"], {"default": {"a": 1.0}, "rgb": {"a": 2.0}})
    assert find_runs(["workspace"], ["rgb"])[0].params is None, "of a state that had no such section"
    own = {"model": {"head": "rgb_hierarchical"}, "loss": {"dice": 3.0}}
    write_yaml(Path("params.yaml"), {"heads": ["default"], "loss": {"dice": 1.0}, "rgb": own})
    (run,) = find_runs(["workspace"], ["rgb"])
    assert run.params is not None
    assert (run.params["model"], run.params["loss"]["dice"]) == ({"head": "rgb_hierarchical"}, 3.0)


def test_heads_without_metrics_are_told(caplog: pytest.LogCaptureFixture) -> None:
    state(["default", "other"], {"default": {"a": 1.0}})
    assert [run.head for run in find_runs(["workspace"], [])] == ["default"]
    assert caplog.messages == ["run 'workspace': there are no metrics of other, which its `heads` name; `dvc repro` makes them"]
    caplog.clear()
    find_runs(["workspace"], ["default"])
    assert not caplog.messages, "it wasn't asked for"


def test_a_head_whose_preset_is_gone_has_no_known_params() -> None:
    state(["default"], {"default": {"a": 1.0}})
    Path("roiseg/presets/default.yaml").unlink()
    (run,) = find_runs(["workspace"], [])
    assert run.params is None


def test_metrics_files_and_folders_of_them() -> None:
    for head in ("one", "two"):
        write(f"kept/evaluate/{head}.json", {"a": 1.0})
        write(f"kept/export/{head}.json", {"parameters": 5})
    write("plain/one.json", {"a": 2.0})
    runs = find_runs(["kept/evaluate", "plain/one.json", "kept/evaluate"], [])
    assert [(run.name, run.head) for run in runs] == [("kept/evaluate", "one"), ("kept/evaluate", "two"), ("plain/one.json", "one")]
    assert [dict(run.costs) for run in runs] == [{"parameters": 5.0}, {"parameters": 5.0}, {}]
    assert all(run.params is None for run in runs)
    assert runs[0].table(pull=True) == "metrics files come without data/predictions/one.parquet"


def test_figures_have_their_intervals() -> None:
    run = run_of("a", {"iou": 0.5, "iou_low": 0.4, "iou_high": 0.7, "ap": 0.3})
    assert [run.figure(name) for name in ("iou", "ap", "gone")] == [Figure(0.5, 0.4, 0.7), Figure(0.3), None]


def test_labels_are_as_short_as_they_can_be() -> None:
    def of(*pairs: tuple[str, str]) -> list[str]:
        return labels([run_of(name, {}, head=head) for name, head in pairs])

    assert of(("main", "a"), ("more", "a")) == ["main", "more"]
    assert of(("main", "a"), ("main", "b")) == ["a", "b"]
    assert of(("main", "a"), ("more", "b")) == ["main:a", "more:b"]


def test_a_table_that_is_there() -> None:
    table = overlapping(1, 2, 3)
    found = run_of("a", {}, table=table).table(pull=False)
    assert isinstance(found, RoiTable)
    assert found.annotation_ids.tolist() == table.annotation_ids.tolist()


def test_a_table_of_another_evaluation_is_not_used() -> None:
    reason = run_of("a", {"miou_fg_roi": 0.9}, table=overlapping(1, 2, 3)).table(pull=False)
    assert reason == (
        "data/predictions/default.parquet is of another evaluation than metrics/evaluate/default.json (miou_fg_roi is 0.5 and 0.9; "
        "`dvc checkout` puts the right one there)"
    )
    rounded = run_of("a", {"iou_target_roi": 0.333333}, table=overlapping(1, 1, 2))
    assert isinstance(rounded.table(pull=False), RoiTable), "metrics files have six decimals"


def test_a_table_that_is_not_there_or_is_none() -> None:
    assert run_of("a", {}).table(pull=False) == "data/predictions/default.parquet isn't kept"
    state(["default"], {"default": {"a": 1.0}})
    (run,) = find_runs(["workspace"], [])
    path = "data/predictions/default.parquet"
    assert run.table(pull=False) == f"{path} isn't there; `dvc checkout {path}` or `dvc pull {path}` puts it there"
    write(path, "no Parquet")
    reason = run.table(pull=False)
    assert isinstance(reason, str)
    assert reason.startswith(f"{path} can't be read ({path}: expected the table of ROIs as Parquet")


@pytest.mark.parametrize(
    ("names", "heads", "message"),
    [
        (
            ["workspce"],
            [],
            "run 'workspce': no revision, experiment, metrics file or folder of such has this name, expected one of "
            "these or 'workspace'; did you mean 'workspace'?",
        ),
        (["empty"], [], r"run 'empty': a folder without \*.json, expected metrics files as evaluation writes them"),
        (["notes.txt"], [], "run 'notes.txt': a file of type .txt, expected .json, metrics as evaluation writes them"),
        (["broken.json"], [], r"run 'broken.json': metrics/evaluate/broken.json isn't JSON \(Expecting"),
        (["list.json"], [], "run 'list.json': metrics/evaluate/list.json holds a list, expected names and numbers"),
        (["nan.json"], [], "nan.json: a is nan, expected a finite number; is it a metrics file?"),
        (["text.json"], [], "text.json: a is 'x', expected a finite number; is it a metrics file?"),
        (["good.json"], ["goood"], "run 'good.json': has no metrics of goood, only of good; name one by --head"),
        (["good.json"], ["good", "bad"], "--head 'bad': none of the runs has it; known: good"),
        (["workspace"], [], r"run 'workspace': there is no metrics/evaluate/HEAD.json of any of its `heads`; run `dvc repro`"),
    ],
)
def test_messages(names: list[str], heads: list[str], message: str) -> None:
    Path("empty").mkdir()
    write("notes.txt", "")
    write("broken.json", "{")
    write("list.json", [1])
    write("nan.json", '{"a": NaN}')
    write("text.json", {"a": "x"})
    write("good.json", {"a": 1.0})
    with pytest.raises(RunError, match=message):
        find_runs(names, heads)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("params.yaml", "a: [", "run 'workspace': params.yaml isn't YAML: "),
        ("params.yaml", "- a", "run 'workspace': params.yaml holds a list, expected sections"),
        ("roiseg/presets/default.yaml", "- a", "run 'workspace': roiseg/presets/default.yaml holds a list, expected sections"),
    ],
)
def test_params_that_cannot_be_read(path: str, text: str, message: str) -> None:
    state(["default"], {"default": {"a": 1.0}})
    write(path, text)
    with pytest.raises(RunError, match=message):
        find_runs(["workspace"], [])


def test_a_name_of_a_file_and_of_a_revision(folder: Path) -> None:
    command(folder, "git", "init", "-q", "-b", "main")
    write("main/default.json", {"a": 1.0})
    command(folder, "git", "add", "-A")
    command(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "state")
    with pytest.raises(
        RunError, match=r"run 'main': is a folder and a revision; write ./main for the folder, or another name of the revision"
    ):
        find_runs(["main"], [])
    (run,) = find_runs(["./main"], [])
    assert run.metrics == {"a": 1.0}


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunError, match="git rev-parse: there is no program git; install it, or name metrics files"):
        find_runs(["main"], [])


def test_of_many_names_only_near_ones_are_listed() -> None:
    names = [f"experiment-{number}" for number in range(LISTED + 1)]
    assert str(unknown("zzz", names)).endswith(
        "none of the known names is near; `git branch -a`, `git tag` and `dvc exp list -A` list them"
    )
    assert str(unknown("zzz", names[:2])).endswith("known: experiment-0, experiment-1")
    assert "did you mean 'experiment-12'" in str(unknown("experiment-12", names))
