"""Tests of roiseg.losses.mask_loss: its named parts, its knobs, and batches of which there is little to learn."""

from typing import Any

import cv2
import pytest
import torch
from knobs import knobs
from loss_factory import ALONE, FULL, PLAIN, drawn_output, loss_params, targets_of, two_people
from torch import Tensor
from torch.nn import functional as F

from roiseg import masks
from roiseg.dataset import Targets
from roiseg.losses import LossParams, MaskLoss, class_weights
from roiseg.losses.boundary import boundary_weight_map, separation_weight_map
from roiseg.losses.region import dice
from roiseg.nn.outputs import HeadOutput

EVEN = (1.0, 1.0, 1.0)
ALWAYS = {
    "total",
    "ce",
    "dice",
    "mean_pixel_weight",
    "boundary_accuracy",
    "weight_ce",
    "weight_dice",
    "weight_boundary",
    "weight_instance_sep",
}
TERMS = {"tversky", "boundary_ce", "edge", "active_contour", "contrastive", "full_map", "bg_fg", "target_non_target", "consistency"}
BRANCHES = {"foreground", "contour", "distance"}
STAGES = {"stage_1", "stage_2", "stage_3"}


@pytest.fixture
def batch() -> tuple[HeadOutput, Targets]:
    logits = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    return HeadOutput(logits, {}), targets_of(two_people())


def gradients(output: HeadOutput) -> dict[str, Tensor]:
    """Gradient of each output that has one."""
    named = {"mask_logits": output.mask_logits, **output.aux}
    return {name: value.grad for name, value in named.items() if value.grad is not None}


def test_parts_are_named_and_add_up(batch: tuple[HeadOutput, Targets]) -> None:
    output, targets = batch
    parts = MaskLoss(loss_params(ce=0.7, dice=0.2, dice_classes=[1, 2], boundary_weight=2.0), (0.5, 1.0, 1.5))(output, targets)
    assert set(parts) == ALWAYS
    assert all(value.ndim == 0 for value in parts.values())
    torch.testing.assert_close(parts["total"], 0.7 * parts["ce"] + 0.2 * parts["dice"])
    torch.testing.assert_close(parts["dice"], dice(output.mask_logits, targets.labels, [1, 2], 1.0))
    assert float(parts["mean_pixel_weight"]) > 1
    assert [float(parts[f"weight_{name}"]) for name in ("ce", "dice", "boundary", "instance_sep")] == pytest.approx(
        [0.7, 0.2, 2.0, 1.0]
    )


@pytest.mark.parametrize("staged", [False, True])
def test_every_term_is_named_and_adds_up(staged: bool) -> None:
    drawn = drawn_output(2)
    output = HeadOutput(drawn.mask_logits, {name: value for name, value in drawn.aux.items() if staged or name not in STAGES})
    parts = MaskLoss(loss_params(FULL), (0.5, 1.0, 1.5))(output, targets_of(two_people()))
    weighted = {"ce", "dice", "tversky", "boundary_ce", "edge", "active_contour"}
    others = {"contrastive", "full_map", "bg_fg", "target_non_target", "consistency"} | BRANCHES
    weights = {f"weight_{name}" for name in weighted | others | (STAGES if staged else set())}
    balance = {f"weight_hier_{name}" for name in ("bg", "fg", "target", "non_target")}
    figures = {"foreground_accuracy", "foreground_iou"}
    assert set(parts) == ALWAYS | TERMS | BRANCHES | weights | balance | figures | (STAGES if staged else set())
    summed = (STAGES if staged else weighted) | others
    expected = sum(float(parts[name]) * float(parts[f"weight_{name}"]) for name in summed)
    assert float(parts["total"].detach()) == pytest.approx(expected, rel=1e-5)
    if staged:
        last = sum(float(parts[name]) * float(parts[f"weight_{name}"]) for name in weighted)
        assert float(parts["stage_3"]) == pytest.approx(last, rel=1e-5)


