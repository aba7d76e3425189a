"""Training that is killed at any moments goes on: its files are in the end those of a run that nobody disturbed."""

import math
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from head_factory import MODELS
from hypothesis import Phase as HypothesisPhase
from hypothesis import given, note, settings
from hypothesis import strategies as st
from rate_forms import closed_form
from store_factory import Project, make_project, sampler_params
from sudden_end import Fate, Place, SuddenEnd
from trainer_factory import LOSS, TRAIN, files_of, rows_of

from roiseg.heads.roi_unet import RoiUnetHead
from roiseg.losses import LossParams
from roiseg.train.checkpoint import newest
from roiseg.train.params import TrainParams
from roiseg.train.train import TrainPaths, TrainSections, train_head

EPOCHS = 4
IMAGES = (3, 2)
HEAD, LIVE = Path("models/heads/default"), Path("metrics/train/default")

OPTIONS = st.fixed_dictionaries(
    {
        "scheduler": st.sampled_from(["cosine", "cosine_restarts", "step", "exponential", "plateau", "none"]),
        "optimizer": st.sampled_from(["adamw", "adam", "sgd"]),
        "accumulate": st.sampled_from([1, 2]),
        "keep_checkpoints": st.sampled_from([None, 0, 1, 2]),
        "patience": st.sampled_from([None, 1, 2]),
        "mode": st.sampled_from(["max", "min"]),
        "phases": st.sampled_from([(), ({"name": "plain", "until": 2, "model": {"mid_channels": 4}, "loss": {"dice": 0.0}},)]),
    }
)
"""What shapes a run and may go wrong where it goes on."""


QUICK = {
    **LOSS,
    "dice_classes": [1, 2],
    "dice_smooth": 50.0,
    "class_weights": {"mode": "manual", "values": [4.0, 1.0, 1.0], "cap": None},
}
"""A loss by which masks change within a few steps, so that epochs have different figures."""


def train_params(options: dict[str, Any]) -> TrainParams:
    plain = {name: options[name] for name in ("scheduler", "optimizer", "accumulate", "keep_checkpoints", "phases")}
    stop = {"metric": "miou_fg_roi", "mode": options["mode"], "patience": options["patience"]}
    return TrainParams.parse({**TRAIN, **plain, "early_stop": stop, "epochs": EPOCHS, "lr": 0.1, "average_decay": 0.2}, "train")


@dataclass(frozen=True)
class Finished:
    """What a run has left, and how it came to it.

    Attributes:
        files: everything in its folder.
        fate: what its processes did.
        rates: learning rate of each step, as the process that last made it used it.
        figures: the judged one of each epoch.
    """

    files: dict[str, bytes] = field(repr=False)
    fate: Fate
    rates: dict[int, float]
    figures: list[float]


@dataclass(frozen=True)
class Stage:
    """The stage `train`, to be run in folders of its own."""

    project: Project
    _unbroken: dict[str, Finished] = field(default_factory=dict, repr=False)

    def train(self, params: TrainParams, places: tuple[Place, ...]) -> Finished:
        """Run it until it's done, each time in a process that goes on where the last one ended."""
        fate, rates = Fate(RoiUnetHead, places), dict[int, float]()
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            done = False
            while not done:
                first = self._epochs_done() * self.steps(params)
                with fate.process():
                    try:
                        self._run(params)
                        done = True
                    except SuddenEnd:
                        pass
                rates |= {first + number: rate for number, rate in enumerate(fate.rates[-1])}
            (work,) = Path(".work").iterdir()
            return Finished(files_of(Path()), fate, rates, [row["miou_fg_roi"] for row in rows_of(work)])

    def steps(self, params: TrainParams) -> int:
        """Steps of an epoch."""
        return math.ceil(IMAGES[0] / params.accumulate)

    def _epochs_done(self) -> int:
        found = [newest(folder) for folder in Path().glob(".work/*/checkpoints")]
        return int(found[0].name.split("_")[2]) if found and found[0] else 0

    def _run(self, params: TrainParams) -> None:
        sections = TrainSections(
            self.project.sections(MODELS["roi_unet"]), sampler_params(), LossParams.parse(QUICK, "loss"), params
        )
        project = self.project
        train_head("default", sections, TrainPaths(project.statistics, project.rois, project.index, project.features, HEAD, LIVE))

    def unbroken(self, params: TrainParams) -> Finished:
        """A run of these params that nobody disturbs; made once."""
        key = params.model_dump_json()
        if key not in self._unbroken:
            self._unbroken[key] = self.train(params, ())
        return self._unbroken[key]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(make_project(tmp_path_factory.mktemp("project"), images=IMAGES))


DRAWS = st.lists(st.tuples(st.integers(0, 10**6), st.none() | st.integers(0, 10**6)), min_size=1, max_size=5)
"""What is being done and for which time, both over again from 0 where a run does less; None is the last time."""


def places_of(draws: list[tuple[int, int | None]], counts: Counter[str]) -> tuple[Place, ...]:
    """One to five different places of a run that does this much."""
    kinds = sorted(counts)
    named = [(kinds[kind % len(kinds)], time) for kind, time in draws]
    return tuple({(kind, counts[kind] if time is None else 1 + time % counts[kind]) for kind, time in named})


def check_split(stage: Stage, params: TrainParams, places: tuple[Place, ...]) -> None:
    """A place counts over all processes of the run, and going on leaves nothing out: so a process ends at each of them."""
    whole, split = stage.unbroken(params), stage.train(params, places)
    assert sorted(split.fate.met) == sorted(places)
    assert split.files.keys() == whole.files.keys()
    assert [path for path, held in whole.files.items() if split.files[path] != held] == []
    steps = stage.steps(params)
    forms = {step: closed_form(params, step, steps, whole.figures[: step // steps]) for step in range(len(whole.figures) * steps)}
    assert split.rates == pytest.approx(forms, rel=1e-9)


# A failure names its options and ends; the search for a simpler one would run hundreds of trainings.
@pytest.mark.thorough
@settings(max_examples=8, phases=[HypothesisPhase.generate])
@given(options=OPTIONS, draws=DRAWS)
def test_any_split_of_a_run_is_the_unbroken_one(stage: Stage, options: dict[str, Any], draws: list[tuple[int, int | None]]) -> None:
    params = train_params(options)
    places = places_of(draws, stage.unbroken(params).fate.counts)
    note(f"ends: {places}")
    check_split(stage, params, places)


def test_what_a_killed_run_was_about_to_delete_goes(stage: Stage) -> None:
    """There is no epoch left whose end would delete it."""
    options = {"scheduler": "cosine", "optimizer": "adamw", "accumulate": 1, "patience": None, "mode": "max", "phases": ()}
    last = "before unlink checkpoint_epoch_N_NxN_N.pth", EPOCHS - 1
    check_split(stage, train_params({**options, "keep_checkpoints": 1}), (last,))
