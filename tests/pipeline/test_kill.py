"""`kill -9` of an extraction at twenty moments: the next run goes on after what was whole, and nothing shows in the end."""

import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import psutil
import pytest
from dvc_project import Project, make_project
from extraction_place import tree

from roiseg.cache.reader import FeatureStore
from roiseg.work import clean_finished

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("kill")]

logger = logging.getLogger(__name__)

COMMAND: Final = "stages.extract"
STORE: Final = "data/features/train.zarr"
SMALL_FILES: Final = ("data/detections/train.parquet", "metrics/extract_train.json")
SHARDS_LEAST: Final = 12
TRIES: Final = 8
"""Runs that may miss the moment meant for them, before the test gives up."""


class Moment(StrEnum):
    """Where a kill lands, as it is found when everything has been halted."""

    BEFORE = "before the first shard of the run"
    SHARDS = "between the first shard and the links"
    LINKING = "while the links are laid"
    PUBLISHED = "after the rename, before the end of the command"
    HASHING = "after the command, before dvc.lock"


@dataclass(frozen=True)
class Kill:
    """A kill that is wanted.

    Attributes:
        moment: where it shall land.
        dvc: whether under `dvc repro`, or under the bare command.
        within: seconds after the moment's beginning, at most.
    """

    moment: Moment
    dvc: bool
    within: float


PLAN: Final = [
    *[Kill(Moment.BEFORE, dvc=False, within=2.5)] * 3,
    *[Kill(Moment.BEFORE, dvc=True, within=4.0)] * 2,
    *[Kill(Moment.SHARDS, dvc=False, within=0.15)] * 5,
    Kill(Moment.SHARDS, dvc=True, within=0.15),
    *[Kill(Moment.LINKING, dvc=False, within=0.004)] * 2,
    *[Kill(Moment.PUBLISHED, dvc=False, within=0.4)] * 2,
    Kill(Moment.PUBLISHED, dvc=True, within=0.4),
    *[Kill(Moment.HASHING, dvc=True, within=0.3)] * 4,
]

Shards = dict[str, tuple[int, int]]


def shard_files(store: Path) -> Shards:
    """Inode and time of every shard of a store."""
    files = store.rglob("c.*.0.0.0")
    return {item.relative_to(store).as_posix(): (item.stat().st_ino, item.stat().st_mtime_ns) for item in files}


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another one of its name, or from itself with other entries."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


@dataclass
class Run:
    """One run of the stage, in a process group of its own, with an eye on what it has reached."""

    project: Project
    dvc: bool
    lock: bytes = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        root = self.project.root
        self._store, self._aside = root / STORE, root / f"{STORE}.tmp"
        if not self.dvc:  # as DVC does before it runs a stage
            shutil.rmtree(self._store, ignore_errors=True)
            for name in SMALL_FILES:
                (root / name).unlink(missing_ok=True)
        # DVC may take a result that it holds from an earlier run: then no command would run that could be killed.
        repro = [sys.executable, "-m", "dvc", "repro", "--no-run-cache", "extract@train"]
        command = repro if self.dvc else [sys.executable, "-m", COMMAND, "train"]
        self._old_aside, self._old_records = identity(self._aside), len(records(root))
        self._cleared = not self._store.exists()
        self.lock = (root / "dvc.lock").read_bytes()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=root, env=self.project.environment, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def _log(self) -> Path:
        return self.project.root.parent / "killed.log"

    def until(self, reached: Callable[[], bool], pause: float = 0.002) -> None:
        """Wait for something, or for the end of the run; look again after each `pause` seconds."""
        stop = time.monotonic() + 120
        while self.process.poll() is None and not reached():
            assert time.monotonic() < stop, self._log.read_text()[-4000:]
            time.sleep(pause)

    def new_records(self) -> int:
        """Number of shards that this run has written."""
        return len(records(self.project.root)) - self._old_records

    def linking(self) -> bool:
        """Whether the folder that will be the store is being filled."""
        begun = identity(self._aside) not in (None, self._old_aside)
        self._cleared = self._cleared or begun
        return begun

    def published(self) -> bool:
        """Whether the store is there, and is that of this run."""
        there = self._store.exists()
        self._cleared = self._cleared or not there
        return there and self._cleared

    def command_runs(self) -> bool:
        """Whether the stage's command is alive."""
        return any(COMMAND in command for command, _ in self._alive())

    def _alive(self) -> list[tuple[str, bool]]:
        """Command line of every living process of the group, and whether it is halted."""
        leader, found = psutil.Process(self.process.pid), []
        for process in (leader, *leader.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                status = process.status()
                if status != psutil.STATUS_ZOMBIE:
                    found.append((" ".join(process.cmdline()), status == psutil.STATUS_STOPPED))
        return found

    def kill(self) -> Moment | None:
        """Halt the group where it is, look where that is, and end it; None if the run was over by then."""
        moment = None
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGSTOP)
            self.until(lambda: all(halted for _, halted in self._alive()))
            moment = self._moment()
            self.end()
        assert self.process.returncode in (0, -signal.SIGKILL), self._log.read_text()[-4000:]
        return moment

    def end(self) -> None:
        """End the group, if it still lives."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _moment(self) -> Moment | None:
        if not self._alive() or (self.project.root / "dvc.lock").read_bytes() != self.lock:
            return None
        if self.published():
            return Moment.PUBLISHED if self.command_runs() else Moment.HASHING
        if self.linking():
            return Moment.LINKING
        return Moment.SHARDS if self.new_records() else Moment.BEFORE


def records(root: Path) -> list[Path]:
    """Of all shards that count as written."""
    return list(root.glob(".work/extract-train-*/shards/*.json"))


def written(root: Path) -> tuple[dict[str, bytes], Shards]:
    """All records by number, and the files that they stand for."""
    found = {path.stem: path.read_bytes() for path in records(root)}
    files = {name: value for store in root.glob(".work/extract-train-*/store.zarr") for name, value in shard_files(store).items()}
    return found, {name: value for name, value in files.items() if Path(name).name.split(".")[1] in found}


def strike(project: Project, want: Kill, within: float, rng: random.Random) -> Moment | None:
    """Run, kill at the wanted moment or soon after, and tell where it landed."""
    delay, more = rng.uniform(0, within), rng.randrange(2)
    run = Run(project, want.dvc)
    began = time.monotonic()
    reached: dict[Moment, Callable[[], bool]] = {
        Moment.BEFORE: lambda: time.monotonic() - began >= delay or run.new_records() > 0,
        Moment.SHARDS: lambda: run.new_records() > more,
        Moment.LINKING: lambda: run.linking() or run.published(),
        Moment.PUBLISHED: run.published,
        Moment.HASHING: lambda: run.published() and not run.command_runs(),
    }
    try:
        run.until(reached[want.moment], pause=0.0002 if want.moment is Moment.LINKING else 0.002)
        if want.moment is not Moment.BEFORE:
            time.sleep(delay)
        landed = run.kill()
    finally:
        run.end()
    mend(project.root, run.lock)
    return landed


def mend(root: Path, lock: bytes) -> None:
    """What a person does by hand, see "Troubleshooting" in the README, where a kill met DVC writing one of its own two files.

    What else a killed DVC leaves, such as the locks that it held, the next one puts right by itself.
    """
    if (root / "dvc.lock").read_bytes() != lock:  # or DVC was done: too late for a kill of ours
        (root / "dvc.lock").write_bytes(lock)
    rwlock = root / ".dvc/tmp/rwlock"
    try:
        json.loads(rwlock.read_text() if rwlock.exists() else "{}")
    except json.JSONDecodeError:
        rwlock.unlink()


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project just before its extraction, with one image in a shard."""
    project = make_project(tmp_path_factory.mktemp("kill") / "origin")
    project.set_params(
        {
            "sample": {"train_images": 24, "val_images": 4},
            "extractor": {"input_hw": [512, 640], "batch_size": 1},
            "cache": {"dtype": "float16"},
        }
    )
    project.dvc("repro", "calibrate")
    return project


