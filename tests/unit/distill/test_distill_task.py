"""Tests of roiseg.distill.task: losses from the cache are those of live nets, and what is counted is what is said.

Symbols: B images, (h, w) pixels of the student's map.
"""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from net_factory import (
    NETWORK_HW,
    area_mean,
    distill_section,
    link_project,
    min_hw,
    narrow_encoders,
    people_of,
    shared_teacher,
    task_of,
    teacher_net,
)
from numpy.typing import NDArray
from store_factory import TENSORS, Project, detector
from torch import Tensor
from torch.nn import functional as F

from roiseg.batches import Loading, dequantise
from roiseg.distill.eliminate import Elimination
from roiseg.distill.student import Student
from roiseg.distill.task import DistillTask, student_of
from roiseg.export.net_onnx import LOGIT_LIMIT
from roiseg.train.learner import Learner
from roiseg.train.run import Phase
from roiseg.train.world import World, make_fabric
from roiseg.types import IMAGE, MIRRORED, PLAIN, TEACHER, View
from roiseg.unet.data import PersonBatch
from roiseg.unet.params import net_training

CPU = torch.device("cpu")
LOADING = Loading(2, 1, 2)
LAYERS = ("layer_34", "layer_3")
BOTH = {"layers": {"layer_34": 3, "layer_3": 2}}


@pytest.fixture(autouse=True, scope="module")
def narrow() -> Iterator[None]:
    with narrow_encoders():
        yield


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Path]:
    return shared_teacher(tmp_path_factory)


