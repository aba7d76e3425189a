"""Tests of roiseg.losses.mask_loss: its named parts, its knobs, and where class weights come from."""

from typing import Any

import numpy as np
import pytest
import torch
from store_factory import STATISTICS
from torch import Tensor
from torch.nn import functional as F

from roiseg.dataset import Targets
from roiseg.errors import ParamsError
from roiseg.losses import LossParams, MaskLoss, class_weights
from roiseg.losses.mask_loss import ClassWeightParams
from roiseg.losses.region import dice
from roiseg.masks import label_distances
from roiseg.nn.outputs import HeadOutput

PLAIN: dict[str, Any] = {
    "ce": 1.0,
    "dice": 0.0,
    "dice_classes": [1],
    "dice_smooth": 1.0,
    "class_weights": {"mode": "none", "values": None},
    "boundary_weight": 1.0,
    "boundary_width": 3.0,
    "instance_sep_weight": 1.0,
    "near_px": 2.0,
}
EVEN = (1.0, 1.0, 1.0)


def loss_params(**changes: object) -> LossParams:
    return LossParams.parse(PLAIN | changes, "loss")


def targets_of(labels: Tensor) -> Targets:
    found = [label_distances(item.astype(np.uint8)) for item in labels.numpy()]
    empty = np.zeros((0, *labels.shape[1:]), dtype=np.float32)
    stacks = [
        np.stack([getattr(item, name) for item in found]) if found else empty for name in ("boundary", "target", "non_target")
    ]
    return Targets(labels, *(torch.from_numpy(item) for item in stacks))


@pytest.fixture
def batch() -> tuple[HeadOutput, Targets]:
    labels = torch.zeros(2, 8, 12, dtype=torch.int64)
    labels[0, 2:7, 1:6], labels[0, 2:7, 6:9] = 1, 2
    labels[1, 1:5, 3:9] = 1
    logits = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    return HeadOutput(logits, {}), targets_of(labels)


def test_parts_are_named_and_add_up(batch: tuple[HeadOutput, Targets]) -> None:
    output, targets = batch
    parts = MaskLoss(loss_params(ce=0.7, dice=0.2, dice_classes=[1, 2], boundary_weight=2.0), (0.5, 1.0, 1.5))(output, targets)
    weights = {"weight_ce": 0.7, "weight_dice": 0.2, "weight_boundary": 2.0, "weight_instance_sep": 1.0}
    assert set(parts) == {"total", "ce", "dice", "mean_pixel_weight", *weights}
    assert {name: float(parts[name]) for name in weights} == pytest.approx(weights)
    assert all(value.ndim == 0 for value in parts.values())
    torch.testing.assert_close(parts["total"], 0.7 * parts["ce"] + 0.2 * parts["dice"])
    torch.testing.assert_close(parts["dice"], dice(output.mask_logits, targets.labels, [1, 2], 1.0))
    assert float(parts["mean_pixel_weight"]) > 1


def test_weights_of_one_are_plain_cross_entropy(batch: tuple[HeadOutput, Targets]) -> None:
    output, targets = batch
    parts = MaskLoss(loss_params(), EVEN)(output, targets)
    torch.testing.assert_close(parts["total"], F.cross_entropy(output.mask_logits, targets.labels))
    assert float(parts["mean_pixel_weight"]) == 1


@pytest.mark.parametrize(
    "changes",
    [{"boundary_weight": 4.0}, {"instance_sep_weight": 3.0}, {"dice": 1.0}, {"ce": 0.5}],
)
def test_every_knob_turns(batch: tuple[HeadOutput, Targets], changes: dict[str, float]) -> None:
    before, after = (float(MaskLoss(loss_params(**item), EVEN)(*batch)["total"]) for item in ({}, changes))
    assert abs(before - after) > 1e-4


@pytest.mark.parametrize(
    ("first", "second"), [({"boundary_width": 1.0}, {"boundary_width": 6.0}), ({"near_px": 1.5}, {"near_px": 4.0})]
)
def test_every_width_turns(batch: tuple[HeadOutput, Targets], first: dict[str, float], second: dict[str, float]) -> None:
    weights = [
        float(MaskLoss(loss_params(boundary_weight=3.0, instance_sep_weight=3.0, **item), EVEN)(*batch)["mean_pixel_weight"])
        for item in (first, second)
    ]
    assert weights[1] > weights[0]


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