def lock_of_another(lock: str) -> str:
    """What dvc.lock would say had the last extraction had another codec: all else, the boxes too, stays as it is."""
    another, count = re.subn(rf"(path: {STORE}\s+hash: md5\s+md5: )[0-9a-f]{{32}}", rf"\g<1>{'0' * 32}", lock)
    assert count == 1
    assert "codec: lz4" in another
    return another.replace("codec: lz4", "codec: none")


def copy(project: Project, name: str) -> Project:
    target = project.root.with_name(name)
    shutil.copytree(project.root, target, symlinks=True)
    return Project(target)


def test_twenty_kills(origin: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shard is made twice, nothing torn is published, and all bytes are in the end those of a run that nobody killed."""
    killed, whole = copy(origin, "killed"), copy(origin, "whole")
    whole.dvc("repro", "extract")
    (killed.root / "dvc.lock").write_text(lock_of_another((whole.root / "dvc.lock").read_text()))
    store, small = tree(whole.root / STORE), {name: (whole.root / name).read_bytes() for name in SMALL_FILES}
    assert len(list((whole.root / STORE / "layer_34").glob("c.*"))) >= SHARDS_LEAST

    rng, landed = random.Random(20), Counter[Moment]()
    for want in PLAN:
        within = want.within
        for _ in range(TRIES):
            before = written(killed.root)
            moment = strike(killed, want, within, rng)
            after = written(killed.root)
            logger.info(
                "%s, %s: killed %s, %d shards", want.moment, "dvc" if want.dvc else "bare", moment or "never", len(after[0])
            )
            assert before[0].items() <= after[0].items()
            assert before[1].items() <= after[1].items()
            # DVC puts a link for a file that its cache holds already, which isn't there for an instant.
            if (killed.root / STORE).exists() and (moment is not Moment.HASHING or (killed.root / STORE / "zarr.json").exists()):
                FeatureStore(killed.root / STORE)
                assert tree(killed.root / STORE) == store
            for name, expected in small.items():
                assert not (killed.root / name).exists() or (killed.root / name).read_bytes() == expected
            landed.update([moment] if moment else [])
            if moment is want.moment:
                break
            within /= 2
        else:
            pytest.fail(f"{TRIES} runs and none killed {want.moment}; kills so far: {landed}")
    assert landed.total() >= len(PLAN) == 20
    assert landed[Moment.HASHING] >= 3

    _, made = written(killed.root)
    killed.dvc("repro", "extract")
    assert tree(killed.root / STORE) == store
    assert shard_files(killed.root / STORE) == made
    for name in (*SMALL_FILES, "dvc.lock"):
        assert (killed.root / name).read_bytes() == (whole.root / name).read_bytes(), name
    assert "up to date" in killed.dvc("status", "extract")

    # The train split's folder went when extract@val began; that of the val split goes when any stage begins.
    monkeypatch.chdir(killed.root)
    assert [path.name.rsplit("-", 1)[0] for path in Path(".work").iterdir()] == ["extract-val"]
    assert len(clean_finished()) == 1
    assert not list(Path(".work").iterdir())
    left = [path for path in Path().rglob("*") if path.suffix == ".partial" or (path.suffix == ".tmp" and ".dvc" not in path.parts)]
    assert left == []
