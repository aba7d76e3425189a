"""`kill -9` of a stage in a project of its own, under DVC and bare, at a moment that is looked up while everything is halted."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import psutil
from dvc_project import Project


class Moment(StrEnum):
    """Where a kill lands, as it is found when everything has been halted."""

    BEFORE = "before the first piece of the run"
    PIECES = "between the first piece and the links"
    WRITING = "while a piece is written"
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


def each_once(plan: Sequence[Kill]) -> list[Kill]:
    """Those of a plan without what comes again."""
    return list(dict.fromkeys(plan))


@dataclass(frozen=True)
class Stage:
    """A long stage.

    Attributes:
        name: in dvc.yaml.
        command: its module and arguments.
        out: the folder that it publishes by links.
        others: files and folders that DVC deletes besides before it runs the stage.
        pieces: of a project's folder, those that are whole in the work folder: what a run goes on after.
        writing: whether one is just being written, where that can be seen.
    """

    name: str
    command: tuple[str, ...]
    out: str
    others: tuple[str, ...]
    pieces: Callable[[Path], list[Path]]
    writing: Callable[[Path], bool] = lambda _: False


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another one of its name, or from itself with other entries."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


@dataclass
class Run:
    """One run of a stage, in a process group of its own, with an eye on what it has reached."""

    project: Project
    stage: Stage
    dvc: bool
    lock: bytes = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        root, stage = self.project.root, self.stage
        self._out, self._aside = root / stage.out, root / f"{stage.out}.tmp"
        if not self.dvc:  # as DVC does before it runs a stage
            for name in (stage.out, *stage.others):
                shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink(missing_ok=True)
        # DVC may take a result that it holds from an earlier run: then no command would run that could be killed.
        repro = [sys.executable, "-m", "dvc", "repro", "--no-run-cache", "-s", stage.name]
        command = repro if self.dvc else [sys.executable, "-m", *stage.command]
        self._old_aside, self._old_pieces = identity(self._aside), len(stage.pieces(root))
        self._cleared = not self._out.exists()
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

    def new_pieces(self) -> int:
        """Number of pieces that this run has written."""
        return len(self.stage.pieces(self.project.root)) - self._old_pieces

    def writing(self) -> bool:
        """Whether a piece is just being written."""
        return self.stage.writing(self.project.root)

    def linking(self) -> bool:
        """Whether the folder that will be the out is being filled."""
        begun = identity(self._aside) not in (None, self._old_aside)
        self._cleared = self._cleared or begun
        return begun

    def published(self) -> bool:
        """Whether the out is there, and is that of this run."""
        there = self._out.exists()
        self._cleared = self._cleared or not there
        return there and self._cleared

    def command_runs(self) -> bool:
        """Whether the stage's command is alive."""
        return any(self.stage.command[0] in command for command, _ in self._alive())

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
        if self.writing():
            return Moment.WRITING
        return Moment.PIECES if self.new_pieces() else Moment.BEFORE


def strike(project: Project, stage: Stage, want: Kill, within: float, rng: random.Random) -> Moment | None:
    """Run, kill at the wanted moment or soon after, and tell where it landed."""
    delay, more = rng.uniform(0, within), rng.randrange(2)
    run = Run(project, stage, want.dvc)
    began = time.monotonic()
    reached: dict[Moment, Callable[[], bool]] = {
        Moment.BEFORE: lambda: time.monotonic() - began >= delay or run.new_pieces() > 0,
        Moment.PIECES: lambda: run.new_pieces() > more,
        Moment.WRITING: lambda: run.new_pieces() >= more and run.writing(),
        Moment.LINKING: lambda: run.linking() or run.published(),
        Moment.PUBLISHED: run.published,
        Moment.HASHING: lambda: run.published() and not run.command_runs(),
    }
    try:
        run.until(reached[want.moment], pause=0.0002 if want.moment in (Moment.LINKING, Moment.WRITING) else 0.002)
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


def copy(project: Project, name: str) -> Project:
    """The project as it stands, in a folder beside it."""
    target = project.root.with_name(name)
    shutil.copytree(project.root, target, symlinks=True)
    return Project(target)


def leavings(root: Path) -> list[Path]:
    """What was written aside, and should be gone or renamed."""
    return [path for path in root.rglob("*") if path.suffix == ".partial" or (path.suffix == ".tmp" and ".dvc" not in path.parts)]