def test_stages_have_the_loss_of_a_mask() -> None:
    output, targets = drawn_output(2), targets_of(two_people())
    parts = MaskLoss(loss_params(dice=1.0, cascade=[0.2, 0.3, 0.5]), EVEN)(output, targets)
    alone = [
        float(MaskLoss(loss_params(dice=1.0), EVEN)(HeadOutput(logits, {}), targets)["total"].detach())
        for logits in (output.aux["stage_1"], output.aux["stage_2"], output.mask_logits)
    ]
    assert [float(parts[name]) for name in sorted(STAGES)] == pytest.approx(alone)
    assert float(parts["total"].detach()) == pytest.approx(0.2 * alone[0] + 0.3 * alone[1] + 0.5 * alone[2])


def test_what_is_off_changes_no_bit(batch: tuple[HeadOutput, Targets]) -> None:
    """The loss of before there were other terms, in its own operations."""
    output, targets = batch
    weights = torch.tensor([0.4, 1.1, 1.5])
    first, second = (output.mask_logits.clone().requires_grad_() for _ in range(2))
    params = loss_params(dice=0.8, dice_classes=[1, 2], boundary_weight=2.0, instance_sep_weight=1.5)
    found = MaskLoss(params, (0.4, 1.1, 1.5))(HeadOutput(first, {}), targets)["total"]
    pixels = boundary_weight_map(targets.boundary, 3.0, 2.0) * separation_weight_map(targets.target, targets.non_target, 2.0, 1.5)
    weighted = weights[targets.labels] * pixels
    nll = F.cross_entropy(second, targets.labels, reduction="none")
    expected = 1.0 * ((weighted * nll).sum() / weighted.sum()) + 0.8 * dice(second, targets.labels, (1, 2), 1.0)
    found.backward()  # type: ignore[no-untyped-call]
    expected.backward()  # type: ignore[no-untyped-call]
    assert found.equal(expected)
    assert first.grad is not None
    assert second.grad is not None
    assert first.grad.equal(second.grad)


def test_weights_of_one_are_plain_cross_entropy(batch: tuple[HeadOutput, Targets]) -> None:
    output, targets = batch
    parts = MaskLoss(loss_params(), EVEN)(output, targets)
    torch.testing.assert_close(parts["total"], F.cross_entropy(output.mask_logits, targets.labels))
    assert float(parts["mean_pixel_weight"]) == 1


def test_pixel_weights_multiply(batch: tuple[HeadOutput, Targets]) -> None:
    output, targets = batch
    parts = MaskLoss(loss_params(boundary_weight=2.0, instance_sep_weight=3.0), EVEN)(output, targets)
    near = (targets.target < 2) & (targets.non_target < 2)
    pixels = (1 + (1 - targets.boundary / 3).clamp(min=0)) * torch.where(near, 3.0, 1.0)
    nll = F.cross_entropy(output.mask_logits, targets.labels, reduction="none")
    torch.testing.assert_close(parts["ce"], (nll * pixels).sum() / pixels.sum())
    torch.testing.assert_close(parts["mean_pixel_weight"], pixels.mean())
    assert near[0].any()
    assert not near[1].any()


def test_focal_and_pixel_weights_act_together(batch: tuple[HeadOutput, Targets]) -> None:
    """The original's focal loss was a mean that no weight map reached (spec 11.5, flaw iv)."""
    output, targets = batch
    parts = MaskLoss(loss_params(focal_gamma=2.0, boundary_weight=3.0), EVEN)(output, targets)
    pixels = 1 + 2 * (1 - targets.boundary / 3).clamp(min=0)
    likely = output.mask_logits.softmax(1).gather(1, targets.labels[:, None])[:, 0]
    torch.testing.assert_close(parts["ce"], -((1 - likely) ** 2 * likely.log() * pixels).sum() / pixels.sum())


def test_class_weights_change_the_loss(batch: tuple[HeadOutput, Targets]) -> None:
    first, second = (float(MaskLoss(loss_params(), weights)(*batch)["ce"]) for weights in (EVEN, (0.2, 1.0, 5.0)))
    assert abs(first - second) > 1e-3