def test_class_weights_change_the_loss(batch: tuple[HeadOutput, Targets]) -> None:
    first, second = (float(MaskLoss(loss_params(), weights)(*batch)["ce"]) for weights in (EVEN, (0.2, 1.0, 5.0)))
    assert abs(first - second) > 1e-3


def test_only_the_total_has_a_gradient(batch: tuple[HeadOutput, Targets]) -> None:
    output, targets = batch
    logits = output.mask_logits.requires_grad_()
    parts = MaskLoss(loss_params(dice=1.0), EVEN)(HeadOutput(logits, {}), targets)
    assert {name for name, value in parts.items() if value.requires_grad} == {"total"}
    parts["total"].backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.abs().max() > 0


def test_no_rois() -> None:
    logits = torch.zeros(0, 3, 4, 5, requires_grad=True)
    parts = MaskLoss(loss_params(dice=1.0), EVEN)(HeadOutput(logits, {}), targets_of(torch.zeros(0, 4, 5, dtype=torch.int64)))
    parts["total"].backward()  # type: ignore[no-untyped-call]
    assert float(parts["total"].detach()) == 0


def test_half_precision_logits_are_summed_in_float32(batch: tuple[HeadOutput, Targets]) -> None:
    output, targets = batch
    rounded = output.mask_logits.bfloat16()
    loss = MaskLoss(loss_params(dice=1.0), EVEN)
    found = loss(HeadOutput(rounded, {}), targets)["total"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(HeadOutput(rounded.float(), {}), targets)["total"])


# --- class weights ---


@pytest.mark.parametrize(
    ("mode", "expected"), [("none", EVEN), ("freq", (0.5, 1.0, 1.5)), ("log", (0.8, 1.0, 1.2)), ("separation", (0.6, 1.1, 1.3))]
)
def test_class_weights_of_each_mode(mode: str, expected: tuple[float, float, float]) -> None:
    params = ClassWeightParams.parse({"mode": mode, "values": None}, "loss.class_weights")
    assert class_weights(params, STATISTICS) == expected


def test_manual_class_weights_need_no_statistics() -> None:
    params = ClassWeightParams.parse({"mode": "manual", "values": [0.0, 2.0, 3.5]}, "loss.class_weights")
    assert class_weights(params, {}) == (0.0, 2.0, 3.5)


@pytest.mark.parametrize(
    ("mode", "field"),
    [("freq", "recommended_class_weights"), ("log", "recommended_log_class_weights"), ("separation", "separation_aware_weights")],
)
def test_class_weights_that_the_statistics_lack(mode: str, field: str) -> None:
    params = ClassWeightParams.parse({"mode": mode, "values": None}, "loss.class_weights")
    with pytest.raises(ParamsError, match=f"mode is '{mode}', but data_analyze.json has no '{field}'; run `dvc repro analyze`"):
        class_weights(params, {name: value for name, value in STATISTICS.items() if name != field})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "manual", "values": None}, "'manual' needs three values"),
        ({"mode": "log", "values": [1.0, 1.0, 1.0]}, "any other mode needs null"),
        ({"mode": "manual", "values": [1.0, -0.1, 1.0]}, "weights are at least 0"),
        ({"mode": "manual", "values": [1.0, 1.0]}, r"loss\.class_weights\.class_weights|loss\.class_weights\.values"),
        ({"mode": "frequency", "values": None}, r"class_weights\.mode: value is 'frequency'"),
    ],
)
def test_class_weight_params_are_checked(values: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        loss_params(class_weights=values)


@pytest.mark.parametrize(
    "changes",
    [
        {"boundary_weight": 0.9},
        {"boundary_width": 0.0},
        {"near_px": 0.0},
        {"dice_smooth": 0.0},
        {"dice_classes": [3]},
        {"ce": -1.0},
    ],
)
def test_loss_params_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=rf"loss\.{next(iter(changes))}"):
        loss_params(**changes)
