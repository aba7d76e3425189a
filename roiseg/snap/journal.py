"""What a run over many images has found so far, so that one that was stopped goes on where it was."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

from roiseg.errors import RoisegError, UnwritableError, WorkBusyError


class Journal:
    """Lines of JSON: what the run is, then an entry for each image that is done. It belongs to one process until that closes it."""

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        """Take up what an earlier run left, if it was the same run; begin anew else.

        Args:
            path: the file.
            run: all that decides what is found.

        Raises:
            UnwritableError: the file system refuses the file.
            WorkBusyError: another run has it.
        """
        self._path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        try:
            self._take_up(run)
        except BaseException:
            self._file.close()
            raise

    def _take_up(self, run: Mapping[str, Any]) -> None:
        _claim(self._file, self._path)
        whole = self._head = 0
        for line in _lines(self._path):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            # What a killed run was writing isn't there; nor is anything behind it.
            if entry is None or (not whole and entry != dict(run)):
                break
            whole += len(line)
            self._head = self._head or whole
        self._end = whole
        with self._told():
            self._file.truncate(whole)
            if not whole:
                self._file.write(_line(dict(run)))
                self._file.flush()

    def __enter__(self) -> Self:
        """Entries are taken inside."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others have it."""
        with self._told():
            self._file.close()

    def found(self) -> Iterator[Any]:
        """The entries of the earlier run, read one by one."""
        if self._end:
            with self._path.open("rb") as file:
                file.seek(self._head)
                while file.tell() < self._end:
                    yield json.loads(file.readline())

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the file system refuses, in words."""
        try:
            yield
        except OSError as error:
            if isinstance(error, RoisegError):
                raise
            raise UnwritableError(
                f"{self._path}: can't be written ({error.strerror or error}), expected room; free the disk and run it again: "
                "it goes on where it was"
            ) from error

    def add(self, entry: Any) -> None:  # noqa: ANN401 - any JSON
        """Note an entry; it outlives this process once this returns.

        Raises:
            UnwritableError: the file system refuses it.
        """
        with self._told():
            self._file.write(_line(entry))
            self._file.flush()

    def remove(self) -> None:
        """All is done, and what was found is written elsewhere."""
        self._path.unlink(missing_ok=True)


def _claim(file: BinaryIO, path: Path) -> None:
    """Keep other processes out of a file until it is closed.

    Raises:
        WorkBusyError: one has it, or has just removed it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
    except BlockingIOError:
        mine = False
    if not mine:
        raise WorkBusyError(f"{path}: another run writes to the same --out; wait for it, or give another --out")


def _lines(path: Path) -> Iterator[bytes]:
    if path.is_file():
        with path.open("rb") as file:
            yield from file


def _line(entry: Any) -> bytes:  # noqa: ANN401 - any JSON
    return (json.dumps(entry, separators=(",", ":")) + "\n").encode()
