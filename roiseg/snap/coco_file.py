"""COCO files read and written record by record: what is in memory is one record of the file, however large it is."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from roiseg.errors import AnnotationError, RoisegError, UnwritableError

BLOCK = 1 << 20
"""Characters that are read at a time."""

LONGEST = 64 * BLOCK
"""Characters of one record at most; what isn't whole by then is broken."""

_SPACE = re.compile(r"[ \t\r\n]*")

Record = dict[str, Any]
Section = tuple[str, Any]
"""Name and value; a list comes as an iterator of its items, to be exhausted before the next section is asked for."""


def read_sections(path: Path) -> Iterator[Section]:
    """The sections of a COCO file, such as `images` and `annotations`, in the order of the file.

    Raises:
        AnnotationError: missing, unreadable, not JSON, or not a record of sections.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _sections(_Scanner(path, file))
    except FileNotFoundError as error:
        raise AnnotationError(f"{path}: no such file of annotations; correct the path") from error
    except OSError as error:
        raise AnnotationError(f"{path}: can't be read ({error.strerror}); expected a file of COCO annotations") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: isn't text in UTF-8 ({error}); expected JSON of COCO annotations") from error


def _sections(scanner: "_Scanner") -> Iterator[Section]:
    scanner.take("{")
    if scanner.peek() == "}":
        return
    while True:
        name = scanner.value()
        scanner.take(":")
        if scanner.peek() == "[":
            items = scanner.items()
            yield str(name), items
            for _ in items:  # whoever asked had enough of them
                pass
        else:
            yield str(name), scanner.value()
        if scanner.take(",}") == "}":
            return


class _Scanner:
    """JSON of which a part is in memory."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file = path, file
        self._text, self._place = "", 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that isn't space; nothing at the end."""
        while True:
            found = _SPACE.match(self._text, self._place)
            self._place = self._place if found is None else found.end()
            if self._place < len(self._text) or not self._more():
                return self._text[self._place : self._place + 1]

    def take(self, wanted: str) -> str:
        """The next character, which is one of these."""
        found = self.peek()
        if not found or found not in wanted:
            raise self._broken(f"{found or 'the end'!r} where {' or '.join(wanted)} should be")
        self._place += 1
        return found

    def value(self) -> Any:  # noqa: ANN401 - anything may be in a file
        """The next value, whole."""
        self.peek()
        while True:
            try:
                item, end = self._decode(self._text, self._place)
            except (ValueError, RecursionError) as error:
                if len(self._text) - self._place < LONGEST and self._more():
                    continue
                raise self._broken(str(error)) from error
            # A number at the end of what is read may go on.
            if end == len(self._text) and self._more():
                continue
            self._place = end
            return item

    def items(self) -> Iterator[Any]:
        """The items of the list that begins here."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.value()
            if self.take(",]") == "]":
                return

    def _more(self) -> bool:
        block = self._file.read(BLOCK)
        self._text, self._place = self._text[self._place :] + block, 0
        return bool(block)

    def _broken(self, what: str) -> AnnotationError:
        return AnnotationError(
            f"{self._path}: isn't a file of COCO annotations ({what}); expected a whole JSON record with 'images' and 'annotations'"
        )


def beside(path: Path) -> Path:
    """Where a text is written before it takes the place of `path`."""
    return path.with_name(f"{path.name}.partial")


@contextmanager
def new_text(path: Path) -> Iterator[Callable[[str], object]]:
    """A text file that takes the place of `path` only when the block ends well.

    Yields:
        What writes text.

    Raises:
        UnwritableError: the file system refuses it.
    """
    aside = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        if isinstance(error, RoisegError):
            raise
        raise UnwritableError(
            f"{path}: can't be written ({error.strerror or error}), expected room in a folder of yours; free the disk, or give "
            "another --out"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def write_sections(write: Callable[[str], object], sections: Iterable[Section]) -> None:
    """Write what `read_sections` gave; lists that come as iterators item by item, a line each.

    Args:
        write: takes text.
        sections: name and value; iterators are written as lists.
    """
    begin = "{"
    for name, value in sections:
        write(f"{begin}{json.dumps(name)}: ")
        if isinstance(value, Iterator):
            add = ItemWriter(write)
            for item in value:
                add(item)
            add.end()
        else:
            write(json.dumps(value))
        begin = ",\n"
    write("}\n" if begin != "{" else "{}\n")


class ItemWriter:
    """A JSON list that is written item by item, a line each."""

    def __init__(self, write: Callable[[str], object]) -> None:
        """Begin it.

        Args:
            write: takes text.
        """
        self._write, self._begin = write, "["

    def __call__(self, item: Any) -> None:  # noqa: ANN401 - any JSON
        """Write the next item."""
        self._write(f"{self._begin}\n{json.dumps(item)}")
        self._begin = ","

    def end(self) -> None:
        """No more of them."""
        self._write("[]" if self._begin == "[" else "\n]")