def test_boundary_accuracy() -> None:
    """Columns 2 to 5 lie within half of the band of 4; what is wrong in column 2 of one row counts, in column 0 it doesn't."""
    labels = torch.zeros(1, 2, 8, dtype=torch.int64)
    labels[..., 4:] = 1
    guess = labels.clone()
    guess[0, 0, [0, 2]] = 2
    output = HeadOutput(F.one_hot(guess, 3).movedim(-1, 1).float(), {})
    loss = MaskLoss(loss_params(boundary_width=4.0), EVEN)
    assert float(loss(output, targets_of(labels))["boundary_accuracy"]) == pytest.approx(7 / 8)
    assert float(loss(output, targets_of(torch.zeros_like(labels)))["boundary_accuracy"]) == 1


# --- no knob without effect ---

FLIPS: dict[str, Any] = {
    "non_target": "background",
    "ce": 0.5,
    "focal_gamma": 1.0,
    "focal_classes": [0],
    "dice": 0.3,
    "dice_classes": [1],
    "dice_smooth": 20.0,
    "tversky.weight": 0.9,
    "tversky.alpha": 0.9,
    "tversky.beta": 0.1,
    "tversky.classes": [2],
    "class_weights.mode": {"mode": "none", "values": None, "cap": None},
    "class_weights.values": [0.5, 2.0, 4.0],
    "class_weights.cap": 1.3,
    "boundary_weight": 4.0,
    "boundary_width": 6.0,
    "instance_sep_weight": 1.5,
    "near_px": 4.0,
    "adaptive.curve": "cosine",
    "adaptive.end_boundary_weight": 5.0,
    "adaptive.end_instance_sep_weight": 5.0,
    "ignore_px": 1.0,
    "boundary_ce.weight": 0.3,
    "boundary_ce.width": 3,
    "boundary_ce.factor": 5.0,
    "edge.weight": 0.5,
    "edge.form": "l1",
    "edge.source": "distance",
    "edge.distractors": True,
    "active_contour.weight": 0.3,
    "active_contour.curvature": 0.1,
    "contrastive.weight": 0.3,
    "contrastive.temperature": 0.5,
    "contrastive.samples": 1,
    "full_map.weight": 0.3,
    "full_map.outside": 0.9,
    "hierarchical.bg": 1.0,
    "hierarchical.fg": 2.0,
    "hierarchical.target": 1.0,
    "hierarchical.consistency": 0.5,
    "hierarchical.dynamic": False,
    "hierarchical.clamp": [0.9, 1.1],
    "hierarchical.ema": 0.0,
    "auxiliary.foreground.weight": 0.5,
    "auxiliary.foreground.pos_weight": 1.0,
    "auxiliary.contour.weight": 0.3,
    "auxiliary.contour.width": 1.0,
    "auxiliary.distance.weight": 0.3,
    "cascade": [0.5, 0.3, 0.4],
    "distill.alpha": 0.4,
    "distill.temperature": 1.0,
    "distill.branches": 0.1,
    "distill.classes": [1.0, 4.0, 1.0],
}
"""Dotted key -> another value than that of `TAUGHT`; `mode` brings the keys along that fit it."""

TERMS_OFF = [name for name, value in PLAIN.items() if value is None] + [f"auxiliary.{name}" for name in sorted(BRANCHES)]
"""Dotted keys of the sections of terms that may be null."""

AROUND: dict[str, dict[str, Any]] = {"ignore_px": {"edge": None}}
"""Dotted key -> what else is otherwise than in `FULL`, on either side."""


TAUGHT = FULL | {"distill": {"alpha": 0.7, "temperature": 4.0, "branches": 0.3, "classes": [1.0, 1.0, 1.0]}}
"""Every term, and a teacher."""


