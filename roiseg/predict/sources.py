"""What is predicted on: image files, folders, glob patterns and videos, each under a name of its own."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from roiseg.errors import MissingImageError

IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Endings that a folder's images are known by; what is named itself may have any."""

VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
"""Endings of videos; anything else is an image."""


@dataclass(frozen=True)
class Source:
    """One file to read.

    Attributes:
        path: where it is.
        name: its path below the folder that all inputs share, with `/`; no two sources have the same.
        key: what its outputs are called, with `/`: the name without its ending, where no other source is called so too.
    """

    path: Path
    name: str
    key: str

    @property
    def is_video(self) -> bool:
        """Whether the file holds frames; its ending says so."""
        return self.path.suffix.lower() in VIDEOS


def find_sources(inputs: Sequence[str], leave_out: Sequence[Path] = ()) -> list[Source]:
    """All files that are asked for, in the order of the inputs, those of a folder or pattern sorted; each file once.

    Args:
        inputs: files, folders (with all folders below), and patterns such as `shots/**/*.jpg`.
        leave_out: folders whose pictures no folder or pattern around them stands for: those of an earlier run's outputs.

    Raises:
        MissingImageError: a folder or pattern has no image and no video.
    """
    found: dict[str, None] = {}
    bases = []
    for text in inputs:
        base, paths = _expand(text, [os.path.normpath(Path.cwd() / folder) for folder in leave_out])
        if not paths:
            raise MissingImageError(
                f"{text}: no image or video there; expected a file, a pattern, or a folder with {' '.join(sorted(IMAGES | VIDEOS))}"
            )
        bases.append(base)
        found.update(dict.fromkeys(paths))
    shared = os.path.commonpath(bases) if bases else ""
    names = [Path(os.path.relpath(path, shared)).as_posix() for path in found]
    keys = _keys(names)
    return [Source(Path(path), name, key) for path, name, key in zip(found, names, keys, strict=True)]


def _expand(text: str, leave_out: Sequence[str]) -> tuple[str, list[str]]:
    """Folder that names begin at, and absolute paths, of one input."""
    path = Path(os.path.normpath(Path.cwd() / text))
    if path.is_dir():
        return str(path), sorted(str(item) for item in _known(path.rglob("*"), path, leave_out))
    if path.exists() or not glob.has_magic(text):
        return str(path.parent), [str(path)]
    fixed = []
    for part in path.parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    # pathlib's `**` at the end of a pattern leaves files out.
    matched = (Path(item) for item in glob.glob(str(path), recursive=True))  # noqa: PTH207
    return str(Path(*fixed)), sorted(str(item) for item in _known(matched, Path(*fixed), leave_out))


def _known(paths: Iterable[Path], base: Path, leave_out: Sequence[str]) -> Iterable[Path]:
    """Images and videos, but those in a folder that is left out and wasn't itself asked for."""
    outside = [folder for folder in leave_out if not base.is_relative_to(folder)]
    for path in paths:
        if path.suffix.lower() in IMAGES | VIDEOS and path.is_file() and not any(map(path.is_relative_to, outside)):
            yield path


def _keys(names: Sequence[str]) -> list[str]:
    """Names without their endings, where that leaves them apart; `a.jpg` and `a.png` keep theirs."""
    stems = [name[: -len(Path(name).suffix)] if Path(name).suffix else name for name in names]
    counts = Counter(stems)
    used: set[str] = {stem for stem, count in counts.items() if count == 1}
    keys = []
    for name, stem in zip(names, stems, strict=True):
        key = stem if counts[stem] == 1 else name
        while counts[stem] > 1 and key in used:
            key += "+"
        used.add(key)
        keys.append(key)
    return keys
