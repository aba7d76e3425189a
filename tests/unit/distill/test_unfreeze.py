"""Tests of roiseg.distill.unfreeze: the guide's table, stages, and an optimiser that keeps what it knows."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from roiseg.distill.unfreeze import (
    BLOCK_NAMES,
    ENCODER,
    PARTS,
    LearningPlan,
    StagedParams,
    UnfreezeParams,
    blocks_open,
    joining_groups,
    set_learning,
)
from roiseg.errors import ParamsError, TrainingError

GUIDE = UnfreezeParams(start=10, every=5, lr_scale=0.1)
STAGED = StagedParams(encoder_only_epochs=3, encoder_lr_scale=1.0, full_lr_scale=0.5)


def net() -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)) for name in PARTS})


def parts_of(module: nn.ModuleDict) -> dict[str, list[nn.Parameter]]:
    return {name: list(part.parameters()) for name, part in module.items()}


def learning(module: nn.ModuleDict) -> set[str]:
    """Parts of which all weights want a gradient; none has some that do and some that don't."""
    wanted = {name: {weight.requires_grad for weight in part.parameters()} for name, part in module.items()}
    assert all(len(kinds) == 1 for kinds in wanted.values())
    return {name for name, kinds in wanted.items() if kinds == {True}}


def test_table_of_the_guide() -> None:
    """Ten epochs of the decoder alone, then a block each five; all seven from the 41st (spec 13.3)."""
    found = [blocks_open(GUIDE, epoch) for epoch in range(1, 51)]
    assert found == [0] * 10 + [1] * 5 + [2] * 5 + [3] * 5 + [4] * 5 + [5] * 5 + [6] * 5 + [7] * 10


def test_preset_and_single_epochs() -> None:
    quick = UnfreezeParams(start=0, every=1, lr_scale=0.3)
    assert [blocks_open(quick, epoch) for epoch in range(1, 10)] == [1, 2, 3, 4, 5, 6, 7, 7, 7]
    assert blocks_open(UnfreezeParams(start=5, every=3, lr_scale=0.3), 1) == 0


def test_deepest_block_first_and_never_the_stem() -> None:
    plan = LearningPlan(freeze_encoder=True, unfreeze=GUIDE)
    assert plan.groups_at(10) == {"decoder": 1.0}
    assert plan.groups_at(16) == {"decoder": 1.0, "block_1": 0.1, "block_2": 0.1}
    assert plan.groups_at(500) == {"decoder": 1.0, **dict.fromkeys(BLOCK_NAMES, 0.1)}
    assert [plan.joining(epoch) for epoch in (1, 10, 11, 12, 16)] == [{}, {}, {"block_1": 0.1}, {}, {"block_2": 0.1}]
    assert plan.rate_scale(1) == plan.rate_scale(500) == 1


def test_stages() -> None:
    plan = LearningPlan(freeze_encoder=False, staged=STAGED)
    assert plan.groups_at(1) == plan.groups_at(3) == dict.fromkeys(ENCODER, 1.0)
    assert plan.groups_at(4) == dict.fromkeys(PARTS, 1.0)
    assert [plan.joining(epoch) for epoch in (3, 4, 5)] == [{}, {"decoder": 1.0}, {}]
    assert [plan.rate_scale(epoch) for epoch in range(1, 6)] == [1, 1, 1, 0.5, 0.5]


@pytest.mark.parametrize(("frozen", "expected"), [(True, {"decoder"}), (False, set(PARTS))])
def test_without_a_plan(frozen: bool, expected: set[str]) -> None:
    plan = LearningPlan(freeze_encoder=frozen)
    assert set(plan.groups_at(1)) == set(plan.groups_at(99)) == expected
    assert plan.joining(50) == {}
    assert plan.rate_scale(50) == 1