def flipped(base: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    key, _, rest = path.partition(".")
    if path == "class_weights.mode":
        return base | {"class_weights": value}
    return base | {key: flipped(base[key], rest, value) if rest else value}


def value_of(values: dict[str, Any]) -> float:
    """The total in the second of two batches, a quarter of the run done."""
    params = loss_params(values)
    loss = MaskLoss(params, class_weights(params.class_weights, {}))
    loss.begin_epoch(0.25)
    people = two_people()
    loss(drawn_output(2), targets_of(torch.where(people == 2, 1, people)), drawn_output(2, seed=3))
    return float(loss(drawn_output(2, seed=1), targets_of(people), drawn_output(2, seed=2))["total"].detach())


def test_every_term_is_there_by_itself() -> None:
    """So that a term that is added has its gradients looked at."""
    terms = {key for key, value in FULL.items() if isinstance(value, dict)} - {"class_weights", "adaptive"}
    assert {key for values in ALONE.values() for key in terms if values[key] != PLAIN[key]} == terms


def test_every_key_is_flipped() -> None:
    """The walk goes over the params classes, so a key that is added wants another value here."""
    assert set(FLIPS) | set(TERMS_OFF) == set(knobs(LossParams))


@pytest.mark.parametrize("path", FLIPS)
def test_every_key_changes_the_loss(path: str) -> None:
    base = TAUGHT | AROUND.get(path, {})
    before, after = value_of(base), value_of(flipped(base, path, FLIPS[path]))
    assert abs(before - after) > 1e-5 * abs(before)


@pytest.mark.parametrize("path", TERMS_OFF)
def test_every_term_can_be_off(path: str) -> None:
    assert abs(value_of(TAUGHT) - value_of(flipped(TAUGHT, path, None))) > 1e-5


# --- a run ---


def test_weights_change_over_the_run(batch: tuple[HeadOutput, Targets]) -> None:
    """Strong at first and weak at last; the original's never changed (spec 11.5, flaw vi)."""
    adaptive = {"curve": "linear", "end_boundary_weight": 1.0, "end_instance_sep_weight": 2.0}
    loss = MaskLoss(loss_params(boundary_weight=5.0, instance_sep_weight=4.0, adaptive=adaptive), EVEN)
    found = []
    for share in (0.0, 0.5, 1.0):
        loss.begin_epoch(share)
        parts = loss(*batch)
        found.append((float(parts["weight_boundary"]), float(parts["weight_instance_sep"]), float(parts["mean_pixel_weight"])))
    assert [item[:2] for item in found] == [(5.0, 4.0), (3.0, 3.0), (1.0, 2.0)]
    assert found[0][2] > found[1][2] > found[2][2]
    fixed = MaskLoss(loss_params(instance_sep_weight=2.0), EVEN)
    assert loss(*batch)["total"].equal(fixed(*batch)["total"])


def test_state_goes_on_where_it_was() -> None:
    first, second, fresh = (MaskLoss(loss_params(FULL), EVEN) for _ in range(3))
    targets = targets_of(two_people())
    first(drawn_output(2), targets_of(two_people().clamp(max=1)))
    assert set(first.state()) == {"bg", "fg", "target", "non_target"}
    second.load_state(first.state())
    totals = [float(loss(drawn_output(2, seed=1), targets)["total"].detach()) for loss in (first, second, fresh)]
    assert totals[0] == totals[1] != totals[2]
    assert MaskLoss(loss_params(), EVEN).state() == {}


def test_no_distance_is_computed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The original transformed each mask in each step (spec 11.5, flaw vii); here the threads that load have done it."""
    targets = targets_of(two_people())

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a distance transform in the loss")

    monkeypatch.setattr(masks, "label_distances", fail)
    monkeypatch.setattr(cv2, "distanceTransform", fail)
    MaskLoss(loss_params(FULL), EVEN)(drawn_output(2), targets)


# --- little to learn from ---

DEGENERATE: dict[str, Tensor] = {
    "nothing": torch.zeros(2, 8, 12, dtype=torch.int64),
    "all target": torch.ones(2, 8, 12, dtype=torch.int64),
    "all non-target": torch.full((2, 8, 12), 2),
    "one pixel": torch.zeros(2, 8, 12, dtype=torch.int64).index_put(
        (torch.tensor([0]), torch.tensor([3]), torch.tensor([4])), torch.tensor(1)
    ),
    "no class 2": two_people().clamp(max=1),
    "no background": two_people().clamp(min=1),
    "all ignored": torch.full((2, 8, 12), 255),
    "no ROI": torch.zeros(0, 8, 12, dtype=torch.int64),
    "one ROI": two_people()[:1],
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("size", [0.0, 1.0, 60.0])
@pytest.mark.parametrize("form", ["bce", "l1"])
def test_gradients_are_finite(name: str, size: float, form: str) -> None:
    labels = DEGENERATE[name]
    drawn = drawn_output(len(labels))
    output = HeadOutput(*_scaled(drawn, size))
    params = loss_params(FULL, edge=FULL["edge"] | {"form": form})
    parts = MaskLoss(params, (0.5, 1.0, 1.5))(output, targets_of(labels))
    assert all(torch.isfinite(value) for value in parts.values())
    parts["total"].backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(parts["total"])
    found = gradients(output)
    assert set(found) == {"mask_logits", *output.aux}
    assert {name for name, value in found.items() if not torch.isfinite(value).all()} == set()


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("term", ALONE)
@pytest.mark.parametrize("non_target", ["own", "background"])
def test_gradients_of_each_term_are_finite(term: str, name: str, non_target: str) -> None:
    """By itself, where no other term's slope hides that it has none."""
    labels = DEGENERATE[name]
    loss = MaskLoss(loss_params(ALONE[term], non_target=non_target), (0.5, 1.0, 1.5))
    for size in (0.0, 1.0, 60.0):
        output = HeadOutput(*_scaled(drawn_output(len(labels)), size))
        total = loss(output, targets_of(labels))["total"]
        assert float(total.detach()) >= -1e-6, size
        total.backward()  # type: ignore[no-untyped-call]
        assert {key for key, value in gradients(output).items() if not torch.isfinite(value).all()} == set(), size


def _scaled(output: HeadOutput, size: float) -> tuple[Tensor, dict[str, Tensor]]:
    def scale(value: Tensor) -> Tensor:
        return (value.detach() * size).requires_grad_()

    return scale(output.mask_logits), {name: scale(value) for name, value in output.aux.items()}


def test_only_the_total_has_a_gradient() -> None:
    output = drawn_output(2)
    parts = MaskLoss(loss_params(FULL), EVEN)(output, targets_of(two_people()))
    assert {name for name, value in parts.items() if value.requires_grad} == {"total"}
    parts["total"].backward()  # type: ignore[no-untyped-call]
    assert {name for name, value in gradients(output).items() if value.abs().max() > 0} == {"mask_logits", *output.aux}


def test_no_rois() -> None:
    output = drawn_output(0)
    parts = MaskLoss(loss_params(FULL), EVEN)(output, targets_of(torch.zeros(0, 8, 12, dtype=torch.int64)))
    parts["total"].backward()  # type: ignore[no-untyped-call]
    assert float(parts["total"].detach()) == 0


def test_pixels_beside_borders_count_for_no_term() -> None:
    generator = torch.Generator().manual_seed(5)
    sizes = {"foreground": 1, "contour": 1, "distance": 1, "bg_fg": 2, "target_non_target": 2, "stage_1": 3, "stage_2": 3}
    targets = targets_of(two_people())
    ignored = (targets.boundary < 1.2)[:, None]
    assert ignored.any()

    def total(noise: float) -> float:
        drawn = torch.Generator().manual_seed(6)
        values = {name: torch.randn(2, count, 8, 12, generator=drawn) for name, count in (("mask", 3), *sizes.items())}
        moved = {name: value + noise * ignored * torch.randn(value.shape, generator=generator) for name, value in values.items()}
        params = loss_params(FULL, edge=None, contrastive=None, full_map=None, ignore_px=1.2)
        return float(MaskLoss(params, EVEN)(HeadOutput(moved.pop("mask"), moved), targets)["total"])

    assert total(9.0) == pytest.approx(total(0.0), rel=1e-6)


# --- what a head gives ---


def test_half_precision_is_summed_in_float32() -> None:
    targets, output = targets_of(two_people()), drawn_output(2)
    rounded = HeadOutput(output.mask_logits.bfloat16(), {name: value.bfloat16() for name, value in output.aux.items()})
    whole = HeadOutput(rounded.mask_logits.float(), {name: value.float() for name, value in rounded.aux.items()})
    expected = MaskLoss(loss_params(FULL), EVEN)(whole, targets)["total"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = MaskLoss(loss_params(FULL), EVEN)(rounded, targets)["total"]
    assert found.dtype == torch.float32
    assert found.equal(expected)
