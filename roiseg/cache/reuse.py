"""Taking over what is unchanged from the store before, so that a new layer costs its own computation and no more.

DVC deletes a stage's outs before it runs the stage, but its cache still holds what `dvc.lock` names.
"""

import json
import logging
import os
import shutil
from pathlib import Path

from roiseg.cache.layout import shard_key
from roiseg.cache.reader import FeatureStore
from roiseg.cache.writer import StoreWriter
from roiseg.errors import StoreDamagedError, StoreError
from roiseg.files import sha256_file
from roiseg.params import read_yaml
from roiseg.progress import progress
from roiseg.types import StoredArray
from roiseg.work import cached

logger = logging.getLogger(__name__)


def previous_store(stage: str, out: Path, folder: Path, lock: Path = Path("dvc.lock")) -> FeatureStore | None:
    """The store that DVC recorded for a stage, if its cache still has all of it.

    Args:
        stage: name of the stage in dvc.yaml.
        out: path of the store.
        folder: where links to the cached files are put.
        lock: DVC's record.
    """
    entry = ((read_yaml(lock).get("stages") or {}).get(stage) if lock.is_file() else None) or {}
    sums = [str(item.get("md5")) for item in entry.get("outs", ()) if item["path"] == out.as_posix()]
    listing = cached(sums[0]) if sums else None
    if listing is None or not listing.is_file():
        return None
    shutil.rmtree(folder, ignore_errors=True)
    for item in json.loads(listing.read_text()):
        source, target = cached(item["md5"]).resolve(), folder / item["relpath"]
        if not source.is_file():
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    try:
        return FeatureStore(folder)
    except StoreError as error:
        logger.info("nothing is taken over from the store before: %s", error)
        return None


def take_over(previous: FeatureStore, writer: StoreWriter) -> list[str]:
    """Put unchanged arrays of a store into one that is being written.

    Does nothing where all of them are unchanged: somebody wants the store made anew then (`dvc repro --force`).

    Args:
        previous: the store before.
        writer: of the new one, before its first shard.

    Returns:
        Names of the arrays.

    Raises:
        StoreDamagedError: the store before isn't what was written.
    """
    same = [array for array in writer.computed if array.origin and previous.origins.get(array.name) == array.origin]
    if not same or len(same) == len(writer.arrays):
        return []
    for array in same:
        shards = _link(previous, writer, array) if previous.per_shard == writer.per_shard else _pack(previous, writer, array)
        writer.adopt(array.name, shards, previous.saturated[array.name])
        logger.info("%s: taken over from the store before", array.name)
    return [array.name for array in same]


def _link(previous: FeatureStore, writer: StoreWriter, array: StoredArray) -> list[tuple[int, str]]:
    """Hard links to the same shards, once their bytes have been compared with their sums."""
    shards = previous.shards[array.name]
    with progress(f"take over {array.name}", len(shards)) as tick:
        for number, (_, digest) in enumerate(shards):
            source, target = (path / array.name / shard_key(number) for path in (previous.path, writer.path))
            if sha256_file(source) != digest:
                raise StoreDamagedError(
                    f"{source.resolve()}: was changed; restore DVC's cache with `dvc fetch`, or delete the file"
                )
            target.unlink(missing_ok=True)
            try:
                os.link(source.resolve(), target)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(source, target)
            tick()
    return shards


def _pack(previous: FeatureStore, writer: StoreWriter, array: StoredArray) -> list[tuple[int, str]]:
    """The same encoded images in shards of another size."""
    shards = []
    with progress(f"take over {array.name}", writer.count) as tick:
        for number in range(writer.count):
            file = writer.open_file(array.name, number)
            try:
                for row in writer.rows(number):
                    for chunk in previous.encoded(row, array.name):
                        file.append(chunk)
                shards.append(file.close())
            finally:
                file.abandon()
            tick()
    return shards
