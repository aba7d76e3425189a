"""Work folders of long stages: where they resume, and how their result becomes an out.

DVC deletes a stage's outs before it runs, and deletes an out whose hashing was interrupted. So a long stage fills
`.work/{stage}-{fingerprint}/`, which DVC doesn't know, and its last act is to hard-link the result into `{out}.tmp` and
rename that. The folder goes once `dvc.lock` shows that DVC has taken the out over.
"""

import configparser
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roiseg.errors import WorkBusyError
from roiseg.files import sha256_json, write_json
from roiseg.params import read_yaml

WORK = Path(".work")
DONE = "done.json"


def work_folder(stage: str, fingerprint: Mapping[str, Any], root: Path = WORK) -> Path:
    """Folder in which `stage` works for just this fingerprint; made if it isn't there.

    Args:
        stage: name of the stage in dvc.yaml, such as `extract@train`.
        fingerprint: all that shapes the result; plain values.
        root: parent of all work folders, on the file system of the outs.
    """
    folder = root / f"{stage.replace('@', '-')}-{sha256_json(dict(fingerprint))[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other processes out of a work folder; the claim ends with the block, or with the process.

    Raises:
        WorkBusyError: another process is at work there, such as the command of a DVC that was killed alone.
    """
    with (folder / "claim").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkBusyError(
                f"{folder}: another process is at work there; wait for it, or end it (`fuser {folder / 'claim'}` tells which)"
            ) from error
        yield


def link_tree(source: Path, out: Path) -> None:
    """Put hard links to all files of `source` at `out`, which appears whole or not at all.

    Where the file system has no hard links, the files are copied.
    """
    aside = out.with_name(f"{out.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, aside, copy_function=link)
    if out.is_dir():
        shutil.rmtree(out)
    aside.replace(out)


def link(source: str, target: str) -> str:
    """Put a hard link to a file at `target`, or a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def mark_done(folder: Path, stage: str, files: Iterable[Path]) -> None:
    """Note that the result has been published, and by which files DVC's record of it will be known.

    Args:
        folder: the work folder.
        stage: name of the stage in dvc.yaml.
        files: deps and outs of the stage, or files inside its outs, spelled as in dvc.yaml; small ones only, for they are hashed
            here. Together they must tell this result from that of any other params.
    """
    sums = {path.as_posix(): hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() for path in files}
    write_json(folder / DONE, {"stage": stage, "files": sums})


def dvc_cache() -> Path:
    """Where DVC keeps its cache, for the project in the current folder."""
    config = configparser.ConfigParser()
    # The later file wins, as for DVC.
    config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    return Path(".dvc", config.get("cache", "dir", fallback="cache"))


def cached(md5: str) -> Path:
    """Where DVC's cache keeps a file by the MD5 that DVC names it by; a folder's (`...dir`) is a JSON list of its files.

    The layout is documented: "Structure of the cache directory" in DVC's user guide.
    """
    return dvc_cache() / "files" / "md5" / md5[:2] / md5[2:]


def clean_finished(lock: Path = Path("dvc.lock"), root: Path = WORK) -> list[Path]:
    """Delete work folders whose result DVC holds.

    A folder is finished when the lock's entry of its stage names the same bytes for all files that `mark_done` noted. What is in
    an out that is a folder stands in a list in DVC's cache; as long as that isn't there, the work folder stays.

    Returns:
        The folders that were deleted.
    """
    if not lock.is_file() or not root.is_dir():
        return []
    stages = read_yaml(lock).get("stages") or {}
    gone = []
    for done in sorted(root.glob(f"*/{DONE}")):
        record = json.loads(done.read_text())
        entry = stages.get(record["stage"])
        if entry is None:
            continue
        known = _known(entry)
        if all(known.get(path) == digest for path, digest in record["files"].items()):
            shutil.rmtree(done.parent)
            gone.append(done.parent)
    return gone


def _known(entry: Mapping[str, Any]) -> dict[str, str]:
    """File -> MD5 of all that an entry of the lock names, and of all files inside its outs."""
    outs = {str(item["path"]): str(item.get("md5")) for item in entry.get("outs", ())}
    known = outs | {str(item["path"]): str(item.get("md5")) for item in entry.get("deps", ())}
    for path, digest in outs.items():
        if digest.endswith(".dir") and cached(digest).is_file():
            known |= {f"{path}/{file['relpath']}": str(file["md5"]) for file in json.loads(cached(digest).read_text())}
    return known
