"""Tests of roiseg.train.optimizer: which weights are treated how."""

import pytest
import torch
from torch import nn
from trainer_factory import TRAIN

from roiseg.errors import ParamsError, TrainingError
from roiseg.train.optimizer import make_optimizer, parameter_groups
from roiseg.train.params import TrainParams


def head() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)))


def params(**changes: object) -> TrainParams:
    return TrainParams.parse({**TRAIN, **changes}, "train")


def test_factors_by_the_longest_beginning() -> None:
    model = head()
    groups = parameter_groups(model, 0.1, {"2": 0.5, "2.1": 0.0625})
    names = {id(weight): name for name, weight in model.named_parameters()}
    found = [(group["factor"], group["weight_decay"], [names[id(weight)] for weight in group["params"]]) for group in groups]
    assert found == [
        (1.0, 0.1, ["0.weight"]),
        (1.0, 0.0, ["0.bias", "1.weight", "1.bias"]),
        (0.5, 0.1, ["2.0.weight"]),
        (0.5, 0.0, ["2.0.bias"]),
        (0.0625, 0.1, ["2.1.weight"]),
        (0.0625, 0.0, ["2.1.bias"]),
    ]


def test_a_beginning_that_no_weight_has() -> None:
    with pytest.raises(TrainingError, match=r"train\.lr_factors: no weight of the model is called 'stem'\.\.\.; known: 0, 1, 2"):
        parameter_groups(head(), 0.1, {"stem": 0.5})


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_optimizers(name: str, kind: type[torch.optim.Optimizer]) -> None:
    made = make_optimizer(head(), params(optimizer=name, momentum=0.8, weight_decay=0.3))
    assert type(made) is kind
    assert [group["weight_decay"] for group in made.param_groups] == [0.3, 0.0]
    if name == "sgd":
        assert all(group["momentum"] == 0.8 and group["nesterov"] for group in made.param_groups)


def test_sgd_without_momentum() -> None:
    assert not make_optimizer(head(), params(optimizer="sgd", momentum=0.0)).param_groups[0]["nesterov"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "lion"}, r"train\.optimizer: value is 'lion'; input should be 'adamw', 'adam' or 'sgd'"),
        ({"scheduler": "linear"}, r"train\.scheduler: value is 'linear'; input should be 'cosine', 'cosine_restarts', 'step'"),
        ({"lr_factors": {"stem": 0.0}}, r"train\.lr_factors\.stem"),
        ({"early_stop": {"metric": "x", "mode": "most", "patience": 1}}, r"train\.early_stop\.mode"),
        ({"keep_checkpoints": -1}, r"train\.keep_checkpoints"),
    ],
)
def test_params_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        params(**changes)