@pytest.fixture(autouse=True)
def place(taught: tuple[Project, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    link_project(tmp_path, *taught)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_task(**changes: Any) -> DistillTask:  # noqa: ANN401 - values of a section
    params = distill_section(**changes)
    return task_of(params, lambda split: people_of(params, split))


def make_student(task: DistillTask) -> Student:
    torch.manual_seed(0)
    return student_of(task.build())


def from_cache(task: DistillTask, batch: PersonBatch) -> dict[str, Tensor]:
    scales = {name: torch.from_numpy(values) for name, values in task.train.store.scales.items()}
    return dequantise(batch.features, scales, CPU)


# --- the cache against live nets ---


def live_image(project: Project, task: DistillTask, row: int, view: View) -> NDArray[np.float32]:
    """(3, H, W) RGB in [0, 1], from the file and by OpenCV alone."""
    name = str(task.train.index.images["file_name"].iloc[row])
    pixels = cv2.imread(str(project.image("train", name)))
    assert pixels is not None
    small = cv2.resize(pixels, NETWORK_HW[::-1], interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
    whole = np.ascontiguousarray(small.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)
    return whole if view == PLAIN else np.ascontiguousarray(whole[:, :, ::-1])


def view_of(task: DistillTask, batch: PersonBatch, place: int) -> View:
    """Which way round the masks are; every picture here has somebody off its middle."""
    mask, plain = batch.masks[place, 0].bool().numpy(), task.train.sample(batch.rows[place]).mask
    assert (plain != plain[:, ::-1]).any()
    assert (mask == plain).all() or (mask == plain[:, ::-1]).all()
    return PLAIN if (mask == plain).all() else MIRRORED


def run_live(project: Project, task: DistillTask, batch: PersonBatch) -> dict[str, Tensor]:
    """What the cache stands for: image, the detector's maps and the teacher's logits of each image, all in float32."""
    views = [view_of(task, batch, place) for place in range(batch.size)]
    images = np.stack([live_image(project, task, row, view) for row, view in zip(batch.rows, views, strict=True)])
    session = onnxruntime.InferenceSession(detector().SerializeToString(), providers=["CPUExecutionProvider"])
    maps = session.run([TENSORS[name] for name in LAYERS], {"images": images})
    with torch.no_grad():
        logits = teacher_net()(torch.from_numpy(images))
    found = {name: torch.from_numpy(np.asarray(values)) for name, values in zip(LAYERS, maps, strict=True)}
    return {IMAGE: torch.from_numpy(images), **found, TEACHER: logits}


def losses_of(
    task: DistillTask, student: Student, features: Mapping[str, Tensor], batch: PersonBatch
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses of a step and its gradients; norms, dropped blocks and all."""
    module = copy.deepcopy(student).train()
    torch.manual_seed(7)
    losses = task.losses(module, dict(features), batch, CPU)
    losses["total"].backward()  # type: ignore[no-untyped-call]
    return losses, [item.grad for item in module.parameters() if item.grad is not None]


def logit_error(live: Tensor) -> Tensor:
    """float16 has 11 bits: half a unit in the last place; and onnxruntime adds up in another order than torch."""
    return live.abs() * 2.0**-11 + 1e-4


def bounds_of(task: DistillTask, student: Student, live: Mapping[str, Tensor]) -> dict[str, float]:
    """By how much each part may differ, for what is stored is rounded: logits to float16, maps to steps of their scales.

    `mse`: |(s - t - e)^2 - (s - t)^2| <= 2 |s - t| e + e^2. `kl`: its slope along the teacher's logit is p (1 - p) (t - s), at most
    |t - s| / 4. `feature`: as `mse`, with half a step of a channel's scale. The image is stored as it is: nothing else differs.
    """
    module = copy.deepcopy(student).train()
    torch.manual_seed(7)
    hw = task.mask_hw
    error = F.interpolate(logit_error(live[TEACHER]), hw, mode="bilinear", align_corners=False)
    wanted = F.interpolate(live[TEACHER], hw, mode="bilinear", align_corners=False)
    with torch.no_grad():
        logits, taps = module.net.taps(live[IMAGE], (2, 3))
        apart = (logits - wanted).abs()
        found = {
            "mse": float((2 * apart * error + error**2).mean()),
            "kl": float((0.25 * apart * error + error**2).mean()),
            "bce": 0.0,
            "dice": 0.0,
        }
        alignment = module.alignment
        assert alignment is not None
        for name, tap in (("layer_34", 3), ("layer_3", 2)):
            step = torch.from_numpy(task.train.store.scales[name]).view(1, -1, 1, 1) / 2
            guess = alignment.projections[name](area_mean(taps[tap], min_hw(taps[tap], live[name])))
            apart = (guess - area_mean(live[name], (guess.shape[2], guess.shape[3]))).abs()
            found[f"feature_{name}"] = float((2 * apart * step + step**2).mean())
    return found


@pytest.mark.parametrize("epoch", [1, 2])
def test_losses_of_the_cache_are_those_of_live_nets(taught: tuple[Project, Path], epoch: int) -> None:
    """Of steps in both views, to the stored precision (int8 maps, float16 logits, images of whole grey levels) and no further."""
    project, _ = taught
    task = make_task(augment="none", features=BOTH)
    student = make_student(task)
    task.begin_epoch(0.0, 1)
    for batch in task.batches(LOADING, seed=0, epoch=epoch):
        live = run_live(project, task, batch)
        cached, gradients = losses_of(task, student, from_cache(task, batch), batch)
        expected, others = losses_of(task, student, live, batch)
        assert cached.keys() == expected.keys()
        bounds = bounds_of(task, student, live)
        for name, bound in bounds.items():
            assert float(expected[name]) > 0
            assert bound <= 0.1 * float(expected[name]), "or a wrong map would pass"
            assert float(cached[name]) == pytest.approx(float(expected[name]), abs=bound + 2e-6 * float(expected[name]))
        largest = max(float(item.abs().max()) for item in others)
        for mine, theirs in zip(gradients, others, strict=True):
            assert float((mine - theirs).abs().max()) < 0.02 * largest


def test_what_is_cached_is_of_the_same_view(taught: tuple[Project, Path]) -> None:
    """A map of the other view would be further off than rounding is: by more than ten times the bound."""
    project, _ = taught
    task = make_task(augment="none", features=BOTH)
    seen = set()
    for batch in task.batches(LOADING, seed=0, epoch=1):
        live, cached = run_live(project, task, batch), from_cache(task, batch)
        seen |= {view_of(task, batch, place) for place in range(batch.size)}
        torch.testing.assert_close(cached[IMAGE], live[IMAGE], rtol=0, atol=1e-6)
        clipped = live[TEACHER].clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        assert bool(((cached[TEACHER] - clipped).abs() <= logit_error(clipped)).all())
        assert float((cached[TEACHER] - clipped.flip(3)).abs().max()) > 0.05
        for name in LAYERS:
            step = torch.from_numpy(task.train.store.scales[name]).view(1, -1, 1, 1)
            # Scales are those of the plain view: a mirrored map may go a little beyond their end.
            inside = live[name].abs() <= 127 * step
            assert bool((((cached[name] - live[name]).abs() <= 0.501 * step) | ~inside).all())
            assert float(inside.float().mean()) > 0.99
            assert bool(((cached[name] - live[name].flip(3)).abs() > 10 * step).any())
    assert seen == {PLAIN, MIRRORED}


def test_only_what_the_student_sees_is_augmented() -> None:
    """Places, masks, logits and the detector's maps are those of the view; colours alone change."""
    plain, heavy = make_task(augment="none"), make_task(augment="heavy")
    changed = 0
    for epoch in (1, 2, 3):
        drawn = [task.batches(LOADING, seed=0, epoch=epoch) for task in (plain, heavy)]
        for before, after in zip(*drawn, strict=True):
            assert list(before.rows) == list(after.rows)
            assert after.masks.equal(before.masks)
            assert before.features.keys() == after.features.keys() == {IMAGE, "layer_34", TEACHER}
            for name in ("layer_34", TEACHER):
                assert after.features[name].equal(before.features[name])
            changed += sum(not mine.equal(other) for mine, other in zip(before.features[IMAGE], after.features[IMAGE], strict=True))
    assert changed > 10, "of fifteen; a few of them draw nothing"


def test_validation_sees_no_augmentation() -> None:
    task = make_task(augment="heavy")
    student = make_student(task).eval()
    plain = make_task(augment="none")
    assert task.figures([task.score(student, CPU, LOADING)]) == plain.figures([plain.score(student, CPU, LOADING)])


# --- figures ---


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float | None:
    union = int((one | other).sum())
    return None if union == 0 else int((one & other).sum()) / union


def mean_iou(answers: list[NDArray[np.bool_]], truths: list[NDArray[np.bool_]]) -> float:
    """Mean over images of the mean of both classes, classes that are nowhere left out."""
    found = []
    for answer, truth in zip(answers, truths, strict=True):
        both = [value for value in (iou(answer, truth), iou(~answer, ~truth)) if value is not None]
        found.append(sum(both) / len(both))
    return sum(found) / len(found)


def test_figures_are_those_of_a_slow_way() -> None:
    """Image by image, in numpy, from the stored values."""
    task = make_task(features=BOTH)
    student = make_student(task).eval()
    store = task.val.store
    images = torch.from_numpy(np.stack([store.read(row, [IMAGE])[IMAGE] for row in range(len(store))])).float() / 255
    with torch.no_grad():
        # A fresh net answers alike everywhere: bring the border between its answers into the pictures.
        student.net.net.segmentation_head[0].bias -= student.net(images).mean()
        logits = torch.cat([student.net(images[row : row + 1]) for row in range(len(store))])
    figures = task.figures([task.score(student, CPU, Loading(1, 1, 2))])
    answers, teachers, truths, losses = [], [], [], []
    for row in range(len(store)):
        values = store.read(row, [TEACHER, *LAYERS])
        teacher = torch.from_numpy(values[TEACHER].astype(np.float32))[None]
        teachers.append(F.interpolate(teacher, task.mask_hw, mode="bilinear", align_corners=False)[0, 0].numpy() > 0)
        answers.append(logits[row, 0].numpy() > 0)
        truths.append(task.val.sample(row).mask)
        maps = {
            name: torch.from_numpy(values[name].astype(np.float32) * store.scales[name][:, None, None])[None] for name in LAYERS
        }
        with torch.no_grad():
            _, taps = student.net.taps(images[row : row + 1], (2, 3))
            assert student.alignment is not None
            for name, tap in (("layer_34", 3), ("layer_3", 2)):
                hw = min_hw(taps[tap], maps[name])
                guess = student.alignment.projections[name](area_mean(taps[tap], hw))
                losses.append(float(F.mse_loss(guess, area_mean(maps[name], hw))))
    assert figures["miou_2class"] == pytest.approx(mean_iou(answers, truths))
    assert figures["agreement"] == pytest.approx(mean_iou(answers, teachers))
    assert figures["teacher_miou_2class"] == pytest.approx(mean_iou(teachers, truths))
    assert figures["feature_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert figures["agreement_pixels"] == pytest.approx(float((np.stack(answers) == np.stack(teachers)).mean()))
    assert len({figures[name] for name in ("miou_2class", "agreement", "teacher_miou_2class")}) == 3


def test_figures_of_shares_are_those_of_the_whole() -> None:
    """Of two processes, as of one; feature loss included, where no part of it is relative to a batch."""
    task = make_task()
    student = make_student(task).eval()
    whole = task.figures([task.score(student, CPU, Loading(1, 1, 2))])
    parts = [task.score(student, CPU, Loading(1, 1, 2, rank=rank, processes=2)) for rank in range(2)]
    assert task.figures(parts) == pytest.approx(whole, rel=1e-6)


def test_without_features_there_is_no_figure_of_them() -> None:
    task = make_task(features=None, loss={"feature": 0.0})
    assert set(task.layers) == {IMAGE, TEACHER}
    student = make_student(task).eval()
    assert student.alignment is None
    figures = task.figures([task.score(student, CPU, LOADING)])
    assert "feature_loss" not in figures
    assert {"agreement", "teacher_miou_2class", *task.known_figures} <= set(figures)


def test_elimination_is_told_of_student_and_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, float]] = []
    judged = Elimination.judged

    def noted(self: Elimination, student: float, teacher: float) -> None:
        told.append((student, teacher))
        judged(self, student, teacher)

    monkeypatch.setattr(Elimination, "judged", noted)
    task = make_task(eliminate={"threshold": 0.5, "amplification": 2.0, "min_alpha": 0.0})
    figures = {"miou_2class": 0.6, "teacher_miou_2class": 0.5, "agreement": 0.9}
    task.judged(figures)
    assert told == [(0.6, 0.5)]
    share = task.state()["eliminate_share"]
    assert share == pytest.approx(np.exp(-2.0 * 0.2))
    # What the share is in force for: the teacher's two parts, and nothing else.
    (batch, *_) = task.batches(LOADING, seed=0, epoch=1)
    losses, _ = losses_of(task, make_student(task), from_cache(task, batch), batch)
    weights = {name: float(losses[f"weight_{name}"]) for name in ("kl", "mse", "bce", "dice", "feature")}
    assert weights == pytest.approx({"kl": share, "mse": 0.1 * share, "bce": 0.5, "dice": 1.0, "feature": 0.5})
    total = sum(weight * float(losses[name]) for name, weight in weights.items())
    assert float(losses["total"].detach()) == pytest.approx(total, rel=1e-5)
    fresh = make_task(eliminate={"threshold": 0.5, "amplification": 2.0, "min_alpha": 0.0})
    fresh.load_state(task.state())
    assert fresh.state() == task.state()
    fresh.load_state({})
    assert fresh.state()["eliminate_share"] == 1.0


# --- weights that join ---


def learner_of(task: DistillTask) -> Learner:
    params = net_training({"epochs": 3, "images_per_batch": 2, "lr": 0.01, "device": "cpu"}, "distill.train")
    torch.manual_seed(0)
    fabric = make_fabric(params)
    return Learner(fabric, World(fabric), Phase(None, None, task, {}), params)


def steps(learner: Learner, epoch: int, rate: float = 0.01) -> None:
    learner.begin_epoch(epoch)
    learner.wrapped.train()
    for batch in learner.task.batches(LOADING, 0, epoch):
        learner.set_rate(rate)
        learner.optimizer.zero_grad()
        learner.losses(batch)["total"].backward()  # type: ignore[no-untyped-call]
        learner.optimizer.step()


def named_of(learner: Learner) -> dict[str, int]:
    """Group of each weight that the optimiser has, by name."""
    names = {id(weight): name for name, weight in learner.head.named_parameters()}
    groups = learner.optimizer.param_groups
    found = [(names[id(weight)], number) for number, group in enumerate(groups) for weight in group["params"]]
    assert len(dict(found)) == len(found), "no weight is in two groups"
    return dict(found)


@pytest.mark.parametrize(
    ("changes", "factor", "joins"),
    [
        (
            {"model": {"freeze_encoder": True}, "unfreeze": {"start": 1, "every": 1, "lr_scale": 0.25}},
            0.25,
            "net.net.encoder.blocks.6.",
        ),
        ({"staged": {"encoder_only_epochs": 1, "encoder_lr_scale": 1.0, "full_lr_scale": 0.5}}, 1.0, "net.net.decoder."),
    ],
    ids=["unfreeze", "staged"],
)
def test_groups_join_and_moments_of_the_others_stay(changes: dict[str, Any], factor: float, joins: str) -> None:
    task = make_task(augment="none", **changes)
    learner = learner_of(task)
    steps(learner, 1)
    before = named_of(learner)
    assert not any(name.startswith(joins) for name in before)
    weights = dict(learner.head.named_parameters())
    moments = {name: {key: value.clone() for key, value in learner.optimizer.state[weights[name]].items()} for name in before}
    fresh = {name: value.detach().clone() for name, value in weights.items()}
    learner.begin_epoch(2)
    after = named_of(learner)
    assert {name: after[name] for name in before} == before
    assert any(name.startswith(joins) for name in after)
    for name, held in moments.items():
        now = learner.optimizer.state[weights[name]]
        assert held.keys() == now.keys()
        assert all(now[key].equal(value) for key, value in held.items()), "Adam has forgotten"
    joined = set(after) - set(before)
    assert all(learner.optimizer.param_groups[after[name]]["factor"] == factor for name in joined)
    assert all(
        learner.optimizer.param_groups[after[name]]["weight_decay"] == (0.01 if weights[name].ndim > 1 else 0.0) for name in after
    )
    steps(learner, 2)
    assert {float(learner.optimizer.state[weights[name]]["step"]) for name in joined} == {3.0}
    assert {float(learner.optimizer.state[weights[name]]["step"]) for name in before} == {6.0}
    assert any(not weights[name].detach().equal(fresh[name]) for name in joined)
    assert all(weights[name].detach().equal(fresh[name]) for name in set(weights) - set(after)), "what stands still stands still"
    learner.begin_epoch(2)
    assert named_of(learner) == after, "asked again, nothing joins again"