@pytest.mark.parametrize("plan", [LearningPlan(True, unfreeze=GUIDE), LearningPlan(False, staged=STAGED), LearningPlan(True)])
def test_parts_never_leave_nor_change_their_factor(plan: LearningPlan) -> None:
    seen: dict[str, float] = plan.groups_at(1)
    for epoch in range(2, 60):
        joining = plan.joining(epoch)
        assert not set(joining) & set(seen)
        seen |= joining
        assert plan.groups_at(epoch) == seen


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"freeze_encoder": True, "unfreeze": GUIDE, "staged": STAGED},
            "distill.unfreeze and distill.staged are both set.*to null",
        ),
        (
            {"freeze_encoder": False, "unfreeze": GUIDE},
            "freeze_encoder is false.*nothing to unfreeze; set freeze_encoder to true, or",
        ),
        (
            {"freeze_encoder": True, "staged": STAGED},
            "freeze_encoder is true.*not at all; set freeze_encoder to false, or distill.st",
        ),
    ],
)
def test_plans_that_contradict_each_other(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        LearningPlan(**values)


def test_params_are_checked() -> None:
    with pytest.raises(ParamsError, match=r"distill\.unfreeze\.every: value is 0"):
        UnfreezeParams.parse({"start": 3, "every": 0, "lr_scale": 0.1}, "distill.unfreeze")
    with pytest.raises(ParamsError, match=r"distill\.staged\.encoder_only_epochs: value is 0"):
        StagedParams.parse({"encoder_only_epochs": 0, "encoder_lr_scale": 1.0, "full_lr_scale": 0.5}, "distill.staged")


def test_weights_learn_as_planned() -> None:
    module, plan = net(), LearningPlan(freeze_encoder=True, unfreeze=GUIDE)
    for epoch in (1, 16, 10):
        set_learning(plan, parts_of(module), epoch)
        assert learning(module) == set(plan.groups_at(epoch))


def test_groups_that_join() -> None:
    module, plan = net(), LearningPlan(freeze_encoder=True, unfreeze=GUIDE)
    parts = parts_of(module)
    set_learning(plan, parts, 1)
    assert joining_groups(plan, parts, 1, 0.01) == joining_groups(plan, parts, 12, 0.01) == []
    assert learning(module) == {"decoder"}
    matrices, others = joining_groups(plan, parts, 11, 0.01)
    weights = dict(module["block_1"].named_parameters())
    assert [id(weight) for weight in matrices["params"]] == [id(weights["0.weight"])]
    assert [id(weight) for weight in others["params"]] == [id(weights[name]) for name in ("0.bias", "1.weight", "1.bias")]
    assert (matrices["factor"], matrices["weight_decay"]) == (0.1, 0.01)
    assert (others["factor"], others["weight_decay"]) == (0.1, 0.0)
    assert learning(module) == {"decoder", "block_1"}


def test_moments_survive() -> None:
    """Adam's state of the decoder is the same with and without a block that joined; the block begins with none."""
    module, plan = net(), LearningPlan(freeze_encoder=True, unfreeze=UnfreezeParams(start=1, every=1, lr_scale=0.1))
    parts = parts_of(module)
    set_learning(plan, parts, 1)
    optimizer = torch.optim.AdamW([{"params": parts["decoder"], "factor": 1.0}], lr=0.1)
    x = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    (module["block_1"](x).square().sum() + module["decoder"](x).square().sum()).backward()
    optimizer.step()
    before = {key: value.clone() for key, value in optimizer.state[parts["decoder"][0]].items()}
    assert parts["block_1"][0].grad is None
    for group in joining_groups(plan, parts, 2, 0.01):
        optimizer.add_param_group(group)
    after = optimizer.state[parts["decoder"][0]]
    assert all(after[key].equal(value) for key, value in before.items())
    assert parts["block_1"][0] not in optimizer.state
    module["block_1"](x).square().sum().backward()
    optimizer.step()
    assert parts["block_1"][0] in optimizer.state


def test_other_parts_are_refused() -> None:
    parts = parts_of(net())
    del parts["stem"]
    with pytest.raises(
        TrainingError, match=r"parts of a net: block_1, .*decoder; expected block_1, .*stem: an EfficientNet's encoder"
    ):
        set_learning(LearningPlan(freeze_encoder=True), parts, 1)
