"""Tests of roiseg.distill.distill: a killed run is the unbroken one whatever its plan, and what can't be begun is said."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from net_factory import (
    NETWORK_HW,
    TRAIN,
    digests,
    distill_section,
    link_project,
    narrow_encoders,
    run_until_done,
    shared_teacher,
    stored_sections,
)
from store_factory import Project
from sudden_end import Fate, Place
from trainer_factory import rows_of

from roiseg.distill.distill import LIVE, MODELS, distill, load_student
from roiseg.distill.student import Student
from roiseg.distill.task import DistillTask
from roiseg.errors import CheckpointError, ParamsError, StoreError, StoreMismatchError, TrainingError
from roiseg.params import PARAMS_FILE, overlay, read_yaml
from roiseg.schema import check_params
from roiseg.train.checkpoint import BEST, load_checkpoint
from roiseg.unet.person_unet import PersonUnet

FROZEN = {"freeze_encoder": True}
UNFREEZE = {"model": FROZEN, "unfreeze": {"start": 1, "every": 1, "lr_scale": 0.5}}
AT_ONCE = {"model": FROZEN, "unfreeze": {"start": 0, "every": 1, "lr_scale": 0.5}}
STAGED = {"staged": {"encoder_only_epochs": 1, "encoder_lr_scale": 1.0, "full_lr_scale": 0.5}}
ELIMINATE = {"eliminate": {"threshold": 1000.0, "amplification": 0.5, "min_alpha": 0.0}}

ONE = {**TRAIN, "epochs": 1}

STEPS = 3
"""Of an epoch: five images, two in a step."""

ENDS: tuple[Place, ...] = (
    ("after a step", 2),
    ("before fsync", 2),
    ("before a step", STEPS + 2),
    ("forward of the average", 4),
    ("after replace best_model.pth", 1),
    ("after a step", 3 * STEPS),
)
"""In each epoch, in the middle of a file, in validation, and between the files of an epoch."""


@pytest.fixture(autouse=True, scope="module")
def narrow() -> Iterator[None]:
    with narrow_encoders():
        yield


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Path]:
    return shared_teacher(tmp_path_factory, real=False)


@pytest.fixture
def place(taught: tuple[Project, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what `distill` reads."""
    link_project(tmp_path, *taught)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_in(folder: Path, taught: tuple[Project, Path], changes: Mapping[str, Any], ends: tuple[Place, ...]) -> Fate:
    """A whole run in a folder of its own."""
    folder.mkdir()
    link_project(folder, *taught)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run_until_done(lambda: distill(distill_section(**changes), stored_sections()), Student, ends)


