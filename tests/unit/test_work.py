"""Tests of roiseg.work: where long stages resume, and how their result becomes an out."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from roiseg.errors import WorkBusyError
from roiseg.work import cached, claimed, clean_finished, dvc_cache, link_tree, mark_done, work_folder


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def read(folder: Path) -> dict[str, str]:
    return {item.relative_to(folder).as_posix(): item.read_text() for item in folder.rglob("*") if item.is_file()}


def test_the_name_of_a_work_folder_is_stable(tmp_path: Path) -> None:
    """A run that resumes must find what an earlier version of this code left: the name may not change by accident."""
    folder = work_folder("extract@train", {"b": [1, 2.5], "a": {"x": None}}, tmp_path)
    digest = hashlib.sha256(b'{"a":{"x":null},"b":[1,2.5]}').hexdigest()
    assert folder == tmp_path / f"extract-train-{digest[:16]}"
    assert folder.is_dir()
    assert work_folder("extract@train", {"a": {"x": None}, "b": [1, 2.5]}, tmp_path) == folder


@pytest.mark.parametrize(("stage", "print_"), [("extract@val", {"a": 1}), ("extract@train", {"a": 2}), ("extract@train", {"b": 1})])
def test_other_work_has_another_folder(tmp_path: Path, stage: str, print_: dict[str, int]) -> None:
    assert work_folder("extract@train", {"a": 1}, tmp_path) != work_folder(stage, print_, tmp_path)


def test_a_work_folder_keeps_what_is_in_it(tmp_path: Path) -> None:
    fill(work_folder("train", {}, tmp_path), {"x": "kept"})
    assert read(work_folder("train", {}, tmp_path)) == {"x": "kept"}


def test_link_tree_makes_hard_links(tmp_path: Path) -> None:
    source = fill(tmp_path / "a", {"x": "1", "deep/er/y": "2"})
    link_tree(source, tmp_path / "new" / "b")
    assert read(tmp_path / "new" / "b") == {"x": "1", "deep/er/y": "2"}
    for name in ("x", "deep/er/y"):
        assert (source / name).samefile(tmp_path / "new" / "b" / name)
    assert [item.name for item in (tmp_path / "new").iterdir()] == ["b"]


def test_link_tree_replaces_all_of_the_old_one(tmp_path: Path) -> None:
    source = fill(tmp_path / "a", {"x": "1"})
    fill(tmp_path / "b", {"x": "old", "gone": "old"})
    fill(tmp_path / "b.tmp", {"torn": "old"})
    link_tree(source, tmp_path / "b")
    assert read(tmp_path / "b") == {"x": "1"}
    assert not (tmp_path / "b.tmp").exists()


def test_link_tree_copies_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_args: object, **_options: object) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    source = fill(tmp_path / "a", {"x": "1"})
    link_tree(source, tmp_path / "b")
    assert read(tmp_path / "b") == {"x": "1"}
    assert not (source / "x").samefile(tmp_path / "b" / "x")


def test_a_failure_leaves_the_old_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "a", {"x": "1", "y": "2"})
    fill(tmp_path / "b", {"x": "old"})

    def full(_source: str, _target: str, **_options: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(OSError, match="No space left on device"):
        link_tree(source, tmp_path / "b")
    assert read(tmp_path / "b") == {"x": "old"}


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder whose stage has published; the working folder holds the stage's files."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, {"in.onnx": "in", "out.parquet": "out", ".work/other-1/x": "no done.json"})
    folder = work_folder("extract@train", {"a": 1})
    mark_done(folder, "extract@train", [Path("in.onnx"), Path("out.parquet")])
    return folder


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def write_lock(stage: str, deps: dict[str, str], outs: dict[str, str]) -> None:
    def entries(files: dict[str, str]) -> list[dict[str, str]]:
        return [{"path": name, "hash": "md5", "md5": md5(text)} for name, text in files.items()]

    data = {"schema": "2.0", "stages": {stage: {"cmd": "x", "deps": entries(deps), "outs": entries(outs)}}}
    with Path("dvc.lock").open("w") as file:
        YAML().dump(data, file)


def test_clean_when_dvc_holds_the_result(finished: Path) -> None:
    write_lock("extract@train", {"in.onnx": "in", "more": "x"}, {"out.parquet": "out"})
    assert clean_finished() == [finished.relative_to(Path.cwd()) if finished.is_absolute() else finished]
    assert sorted(item.name for item in Path(".work").iterdir()) == ["other-1"]
    assert clean_finished() == []


@pytest.mark.parametrize(
    ("stage", "deps", "outs"),
    [
        ("extract@train", {"in.onnx": "IN"}, {"out.parquet": "out"}),
        ("extract@train", {"in.onnx": "in"}, {"out.parquet": "older"}),
        ("extract@train", {"in.onnx": "in"}, {}),
        ("extract@train", {}, {"out.parquet": "out"}),
        ("extract@val", {"in.onnx": "in"}, {"out.parquet": "out"}),
    ],
    ids=["other dep", "other out", "no out", "no dep", "other stage"],
)
def test_keep_while_dvc_holds_another_result(finished: Path, stage: str, deps: dict[str, str], outs: dict[str, str]) -> None:
    write_lock(stage, deps, outs)
    assert clean_finished() == []
    assert finished.is_dir()


@pytest.mark.parametrize(("held", "goes"), [("mine", True), ("older", False), (None, False)], ids=["mine", "older", "no list"])
def test_a_file_inside_an_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str | None, goes: bool) -> None:
    """A store made with other params may have all its small neighbours in common with the one that the lock still names."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, {"in.onnx": "in", "out.zarr/zarr.json": "mine", "out.zarr/layer/zarr.json": "same"})
    folder = work_folder("extract@train", {"codec": "zstd"})
    mark_done(folder, "extract@train", [Path("in.onnx"), Path("out.zarr/zarr.json")])
    if held is not None:
        cached("ab12.dir").parent.mkdir(parents=True)
        files = {"layer/zarr.json": "same", "zarr.json": held}
        cached("ab12.dir").write_text(json.dumps([{"md5": md5(text), "relpath": name} for name, text in files.items()]))
    write_lock("extract@train", {"in.onnx": "in"}, {"out.zarr": "?"})
    Path("dvc.lock").write_text(Path("dvc.lock").read_text().replace(md5("?"), "ab12.dir"))
    assert clean_finished() == ([folder] if goes else [])
    assert folder.is_dir() is not goes


