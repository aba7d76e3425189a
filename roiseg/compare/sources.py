"""Where the files of a run come from: the workspace, a commit, or metrics files that somebody kept.

Paths are those of the project, relative to its root, whatever the source.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from roiseg.compare.revisions import commit_of, git, unknown
from roiseg.errors import RunError

WORKSPACE = "workspace"
METRICS, COSTS = "metrics/evaluate", "metrics/export"


class Source(Protocol):
    """A state of the project.

    Attributes:
        name: as it was typed.
    """

    @property
    def name(self) -> str:
        """See the class."""

    def listed(self) -> list[str]:
        """Heads whose metrics are there, sorted."""

    def text(self, path: str) -> str | None:
        """A file that git tracks; None: it isn't there."""

    def fetch(self, path: str, target: Path, *, pull: bool) -> str | None:
        """Put a file that DVC tracks at `target`.

        Args:
            path: of the file.
            target: where to put it.
            pull: whether DVC's remote is asked too.

        Returns:
            None: done; otherwise why it can't be had.
        """


@dataclass(frozen=True)
class Workspace:
    """The files as they lie here."""

    name: str = WORKSPACE

    def listed(self) -> list[str]:
        """See `Source`."""
        return sorted(path.stem for path in Path(METRICS).glob("*.json"))

    def text(self, path: str) -> str | None:
        """See `Source`."""
        return _text(Path(path))

    def fetch(self, path: str, target: Path, *, pull: bool) -> str | None:
        """See `Source`."""
        if not Path(path).is_file():
            return f"{path} isn't there; `dvc checkout {path}` or `dvc pull {path}` puts it there"
        shutil.copyfile(path, target)
        return None


@dataclass(frozen=True)
class Commit:
    """A commit of this repository.

    Attributes:
        name: as it was typed.
        sha: of the commit.
    """

    name: str
    sha: str

    def listed(self) -> list[str]:
        """See `Source`."""
        names = git("ls-tree", "--name-only", self.sha, f"{METRICS}/") or ""
        return sorted(Path(name).stem for name in names.splitlines() if name.endswith(".json"))

    def text(self, path: str) -> str | None:
        """See `Source`."""
        return git("show", f"{self.sha}:./{path}")

    def fetch(self, path: str, target: Path, *, pull: bool) -> str | None:
        """See `Source`."""
        # Imported here: it takes as long as all the rest, and metrics files don't need it.
        from dvc.api import DVCFileSystem
        from dvc.config import Config
        from dvc.exceptions import DvcException

        try:
            # Today's remote, for the commit may know none; without any DVC looks into its cache alone.
            config = {"core": {"remote": Config.from_cwd()["core"].get("remote", "") if pull else ""}}
            with DVCFileSystem(rev=self.sha, config=config).open(path, "rb", cache=pull) as file, target.open("wb") as out:
                shutil.copyfileobj(file, out)
        except (DvcException, OSError) as error:
            if not pull:
                return f"{path} isn't in DVC's cache; --pull asks the remote"
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            return f"{path} is neither in DVC's cache nor to be had from its remote ({said}); `dvc push` it where the run was made"
        return None


@dataclass(frozen=True)
class Files:
    """Metrics files, each named after its head; what else belongs to their runs isn't known.

    Attributes:
        name: as it was typed.
        folder: where they are. Beside a folder `evaluate`, counted costs are looked for in `export`.
        only: the one head that was asked for, or None: all.
    """

    name: str
    folder: Path
    only: str | None

    def listed(self) -> list[str]:
        """See `Source`."""
        return [self.only] if self.only is not None else sorted(path.stem for path in self.folder.glob("*.json"))

    def text(self, path: str) -> str | None:
        """See `Source`."""
        parent, _, name = path.rpartition("/")
        folders = {METRICS: self.folder}
        if self.folder.name == Path(METRICS).name:
            folders[COSTS] = self.folder.parent / Path(COSTS).name
        return _text(folders[parent] / name) if parent in folders else None

    def fetch(self, path: str, target: Path, *, pull: bool) -> str | None:
        """See `Source`."""
        return f"metrics files come without {path}"


def _text(path: Path) -> str | None:
    # What isn't UTF-8 isn't JSON or YAML either, which is told where it is parsed.
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def find_source(name: str) -> Source:
    """What a name on the command line stands for.

    Args:
        name: `workspace`, a revision, an experiment, a metrics file, or a folder of such.

    Raises:
        RunError: nothing, or two things.
    """
    if name == WORKSPACE:
        return Workspace()
    path = Path(name)
    file, folder = path.is_file(), path.is_dir() and any(path.glob("*.json"))
    sha = commit_of(name)
    if sha is not None and (file or folder):
        kind = "file" if file else "folder"
        raise RunError(f"run {name!r}: is a {kind} and a revision; write ./{name} for the {kind}, or another name of the revision")
    if sha is not None:
        return Commit(name, sha)
    if file and path.suffix != ".json":
        raise RunError(f"run {name!r}: a file of type {path.suffix or 'none'}, expected .json, metrics as evaluation writes them")
    if file:
        return Files(name, path.parent, path.stem)
    if folder:
        return Files(name, path, None)
    if path.is_dir():
        raise RunError(f"run {name!r}: a folder without *.json, expected metrics files as evaluation writes them")
    raise unknown(name, [WORKSPACE])
