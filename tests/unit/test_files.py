"""Tests of roiseg.files: a file is whole or it isn't there."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dvc_project import ROOT

from roiseg.files import new_folder, sha256_file, sha256_json, write_bytes, write_json, write_parquet

TABLE = pd.DataFrame({"row": np.arange(3, dtype=np.int64), "name": ["a", "bß", ""], "x": [0.5, -1.0, 1e-9]})


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_write_bytes_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_bytes(path, b"old")
    write_bytes(path, b"\x00new")
    assert path.read_bytes() == b"\x00new"
    assert names(path.parent) == ["file.bin"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_write_bytes_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")

    def fail(*_args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(*((os, "fsync", fail) if broken == "fsync" else (Path, "replace", fail)))
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_write_bytes_is_not_seen_before_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _number: seen.append(path.exists()))
    write_bytes(path, b"new")
    assert seen == [False]
    assert path.read_bytes() == b"new"


KILLED = """
import os, sys
from pathlib import Path
import pandas as pd
from roiseg.files import write_bytes, write_parquet
Path.replace = lambda *_: os.kill(os.getpid(), 9)
write_bytes(Path(sys.argv[1]), b"torn") if sys.argv[1].endswith(".bin") else write_parquet(Path(sys.argv[1]), pd.DataFrame())
"""


@pytest.mark.parametrize("name", ["file.bin", "table.parquet"])
def test_what_a_kill_left_goes_with_the_next_write(tmp_path: Path, name: str) -> None:
    """No work folder is cleaned of what lies beside an out."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    if name == "file.bin":
        write_bytes(tmp_path / name, b"whole")
    else:
        write_parquet(tmp_path / name, TABLE)
    assert names(tmp_path) == [name]


def test_write_json_has_one_byte_form(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, None]})
    assert (tmp_path / "a.json").read_bytes() == b'{\n  "b": 1,\n  "a": [\n    1.5,\n    null\n  ]\n}\n'
    write_json(tmp_path / "b.json", [1, "é"], indent=None)
    assert (tmp_path / "b.json").read_bytes() == b'[1, "\\u00e9"]\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_write_json_refuses_numbers_that_json_lacks(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": value})
    assert json.loads(path.read_text()) == {"a": 1}


def test_write_parquet_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_parquet(tmp_path / name / "table.parquet", TABLE)
    first, second = ((tmp_path / name / "table.parquet").read_bytes() for name in ("one", "two"))
    assert first == second
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "one" / "table.parquet"), TABLE)


def test_write_parquet_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.parquet"
    write_parquet(path, TABLE)
    before = path.read_bytes()

    def half(_table: pd.DataFrame, aside: Path, **_options: object) -> None:
        aside.write_bytes(b"PAR1")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    with pytest.raises(OSError, match="disk full"):
        write_parquet(path, TABLE)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["table.parquet"]


def test_new_folder_replaces_the_whole_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out"
    with new_folder(path) as aside:
        (aside / "old").write_text("1")
    with new_folder(path) as aside:
        (aside / "new").write_text("2")
        assert names(path) == ["old"], "the old folder stays until the block has ended"
    assert names(path) == ["new"]
    assert names(tmp_path / "deep") == ["out"]


def test_new_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with new_folder(path) as aside:
        (aside / "old").write_text("1")

    def fail_in_the_middle() -> None:
        with new_folder(path) as aside:
            (aside / "half").write_text("2")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail_in_the_middle()
    assert names(path) == ["old"]
    with new_folder(path) as aside:
        assert names(aside) == [], "leftovers of a failed run are not taken over"
    assert names(path) == []


def test_sha256_matches_the_written_out_digest(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    big = bytes(range(256)) * 5000
    (tmp_path / "big").write_bytes(big)
    assert sha256_file(tmp_path / "big") == hashlib.sha256(big).hexdigest()


def test_sha256_json_ignores_key_order_only() -> None:
    assert sha256_json({"a": 1, "b": [1, 2]}) == sha256_json({"b": [1, 2], "a": 1})
    assert sha256_json({"a": 1, "b": [1, 2]}) == hashlib.sha256(b'{"a":1,"b":[1,2]}').hexdigest()
    assert sha256_json({"b": [1, 2]}) != sha256_json({"b": [2, 1]})
    with pytest.raises(ValueError, match="JSON compliant"):
        sha256_json(float("nan"))