def test_dvc_cache_is_where_the_config_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert dvc_cache() == Path(".dvc/cache")
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    analytics = false\n[cache]\n    dir = ../shared\n")
    assert dvc_cache() == Path(".dvc/../shared")
    Path(".dvc/config.local").write_text("[cache]\n    dir = /mnt/cache\n")
    assert dvc_cache() == Path("/mnt/cache")
    assert cached("abcd.dir") == Path("/mnt/cache/files/md5/ab/cd.dir")


@pytest.mark.parametrize("text", [None, "", "schema: '2.0'\n"], ids=["none", "empty", "no stages"])
def test_keep_without_a_record_of_dvc(finished: Path, text: str | None) -> None:
    if text is not None:
        Path("dvc.lock").write_text(text)
    assert clean_finished() == []
    assert finished.is_dir()


def test_nothing_to_clean(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    assert clean_finished(tmp_path / "dvc.lock", tmp_path / ".work") == []


CLAIM = """
import sys, time
from pathlib import Path
from roiseg.work import claimed
with claimed(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_one_process_s_alone(tmp_path: Path) -> None:
    """The claim of a process that was killed ends with it."""
    child = subprocess.Popen([sys.executable, "-c", CLAIM, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"mine\n"
    with pytest.raises(WorkBusyError, match=r"another process is at work there; wait for it, or end it"), claimed(tmp_path):
        pass
    child.kill()
    child.communicate()
    with claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass
