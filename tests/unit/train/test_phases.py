"""Tests of phases: a run that begins with less than its params say, and of the mean of what it learnt at different times."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from head_factory import MODELS
from loss_factory import FULL
from store_factory import Project, shared_project
from torch import nn
from trainer_factory import LOSS, TRAIN, files_of, loss_params, sections_of

from roiseg.errors import ParamsError
from roiseg.heads import build_head, parse_model
from roiseg.losses import LossParams, MaskLoss
from roiseg.params import PARAMS_FILE, read_yaml
from roiseg.schema import check_params
from roiseg.train.checkpoint import BEST, SNAPSHOTS, UNTRAINED, Checkpoint, by_epoch, load_checkpoint, save_checkpoint
from roiseg.train.head_task import HeadTask
from roiseg.train.learner import Learner
from roiseg.train.params import TrainParams
from roiseg.train.phases import resolve_phases
from roiseg.train.run import Phase
from roiseg.train.snapshots import mean_of
from roiseg.train.train import TrainPaths, train_head
from roiseg.train.world import World, make_fabric
from roiseg.trained import load_head

HEAD = Path("models/heads/default")
PHASES: list[dict[str, Any]] = [
    {"name": "deep", "until": 1, "model": {"layers": ["layer_34"]}, "loss": {"boundary_weight": 1.0}},
    {"name": "both_layers", "until": 2, "model": {}, "loss": {"boundary_weight": 1.0}},
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(project: Project, **changes: object) -> list[Checkpoint]:
    paths = TrainPaths(project.statistics, project.rois, project.index, project.features, HEAD, Path("metrics/train/default"))
    train_head("default", sections_of(project, **{"epochs": 4, "phases": PHASES, **changes}), paths)
    return [load_checkpoint(path) for path in by_epoch(HEAD / "checkpoints")]


# --- phases ---


def test_each_phase_has_its_model_and_its_loss(project: Project, here: Path) -> None:
    found = train(project)
    assert [item.params["model"]["layers"] for item in found] == [["layer_34"], *[["layer_34", "layer_3"]] * 3]
    assert [item.params["loss"]["boundary_weight"] for item in found] == [1.0, 1.0, 2.0, 2.0]
    assert [row["weight_boundary"] for row in found[-1].rows] == [1.0, 1.0, 2.0, 2.0]
    assert list(found[0].layers) == ["layer_34"]
    assert {path.name for path in (HEAD / "checkpoints").glob("progressive*")} == {
        "progressive_epoch_0001_deep.pth",
        "progressive_epoch_0002_both_layers.pth",
    }


def test_the_best_is_one_of_the_whole_model(project: Project, here: Path) -> None:
    """Whatever an earlier phase scored: evaluation and export want the model of the params."""
    train(project)
    head, best = load_head(HEAD, BEST, project.sections(MODELS["roi_unet"]), project.open("val", MODELS["roi_unet"]))
    assert best.epoch in (3, 4)
    assert isinstance(head, nn.Module)
    fresh = load_checkpoint(HEAD / UNTRAINED)
    assert (fresh.epoch, fresh.metrics, fresh.rows) == (0, {}, [])
    assert fresh.model.keys() == best.model.keys()


def test_the_rate_comes_back_after_a_switch(project: Project, here: Path) -> None:
    """Five steps an epoch; a factor of 0.1 at the first step of a phase, 1 from an epoch later on; the row has the last step's."""
    plain = [row["train_lr"] for row in train(project, phases=[], scheduler="none", warmup_epochs=0.0)[-1].rows]
    found = [row["train_lr"] for row in train(project, scheduler="none", warmup_epochs=0.0)[-1].rows]
    at_the_end = 0.1 + 0.9 * 4 / 5
    assert found == pytest.approx([plain[0], plain[1] * at_the_end, plain[2] * at_the_end, plain[3]])


def test_what_fits_goes_over(project: Project) -> None:
    sections = sections_of(project)
    few = sections_of(project, phases=PHASES).phases()
    sampler, val = project.sampler(MODELS["roi_unet"]), project.open("val", MODELS["roi_unet"])
    phases = []
    for number, (_, part) in enumerate([few[0], few[2]]):
        model = part.head.model
        build = partial(build_head, model, val.store.specs)
        drawn, whole = sampler.read_by(model.layers, model.mask_hw), val.read_by(model.layers, model.mask_hw)
        phases.append(Phase(str(number), None, HeadTask(build, MaskLoss(loss_params(), (1.0, 1.0, 1.0)), drawn, whole), {}))
    fabric = make_fabric(sections.train)
    first = Learner(fabric, World(fabric), phases[0], sections.train)
    first.rehearse()
    for group in first.optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.ones_like(weight)
    first.optimizer.step()
    second = Learner(fabric, World(fabric), phases[1], sections.train, first)
    mine, theirs = dict(second.head.named_parameters()), dict(first.head.named_parameters())
    same = {name for name in mine if name in theirs and mine[name].shape == theirs[name].shape}
    assert same
    assert same != set(mine)
    assert all(torch.equal(mine[name], theirs[name]) for name in same)
    state = second.optimizer.state
    assert {name for name in mine if mine[name] in state} == same
    name = min(same)
    assert torch.equal(state[mine[name]]["exp_avg"], first.optimizer.state[theirs[name]]["exp_avg"])
    assert state[mine[name]]["exp_avg"].data_ptr() != first.optimizer.state[theirs[name]]["exp_avg"].data_ptr()


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_resumed_is_unbroken(project: Project, here: Path, epoch: int) -> None:
    """Also where the kill comes right at a switch."""
    train(project)
    whole = files_of(HEAD)
    work = next(Path(".work").iterdir())
    for path in by_epoch(work / "checkpoints")[epoch:]:
        path.unlink()
    train(project)
    assert files_of(HEAD) == whole


def test_patience_waits_for_the_last_phase(project: Project, here: Path) -> None:
    stop = {"metric": "iou_bg", "mode": "min", "patience": 1}
    assert train(project, early_stop=stop, phases=[PHASES[0] | {"until": 3}])[-1].epoch == 4


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([PHASES[1], PHASES[0]], "both_layers until 2, deep until 1; expected each to end later than the one before"),
        ([PHASES[0], PHASES[0] | {"until": 2}], "each name once"),
        ([PHASES[0] | {"until": 4}], "the last one ends after epoch 4 of 4, which leaves none for the model of the params"),
        ([PHASES[0] | {"model": {"blokcs": 3}}], "train.phases, deep: model.blokcs: unknown key"),
        ([PHASES[0] | {"loss": {"ce": -1.0}}], "train.phases, deep: loss.ce: value is -1.0"),
    ],
)
def test_phases_that_cant_be(phases: list[dict[str, Any]], message: str) -> None:
    train_params = TrainParams.parse(TRAIN | {"phases": phases}, "train")
    with pytest.raises(ParamsError) as caught:
        resolve_phases(train_params, parse_model(MODELS["roi_unet"]), loss_params())
    assert message in str(caught.value)


def test_the_whole_file_is_checked_with_its_phases() -> None:
    shipped = read_yaml(Path(__file__).parents[3] / PARAMS_FILE)
    phase = {"name": "x", "until": 3, "model": {"layers": ["layer_99"]}, "loss": {"dize": 1.0}}
    shipped["train"]["phases"] = [phase | {"loss": {}}]
    with pytest.raises(ParamsError, match=r"model\.layers: 'layer_99' isn't in extractor\.layers"):
        check_params(shipped)
    shipped["train"]["phases"] = [phase | {"model": {}}]
    with pytest.raises(ParamsError, match=r"train\.phases, x: loss\.dize: unknown key"):
        check_params(shipped)


def test_a_loss_that_does_not_fit_the_head_trains_nothing(project: Project, here: Path) -> None:
    """Before a store is opened: there is none at these paths."""
    sections = replace(sections_of(project), loss=LossParams.parse(LOSS | {"hierarchical": FULL["hierarchical"]}, "loss"))
    nowhere = Path("nowhere")
    paths = TrainPaths(project.statistics, nowhere, nowhere, nowhere, HEAD, nowhere)
    with pytest.raises(ParamsError, match=r"loss\.hierarchical: reads the outputs .* but model\.head 'roi_unet' gives none"):
        train_head("default", sections, paths)


def test_the_whole_map_is_learnt_while_a_phase_asks_for_it(project: Project, here: Path) -> None:
    """Its frames are drawn on the grid of the first layer, and only then."""
    phase = {
        "name": "whole",
        "until": 1,
        "model": {"full_map": True},
        "loss": {"full_map": {"weight": 1.0, "outside": 0.1}},
    }
    sections = sections_of(project, "positional", epochs=2, phases=[phase])
    paths = TrainPaths(project.statistics, project.rois, project.index, project.features, HEAD, Path("metrics/train/default"))
    train_head("default", sections, paths)
    first, last = load_checkpoint(by_epoch(HEAD / "checkpoints")[-1]).rows
    assert first["train_full_map"] > 0
    assert first["weight_full_map"] == 1.0
    assert "train_full_map" not in last
    assert first["train_total"] == pytest.approx(first["train_ce"] + first["train_dice"] + first["train_full_map"], rel=1e-5)


def test_a_phase_has_class_weights_of_its_own(project: Project, here: Path) -> None:
    """With one weight for all in the first epoch, the same start gives another loss."""
    plain = {"name": "even", "until": 1, "model": {}, "loss": {"class_weights": {"mode": "none"}}}
    even, weighted = (train(project, epochs=2, phases=phases)[0].rows[0]["train_ce"] for phases in ([plain], []))
    assert even != weighted


# --- snapshots ---


def test_the_mean_of_the_snapshots_is_a_model(project: Project, here: Path) -> None:
    """Cycles of one epoch and of two: snapshots after epochs 1 and 3."""
    found = train(project, phases=[], scheduler="cosine_restarts", restart_epochs=1, restart_factor=2)
    mean = load_checkpoint(HEAD / SNAPSHOTS)
    for name, value in mean.model.items():
        torch.testing.assert_close(value, (found[0].model[name] + found[2].model[name]) / 2)
    assert mean.metrics.keys() == found[0].metrics.keys()
    sections, val = project.sections(MODELS["roi_unet"]), project.open("val", MODELS["roi_unet"])
    head, checkpoint = load_head(HEAD, SNAPSHOTS, sections, val)
    assert all(torch.equal(value, checkpoint.model[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize("changes", [{"scheduler": "cosine"}, {"scheduler": "cosine_restarts", "restart_epochs": 2}])
def test_no_mean_of_one_cycle(project: Project, here: Path, changes: dict[str, Any]) -> None:
    train(project, phases=[], epochs=3, **changes)
    assert not (HEAD / SNAPSHOTS).exists()


def test_counters_arent_averaged(tmp_path: Path) -> None:
    plain = Checkpoint(1, {}, {}, {}, {}, {}, [], {}, {}, {}, {}, 0.0, 0.0, [])
    for number in (1, 2, 4):
        model = {"weight": torch.full((2,), float(number)), "batches": torch.tensor(number)}
        save_checkpoint(tmp_path / f"{number}.pth", replace(plain, model=model))
    found = mean_of(sorted(tmp_path.iterdir()))
    assert torch.equal(found["weight"], torch.full((2,), 7 / 3))
    assert int(found["batches"]) == 4
