"""What a run over many images has found so far, so that one that was stopped goes on where it was."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roiseg.errors import RoisegError, UnwritableError


class Journal:
    """Lines of JSON: what the run is, then an entry for each image that is done."""

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        """Take up what an earlier run left, if it was the same run; begin anew else.

        Args:
            path: the file.
            run: all that decides what is found.
        """
        self._path = path
        whole = self._head = 0
        for line in _lines(path):
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
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.truncate(whole)
                if not whole:
                    file.write(_line(dict(run)))

    def found(self) -> Iterator[Any]:
        """The entries of the earlier run, read one by one."""
        if self._end:
            with self._path.open("rb") as file:
                file.seek(self._head)
                while file.tell() < self._end:
                    yield json.loads(file.readline())

    @contextmanager
    def writing(self) -> Iterator["Journal"]:
        """Entries are taken inside.

        Raises:
            UnwritableError: the file system refuses them.
        """
        with self._told(), self._path.open("ab") as self._file:
            yield self

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
        """Note an entry; it outlives this process once this returns."""
        self._file.write(_line(entry))
        self._file.flush()

    def remove(self) -> None:
        """All is done, and what was found is written elsewhere."""
        self._path.unlink()


def _lines(path: Path) -> Iterator[bytes]:
    if path.is_file():
        with path.open("rb") as file:
            yield from file


def _line(entry: Any) -> bytes:  # noqa: ANN401 - any JSON
    return (json.dumps(entry, separators=(",", ":")) + "\n").encode()