def rows_in(folder: Path) -> list[dict[str, float]]:
    (work,) = (folder / ".work").iterdir()
    return rows_of(work)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(UNFREEZE | ELIMINATE, id="unfreeze and eliminate"),
        pytest.param(STAGED, id="staged"),
        pytest.param(ELIMINATE, id="eliminate", marks=pytest.mark.slow),
        pytest.param(AT_ONCE, id="at once", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_is_the_unbroken_one(tmp_path: Path, taught: tuple[Project, Path], changes: Mapping[str, Any]) -> None:
    whole = run_in(tmp_path / "whole", taught, changes, ())
    assert whole.counts["after a step"] == 3 * STEPS
    split = run_in(tmp_path / "split", taught, changes, ENDS)
    assert sorted(split.met) == sorted(ENDS)
    assert digests(tmp_path / "split") == digests(tmp_path / "whole")
    check_rows(distill_section(**changes), rows_in(tmp_path / "whole"))


def check_rows(params: Any, rows: list[dict[str, float]]) -> None:  # noqa: ANN401 - a section
    """What is in force in each epoch, told independently: temperature, and the share that the epoch before left."""
    assert [row["weight_temperature"] for row in rows] == pytest.approx([3.0, 2.0, 1.0])
    share = 1.0
    for row in rows:
        assert row["weight_kl"] == pytest.approx(params.loss.kl * share, rel=1e-6)
        assert row["weight_mse"] == pytest.approx(params.loss.mse * share, rel=1e-6)
        assert row["weight_bce"] == pytest.approx(params.loss.bce, rel=1e-6)
        if params.eliminate is not None:
            gap = row["miou_2class"] / row["teacher_miou_2class"] - 1
            share = 1.0 if gap <= 0 else math.exp(-params.eliminate.amplification * gap)
    if params.eliminate is not None:
        assert min(row["weight_kl"] for row in rows) < 1.0, "or it would say little"


def learnt(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    """Parts of the net whose weights changed: `decoder`, `segmentation_head`, `stem`, `blocks.0` and so on."""
    changed = [name.split(".")[2:] for name in after if name.startswith("net.net.") and not after[name].equal(before[name])]
    found = set()
    for part, *rest in changed:
        block = f"blocks.{rest[1]}" if rest[0] == "blocks" else "stem"
        found.add(block if part == "encoder" else part)
    return found


def test_a_block_that_joins_at_once_learns_at_its_own_rate(place: Path) -> None:
    """Its group has the factor from the first epoch on; blocks before it stand still to the last bit, norms too."""
    one = {**AT_ONCE, "train": {**ONE, "warmup_epochs": 0.0}}
    distill(distill_section(**one), stored_sections())
    checkpoint, fresh = load_checkpoint(MODELS / BEST), load_checkpoint(MODELS / "untrained_model.pth")
    factors = [group["factor"] for group in checkpoint.optimizer["param_groups"]]
    assert factors == [1.0, 1.0, 0.5, 0.5]
    rates = {group["factor"]: group["lr"] for group in checkpoint.optimizer["param_groups"]}
    assert rates[0.5] == rates[1.0] / 2
    assert learnt(fresh.live, checkpoint.live) == {"decoder", "segmentation_head", "blocks.6"}


def test_two_runs_give_the_same_bytes(place: Path, tmp_path: Path, taught: tuple[Project, Path]) -> None:
    """With all options of the alignment, of which the first run of this process was none."""
    features = {"choose": True, "attention": True, "adapt": True, "layers": {"layer_34": 3, "layer_3": 2}}
    changes = {"features": features, "train": ONE}
    for name in ("one", "two"):
        run_in(tmp_path / name, taught, changes, ())
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    (*_, row) = rows_in(tmp_path / "one")
    assert row["weight_feature_layer_34"] + row["weight_feature_layer_3"] == pytest.approx(1.0, abs=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, taught: tuple[Project, Path]) -> tuple[Path, PersonUnet]:
    """A folder in which a run is done, and the student that came out."""
    folder = tmp_path_factory.mktemp("trained")
    link_project(folder, *taught)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, distill(distill_section(train=ONE), stored_sections())


def test_the_student_is_published_without_what_only_learns_along(trained: tuple[Path, PersonUnet]) -> None:
    folder, net = trained
    weights = load_checkpoint(folder / MODELS / BEST).model
    assert any(name.startswith("alignment.") for name in weights)
    assert not any("alignment" in name for name in net.state_dict())
    assert not net.training
    again = load_student(folder / MODELS / BEST, distill_section(), NETWORK_HW)
    image = torch.rand(1, 3, *NETWORK_HW, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert again(image).equal(net(image))
    assert {"metrics.json", "pictures"} < {path.name for path in (folder / LIVE).iterdir()}
    assert len(list((folder / LIVE / "pictures").glob("validation_all_images_epoch_*.png"))) == 1


def test_only_a_student_can_be_loaded(trained: tuple[Path, PersonUnet], tmp_path: Path) -> None:
    best, other = trained[0] / MODELS / BEST, distill_section(model={"decoder_channels": [24, 8, 8, 4, 4]})
    with pytest.raises(
        CheckpointError, match=r"best_model\.pth: its weights don't fit the model(.|\n)*the section `model` of the net"
    ):
        load_student(best, other, NETWORK_HW)
    kept = torch.load(best, weights_only=True)
    torch.save(kept | {"model": {"a.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: holds no student; name a file of models/distill, or run `dvc repro"):
        load_student(tmp_path / "other.pth", other, NETWORK_HW)


def told(match: str, kind: type[Exception], **changes: Any) -> None:  # noqa: ANN401 - values of a section
    """The run isn't begun, and what was published before stays."""
    MODELS.mkdir(parents=True, exist_ok=True)
    (MODELS / BEST).write_bytes(b"of an earlier run")
    before = digests(Path())
    with pytest.raises(kind, match=match):
        distill(distill_section(**changes), stored_sections())
    assert digests(Path()) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unfreeze": UNFREEZE["unfreeze"]}, r"distill\.unfreeze is set and distill\.model\.freeze_encoder is false"),
        (STAGED | {"model": FROZEN}, r"distill\.staged is set and distill\.model\.freeze_encoder is true"),
        ({"model": FROZEN}, r"distill\.model\.freeze_encoder is true, but the encoder starts from nothing"),
        ({"features": None}, r"distill\.loss\.feature is 0\.5 and distill\.features is null"),
        (ELIMINATE | {"loss": {"kl": 0.0, "mse": 0.0}}, r"distill\.eliminate is set, but distill\.loss\.kl and mse are 0"),
        ({"features": {"layers": {"_replace": True, "layer_43": 3}}}, r"no layer 'layer_43'.*did you mean .*'layer_34'"),
        ({"train": {"phases": []}}, r"distill\.train\.phases: has no effect where a net is trained; take it out"),
        ({"train": {"epoch": 3}}, r"distill\.train\.epoch: unknown key; did you mean 'epochs'"),
        (
            UNFREEZE | {"train": {"devices": 2}},
            r"distill\.train\.devices is 2 and distill\.unfreeze is set: weights that join later would learn in each process on i"
            r"ts own; set distill\.train\.devices to 1, or distill\.unfreeze to null",
        ),
        (
            STAGED | {"train": {"devices": 2}},
            r"distill\.train\.devices is 2 and distill\.staged is set.*or distill\.staged to null",
        ),
    ],
)
def test_what_can_t_be_begun(place: Path, changes: Mapping[str, Any], message: str) -> None:
    told(message, (ParamsError, StoreMismatchError), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("plan", [UNFREEZE, STAGED])
def test_devices_are_checked_with_the_params(plan: Mapping[str, Any]) -> None:
    shipped = read_yaml(Path(__file__).parents[3] / PARAMS_FILE)
    check_params(overlay(shipped, {"distill": plan}))
    check_params(overlay(shipped, {"distill": {"train": {"devices": 2}}}))
    with pytest.raises(ParamsError, match=r"^1 fault in the params:\n  distill\.train\.devices is 2 and distill\."):
        check_params(overlay(shipped, {"distill": {**plan, "train": {"devices": 2}}}))


def test_wrong_encoders(trained: tuple[Path, PersonUnet], place: Path) -> None:
    with pytest.raises(ParamsError, match=r"distill\.model\.encoder: value is 'timm-efficientnet-b9'; .*'timm-efficientnet-b0'"):
        distill_section(model={"encoder": "timm-efficientnet-b9"})
    torch.save(trained[1].state_dict(), "b0.pth")
    told(
        r"b0\.pth \(distill\.model\.checkpoint\): isn't of this net, whose encoder is timm-efficientnet-b1: .* set "
        r"distill\.model\.encoder to it",
        CheckpointError,
        model={"encoder": "timm-efficientnet-b1", "checkpoint": "b0.pth"},
    )
    told(
        r"gone\.pth \(distill\.model\.encoder_weights\): no such file; fetch it",
        CheckpointError,
        model={"encoder_weights": "gone.pth"},
    )


def test_weights_that_a_run_starts_from_make_it_another_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a run that goes on would mix them: their bytes are in what a work folder is known by."""
    fingerprints: list[object] = []

    def noted(stage: str, run: object, fingerprint: object, *_: object) -> None:
        fingerprints.append(fingerprint)
        raise KeyboardInterrupt

    monkeypatch.setattr("roiseg.unet.train.train_run", noted)
    start = distill_section(model={"checkpoint": "start.pth"})
    for text in ("one", "other", "one"):
        Path("start.pth").write_text(text)
        with pytest.raises(KeyboardInterrupt):
            distill(start, stored_sections())
    one, other, again = fingerprints
    assert one == again != other


def test_without_a_teacher_s_store(place: Path) -> None:
    (place / "data" / "teacher").unlink()
    told(r"data/teacher/train\.zarr: there is no store of the U-net's map; run `dvc repro teacher`, or `dvc pull`", StoreError)


def test_a_teacher_that_finds_nobody_ends_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that finds nobody has no figure that a ratio can be taken to; nothing is published then."""
    figures = DistillTask.figures
    monkeypatch.setattr(DistillTask, "figures", lambda *args: figures(*args) | {"teacher_miou_2class": 0.0})
    with pytest.raises(
        TrainingError, match=r"distill\.eliminate: the teacher's validation figure is 0\.0, expected a number above 0"
    ):
        distill(distill_section(**ELIMINATE), stored_sections())
    assert not MODELS.exists()
