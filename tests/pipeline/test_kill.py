"""`kill -9` of an extraction at twenty moments: the next run goes on after what was whole, and nothing shows in the end."""

import logging
import random
import re
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from dvc_project import Project, make_project
from extraction_place import tree
from stage_kill import Kill, Moment, Stage, copy, each_once, leavings, strike

from roiseg.cache.reader import FeatureStore
from roiseg.work import clean_finished

pytestmark = [pytest.mark.pipeline, pytest.mark.thorough]

logger = logging.getLogger(__name__)

STORE: Final = "data/features/train.zarr"
SMALL_FILES: Final = ("data/detections/train.parquet", "metrics/extract_train.json")
SHARDS_LEAST: Final = 12
TRIES: Final = 8
"""Runs that may miss the moment meant for them, before the test gives up."""

PLAN: Final = [
    *[Kill(Moment.BEFORE, dvc=False, within=2.5)] * 3,
    *[Kill(Moment.BEFORE, dvc=True, within=4.0)] * 2,
    *[Kill(Moment.PIECES, dvc=False, within=0.15)] * 5,
    Kill(Moment.PIECES, dvc=True, within=0.15),
    *[Kill(Moment.LINKING, dvc=False, within=0.004)] * 2,
    *[Kill(Moment.PUBLISHED, dvc=False, within=0.4)] * 2,
    Kill(Moment.PUBLISHED, dvc=True, within=0.4),
    *[Kill(Moment.HASHING, dvc=True, within=0.3)] * 4,
]

PLANS: Final = [pytest.param(each_once(PLAN), id="each once"), pytest.param(PLAN, id="twenty", marks=pytest.mark.slow)]

Shards = dict[str, tuple[int, int]]


def shard_files(store: Path) -> Shards:
    """Inode and time of every shard of a store."""
    files = store.rglob("c.*.0.0.0")
    return {item.relative_to(store).as_posix(): (item.stat().st_ino, item.stat().st_mtime_ns) for item in files}


def records(root: Path) -> list[Path]:
    """Of all shards that count as written."""
    return list(root.glob(".work/extract-train-*/shards/*.json"))


def written(root: Path) -> tuple[dict[str, bytes], Shards]:
    """All records by number, and the files that they stand for."""
    found = {path.stem: path.read_bytes() for path in records(root)}
    files = {name: value for store in root.glob(".work/extract-train-*/store.zarr") for name, value in shard_files(store).items()}
    return found, {name: value for name, value in files.items() if Path(name).name.split(".")[1] in found}


EXTRACT: Final = Stage("extract@train", ("stages.extract", "train"), STORE, SMALL_FILES, records)


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


@pytest.mark.parametrize("plan", PLANS)
def test_kills(origin: Project, monkeypatch: pytest.MonkeyPatch, plan: list[Kill]) -> None:
    """No shard is made twice, nothing torn is published, and all bytes are in the end those of a run that nobody killed."""
    killed, whole = copy(origin, f"killed{len(plan)}"), copy(origin, f"whole{len(plan)}")
    whole.dvc("repro", "extract")
    (killed.root / "dvc.lock").write_text(lock_of_another((whole.root / "dvc.lock").read_text()))
    store, small = tree(whole.root / STORE), {name: (whole.root / name).read_bytes() for name in SMALL_FILES}
    assert len(list((whole.root / STORE / "layer_34").glob("c.*"))) >= SHARDS_LEAST

    rng, landed = random.Random(20), Counter[Moment]()
    for want in plan:
        within = want.within
        for _ in range(TRIES):
            before = written(killed.root)
            moment = strike(killed, EXTRACT, want, within, rng)
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
    assert landed.total() >= len(plan)
    assert set(landed) >= {want.moment for want in PLAN}

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
    assert leavings(Path()) == []
