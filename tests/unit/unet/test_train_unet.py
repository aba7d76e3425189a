"""Tests of roiseg.unet.train: a killed run is the unbroken one, nets that are taken as they are, and what can't be begun."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from net_factory import (
    NETWORK_HW,
    TRAIN,
    digests,
    link_project,
    narrow_encoders,
    run_until_done,
    stored_sections,
    unet_section,
)
from store_factory import Project, make_project, shared_views
from sudden_end import Fate, Place
from trainer_factory import rows_of

from roiseg.batches import Loading
from roiseg.errors import CheckpointError, ParamsError, StoreMismatchError, TrainingError
from roiseg.own_training import OF_HEADS
from roiseg.params import NOTHING_KEPT, PARAMS_FILE, overlay, read_yaml
from roiseg.schema import check_params
from roiseg.train.checkpoint import BEST, load_checkpoint
from roiseg.types import IMAGE
from roiseg.unet.data import whole_batches
from roiseg.unet.metrics import PersonMetrics
from roiseg.unet.params import net_training
from roiseg.unet.person_unet import PersonUnet
from roiseg.unet.train import LIVE, MODELS, load_unet, open_people, train_unet

SHORT = {**TRAIN, "epochs": 2}
STEPS = 3
"""Of an epoch: five images, two in a step."""

ENDS: tuple[Place, ...] = (
    ("before a step", 1),
    ("after a step", STEPS + 1),
    ("before replace best_model.pth", 1),
    ("forward of the average", 3),
    ("after replace checkpoint_epoch_N_NxN_N.pth", 1),
    ("before replace metrics.json", 1),
)


@pytest.fixture(autouse=True, scope="module")
def narrow() -> Iterator[None]:
    with narrow_encoders():
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_views(tmp_path_factory)


@pytest.fixture
def place(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what `unet` reads."""
    link_project(tmp_path, project)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_in(folder: Path, project: Project, changes: Mapping[str, Any], ends: tuple[Place, ...] = ()) -> Fate:
    """A whole run in a folder of its own."""
    folder.mkdir()
    link_project(folder, project)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run_until_done(lambda: train_unet(unet_section(**changes), stored_sections()), PersonUnet, ends)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"augment": "heavy", "train": {**TRAIN, "epochs": 2}}, id="plain"),
        pytest.param(
            {"train": {**TRAIN, "accumulate": 2, "scheduler": "plateau", "keep_checkpoints": 0}},
            id="accumulated",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_killed_run_is_the_unbroken_one(tmp_path: Path, project: Project, changes: Mapping[str, Any]) -> None:
    whole = run_in(tmp_path / "whole", project, changes)
    ends = tuple((what, time) for what, time in ENDS if whole.counts[what] >= time)
    assert len(ends) >= 5
    split = run_in(tmp_path / "split", project, changes, ends)
    assert sorted(split.met) == sorted(ends)
    assert digests(tmp_path / "split") == digests(tmp_path / "whole")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, project: Project) -> tuple[Path, PersonUnet]:
    """A folder in which a run is done, and the net that came out."""
    folder = tmp_path_factory.mktemp("trained")
    link_project(folder, project)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, train_unet(unet_section(train=SHORT), stored_sections())


def test_two_runs_give_the_same_bytes(tmp_path: Path, project: Project, trained: tuple[Path, PersonUnet]) -> None:
    run_in(tmp_path / "other", project, {"train": SHORT})
    assert digests(tmp_path / "other") == digests(trained[0])


def test_what_is_published(trained: tuple[Path, PersonUnet]) -> None:
    folder, net = trained
    assert not net.training
    assert isinstance(net, PersonUnet)
    assert {BEST, "untrained_model.pth"} < {item.name for item in (folder / MODELS).iterdir()}
    (work,) = (folder / ".work").iterdir()
    rows = rows_of(work)
    assert [row["epoch"] for row in rows] == [1, 2]
    best = max(rows, key=lambda row: row["miou_2class"])
    checkpoint = load_checkpoint(folder / MODELS / BEST)
    assert checkpoint.epoch == best["epoch"]
    assert checkpoint.params["image_hw"] == list(NETWORK_HW)
    assert checkpoint.layers == {IMAGE: [3, 1.0, 1.0]}
    assert live_figures(folder)["miou_2class"] == rows[-1]["miou_2class"]
    assert not any("roi" in name for name in rows[-1]), "two-class figures have names of their own"
    again = load_unet(folder / MODELS / BEST, unet_section().model, NETWORK_HW).state_dict()
    assert all(value.equal(again[name]) for name, value in net.state_dict().items())


def live_figures(folder: Path) -> dict[str, float]:
    """Validation figures as DVCLive has them."""
    found: dict[str, float] = json.loads((folder / LIVE / "metrics.json").read_text())["val"]
    return found


def test_a_frozen_encoder_stands_still(place: Path, trained: tuple[Path, PersonUnet]) -> None:
    before = trained[1].state_dict()
    torch.save(before, "start.pth")
    frozen = {"freeze_encoder": True, "checkpoint": "start.pth"}
    after = train_unet(unet_section(model=frozen, train={**TRAIN, "epochs": 1}), stored_sections()).state_dict()
    changed = {name for name, value in after.items() if not value.equal(before[name])}
    assert changed
    assert [name for name in changed if name.startswith("net.encoder.")] == []


# --- a net that is taken as it is ---


def test_a_given_net_is_taken_as_it_is(place: Path, trained: tuple[Path, PersonUnet]) -> None:
    net = trained[1]
    torch.save({"state_dict": {f"module.{name}": value for name, value in net.net.state_dict().items()}}, "given.pth")
    given = unet_section(model={"checkpoint": "given.pth"}, train=None, loss={"pos_weight": "measured"})
    found = train_unet(given, stored_sections())
    weights = found.state_dict()
    assert all(value.equal(weights[name]) for name, value in net.state_dict().items())
    assert not found.training
    checkpoint = load_checkpoint(MODELS / BEST)
    metrics, val = PersonMetrics(), open_people(stored_sections(), "val", [IMAGE], given.model)
    with torch.no_grad():
        for batch in whole_batches(val, Loading(1, 1, 1)):
            metrics.add(net(batch.features[IMAGE].float() / 255), batch.masks)
    assert checkpoint.epoch == 0
    assert checkpoint.metrics == pytest.approx(metrics.figures())
    assert live_figures(place)["miou_2class"] == checkpoint.metrics["miou_2class"]
    before = digests(place)
    train_unet(given, stored_sections())
    assert digests(place) == before


def test_nothing_to_train_and_no_net(place: Path) -> None:
    message = (
        rf"unet\.train is null, so that the net is taken as it is, but unet\.model\.checkpoint is '{NOTHING_KEPT}'; name the file "
        r"of a trained net there, or give unet\.train its keys \(\{\} for the published ones\)"
    )
    told(message, ParamsError, train=None)


# --- what can't be begun ---


def told(match: str, kind: type[Exception], **changes: Any) -> None:  # noqa: ANN401 - values of a section
    """The run isn't begun, and what was published before stays."""
    MODELS.mkdir(parents=True, exist_ok=True)
    (MODELS / BEST).write_bytes(b"of an earlier run")
    with pytest.raises(kind, match=match):
        train_unet(unet_section(**changes), stored_sections())
    assert (MODELS / BEST).read_bytes() == b"of an earlier run"
    assert not LIVE.exists()


@pytest.mark.parametrize("key", sorted(OF_HEADS))
def test_keys_without_effect_are_refused(place: Path, key: str) -> None:
    told(rf"^unet\.train\.{key}: has no effect where a net is trained; take it out$", ParamsError, train={**TRAIN, key: None})
    shipped = read_yaml(Path(__file__).parents[3] / PARAMS_FILE)
    for section in ("unet", "distill"):
        with pytest.raises(ParamsError, match=rf"^1 fault in the params:\n  {section}\.train\.{key}: has no effect"):
            check_params(overlay(shipped, {section: {"train": {key: 3}}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"lr": -1.0}}, r"unet\.train\.lr: value is -1\.0"),
        ({"train": {"epoch": 1}}, r"unet\.train\.epoch: unknown key; did you mean 'epochs'"),
        ({"model": {"freeze_encoder": True}}, r"unet\.model\.freeze_encoder is true, but the encoder starts from nothing"),
    ],
)
def test_faults_of_the_section(place: Path, changes: Mapping[str, Any], message: str) -> None:
    told(message, ParamsError, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "timm-efficientnet-b8"}, r"unet\.model\.encoder: value is 'timm-efficientnet-b8'; .*'timm-efficientnet-b0'"),
        ({"encoder": "efficientnet-b0"}, r"unet\.model\.encoder: value is 'efficientnet-b0'"),
        ({"input_hw": [40, 64]}, r"unet\.model\.input_hw\.0: value is 40; .*multiple of 32"),
        ({"std": [0.2, 0.0, 0.2]}, r"unet\.model\.std\.1: value is 0\.0"),
    ],
)
def test_a_model_that_can_t_be(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        unet_section(model=changes)


def test_weights_of_another_encoder(place: Path, trained: tuple[Path, PersonUnet]) -> None:
    folder, net = trained
    torch.save(net.state_dict(), "b0.pth")
    torch.save(net.net.encoder.state_dict(), "encoder_b0.pth")
    other = {"encoder": "timm-efficientnet-b1"}
    for key, file in (("checkpoint", "b0.pth"), ("encoder_weights", "encoder_b0.pth")):
        message = (
            rf"{file} \(unet\.model\.{key}\): isn't of this net, whose encoder is timm-efficientnet-b1: .*seems to be of "
            r"timm-efficientnet-b0: set unet\.model\.encoder to it"
        )
        told(message, CheckpointError, model={**other, key: file})
    told(
        r"b0\.pth \(unet\.model\.checkpoint\): isn't of this net",
        CheckpointError,
        model={**other, "checkpoint": "b0.pth"},
        train=None,
    )
    told(
        r"encoder_b0\.pth \(unet\.model\.checkpoint\).*an encoder alone: name it",
        CheckpointError,
        model={"checkpoint": "encoder_b0.pth"},
    )
    for train in (TRAIN, None):
        told(
            r"gone\.pth \(unet\.model\.checkpoint\): no such file; fetch it",
            CheckpointError,
            model={"checkpoint": "gone.pth"},
            train=train,
        )
    with pytest.raises(CheckpointError, match=r"best_model\.pth: its weights don't fit the model"):
        load_unet(folder / MODELS / BEST, unet_section(model={"decoder_channels": [24, 8, 8, 4, 4]}).model, NETWORK_HW)


def test_without_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(tmp_path / "data", images=(2, 2))
    monkeypatch.chdir(tmp_path)
    sections = stored_sections("float16", image=False, views=["plain"])
    with pytest.raises(
        StoreMismatchError, match=r"data/features/train\.zarr: no layer 'image' .*set cache\.image to true, and `dvc repro extract`"
    ):
        train_unet(unet_section(), sections)
    assert not Path(".work").exists()
    assert not MODELS.exists()


# --- keys of training ---


def test_the_loop_names_the_keys_of_the_section(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"^unet\.train\.devices is 9, .* lower it or raise unet\.train\.images_per_batch$"):
        train_unet(unet_section(train={**SHORT, "devices": 9, "device": "cpu"}), stored_sections())
    with pytest.raises(TrainingError, match=r"^unet\.train\.lr_factors: no weight of the model is called 'stem'\.\.\.; "):
        train_unet(unet_section(train={**SHORT, "lr_factors": {"stem": 0.5}}), stored_sections())

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("roiseg.train.learner.Learner.losses", full)
    with pytest.raises(
        TrainingError, match=r"lower unet\.train\.images_per_batch \(and raise unet\.train\.accumulate by as much\), "
    ):
        train_unet(unet_section(train=SHORT), stored_sections())


def test_training_is_judged_by_the_two_classes() -> None:
    assert net_training({}, "unet.train").early_stop.metric == "miou_2class"
    own = net_training({"early_stop": {"patience": 2}, "epochs": 7}, "unet.train")
    assert (own.early_stop.metric, own.early_stop.mode, own.early_stop.patience, own.epochs) == ("miou_2class", "max", 2, 7)
    assert net_training({"early_stop": {"metric": "miou_2class_pooled"}}, "unet.train").early_stop.metric == "miou_2class_pooled"
    with pytest.raises(ParamsError, match=r"unet\.train\.early_stop: value is 3"):
        net_training({"early_stop": 3}, "unet.train")


def test_all_idle_keys_are_told_at_once() -> None:
    with pytest.raises(ParamsError) as caught:
        net_training({"pictures": "two_row", "phases": [], "lr": 0.1}, "distill.train")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["distill.train.phases", "distill.train.pictures"]
