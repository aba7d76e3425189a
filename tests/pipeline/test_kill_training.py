"""`kill -9` of a training at ten moments: the next run goes on after the last whole epoch, and nothing shows in the end."""

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

from roiseg.train.checkpoint import by_epoch
from roiseg.work import clean_finished

pytestmark = [pytest.mark.pipeline, pytest.mark.thorough]

logger = logging.getLogger(__name__)

HEAD: Final = "models/heads/default"
METRICS: Final = "metrics/train/default"
EPOCHS: Final = 12
TRIES: Final = 8
"""Runs that may miss the moment meant for them, before the test gives up."""

PLAN: Final = [
    Kill(Moment.BEFORE, dvc=True, within=4.0),
    Kill(Moment.PIECES, dvc=False, within=0.3),
    Kill(Moment.WRITING, dvc=False, within=0.001),
    Kill(Moment.PIECES, dvc=True, within=0.3),
    Kill(Moment.WRITING, dvc=False, within=0.001),
    Kill(Moment.PUBLISHED, dvc=False, within=0.1),
    Kill(Moment.PUBLISHED, dvc=True, within=0.1),
    *[Kill(Moment.HASHING, dvc=True, within=0.3)] * 3,
]

FEW: Final = [PLAN[2], PLAN[6]]
"""While a checkpoint is written, and once all is published, DVC with it.

Extraction is killed at every moment, and `test_sudden_ends` ends training anywhere.
"""

PLANS: Final = [
    pytest.param(FEW, id="two"),
    pytest.param(each_once(PLAN), id="each once", marks=pytest.mark.slow),
    pytest.param(PLAN, id="ten", marks=pytest.mark.slow),
]


def checkpoints(root: Path) -> list[Path]:
    """Of all epochs that count as done."""
    return [path for folder in root.glob(".work/train-default-*/checkpoints") for path in by_epoch(folder)]


def writing(root: Path) -> bool:
    """Whether a checkpoint is written aside."""
    return any(root.glob(".work/train-default-*/checkpoints/*.partial"))


TRAIN: Final = Stage("train@default", ("stages.train", "default"), HEAD, (METRICS,), checkpoints, writing)


def held(root: Path) -> dict[str, bytes]:
    """Checkpoint -> bytes."""
    return {path.name: path.read_bytes() for path in checkpoints(root)}


class Log:
    """What the runs have said; a line is written at once."""

    def __init__(self, root: Path) -> None:
        """Begin after what is there."""
        self._path, self._read = root / "logs/train@default.log", 0
        self.trained()

    def trained(self) -> list[int]:
        """Epochs that were trained since one last asked."""
        text = self._path.read_text() if self._path.is_file() else ""
        new, self._read = text[self._read :], len(text)
        return [int(number) for number in re.findall(r"epoch (\d+): [\d.]+ s, [\d.]+ images/s", new)]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project just before its training, all of whose checkpoints are kept."""
    project = make_project(tmp_path_factory.mktemp("kill_training") / "origin")
    project.set_params({"train": {"epochs": EPOCHS, "keep_checkpoints": None}})
    project.dvc("repro", "analyze", "extract")
    return project


def lock_of_another(lock: str) -> str:
    """What dvc.lock would say had the last training been shorter: all else stays as it is."""
    another, count = re.subn(rf"(path: {HEAD}\s+hash: md5\s+md5: )[0-9a-f]{{32}}", rf"\g<1>{'f' * 32}", lock)
    another, metrics = re.subn(rf"(path: {METRICS}/metrics.json\s+hash: md5\s+md5: )[0-9a-f]{{32}}", rf"\g<1>{'f' * 32}", another)
    assert (count, metrics, another.count(f" epochs: {EPOCHS}\n")) == (1, 1, 1)
    return another.replace(f" epochs: {EPOCHS}\n", f" epochs: {EPOCHS - 1}\n")


@pytest.mark.parametrize("plan", PLANS)
def test_kills(origin: Project, monkeypatch: pytest.MonkeyPatch, plan: list[Kill]) -> None:
    """No finished epoch is trained again, and all bytes are in the end those of a run that nobody killed."""
    killed, whole = copy(origin, f"killed{len(plan)}"), copy(origin, f"whole{len(plan)}")
    whole.dvc("repro", "-s", TRAIN.name)
    (killed.root / "dvc.lock").write_text(lock_of_another((whole.root / "dvc.lock").read_text()))
    head, metrics = tree(whole.root / HEAD), tree(whole.root / METRICS)

    rng, landed, log = random.Random(10), Counter[Moment](), Log(killed.root)
    for want in plan:
        within = want.within
        for _ in range(TRIES):
            before = held(killed.root)
            moment = strike(killed, TRAIN, want, within, rng)
            after, trained = held(killed.root), log.trained()
            logger.info("%s, dvc %s: killed %s, epochs %s", want.moment, want.dvc, moment or "never", trained)
            assert before.items() <= after.items()
            assert tree(killed.root / HEAD).items() <= head.items()
            # Each once, from where the last run ended; the one in flight was trained, but isn't there.
            reached = len(before) + len(trained)
            assert trained == list(range(len(before) + 1, reached + 1))
            assert reached in (len(after), len(after) + 1)
            landed.update([moment] if moment else [])
            if moment is want.moment:
                break
            within /= 2
        else:
            pytest.fail(f"{TRIES} runs and none killed {want.moment}; kills so far: {landed}")
    assert landed.total() >= len(plan)
    assert set(landed) >= {want.moment for want in plan}

    assert len(held(killed.root)) == EPOCHS
    killed.dvc("repro", TRAIN.name)
    assert log.trained() == []
    assert tree(killed.root / HEAD) == head
    assert tree(killed.root / METRICS) == metrics
    assert (killed.root / "dvc.lock").read_bytes() == (whole.root / "dvc.lock").read_bytes()
    assert "up to date" in killed.dvc("status", TRAIN.name)

    # The work folder goes when any stage begins.
    monkeypatch.chdir(killed.root)
    assert [path.name.rsplit("-", 1)[0] for path in clean_finished()] == ["train-default"]
    assert not list(Path(".work").iterdir())
    assert leavings(Path()) == []
