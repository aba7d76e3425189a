"""Tests of roiseg.console: how a stage ends."""

import hashlib
import logging
import sys
from pathlib import Path
from types import ModuleType

import pytest

from roiseg.console import run_stage
from roiseg.errors import ParamsError, RoisegError, StoreError
from roiseg.work import mark_done, work_folder

pytestmark = pytest.mark.usefixtures("stage_folder")


def logged(stage: str) -> str:
    return Path(f"logs/{stage}.log").read_text()


@pytest.mark.parametrize("error", [RoisegError("plain"), StoreError("f.zarr: torn"), ParamsError("train.lr: low")], ids=repr)
def test_errors_on_purpose_end_in_status_1(error: RoisegError, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run_stage("extract@train", main)
    assert caught.value.code == 1
    assert f"ERROR extract@train: {type(error).__name__}: {error}" in logged("extract@train")
    assert "Traceback" not in logged("extract@train") + capsys.readouterr().err


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, OSError])
def test_other_errors_propagate(error: type[BaseException]) -> None:
    def main() -> None:
        raise error("mine")

    with pytest.raises(error, match="mine"):
        run_stage("train", main)


def test_the_work_runs_once_and_is_logged() -> None:
    calls = []

    def main() -> None:
        calls.append(1)
        logging.getLogger("roiseg.x").info("half done")

    run_stage("train", main)
    assert calls == [1]
    assert "INFO roiseg.x: half done" in logged("train")


def test_finished_work_is_cleaned_first() -> None:
    Path("in").write_text("x")
    folder = work_folder("train", {})
    mark_done(folder, "train", [Path("in")])
    digest = hashlib.md5(b"x", usedforsecurity=False).hexdigest()
    Path("dvc.lock").write_text(f"stages:\n  train:\n    deps:\n    - path: in\n      md5: {digest}\n")
    seen = []
    run_stage("evaluate", lambda: seen.append(folder.exists()))
    assert seen == [False]
    assert f"{folder}: DVC holds its result, deleted" in logged("evaluate")


def test_check_all_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks themselves are those of roiseg.schema, which imports all of roiseg: here, that they are asked."""

    def check_params(values: dict[str, object]) -> None:
        if "aheat" in values:
            raise ParamsError("reader.aheat: unknown key")

    schema = ModuleType("roiseg.schema")
    schema.check_params = check_params  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "roiseg.schema", schema)
    calls = []
    Path("params.yaml").write_text("ahead: 1\n")
    run_stage("prepare", lambda: calls.append(1), check_all=True)
    Path("params.yaml").write_text("aheat: 1\n")
    run_stage("prepare", lambda: calls.append(2))
    with pytest.raises(SystemExit) as caught:
        run_stage("prepare", lambda: calls.append(3), check_all=True)
    assert caught.value.code == 1
    assert "ParamsError: reader.aheat: unknown key" in logged("prepare")
    assert calls == [1, 2]


def test_check_all_without_params(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = ModuleType("roiseg.schema")
    schema.check_params = lambda _values: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "roiseg.schema", schema)
    with pytest.raises(SystemExit):
        run_stage("prepare", lambda: None, check_all=True)
    assert "ParamsError: params.yaml: no such file" in logged("prepare")
