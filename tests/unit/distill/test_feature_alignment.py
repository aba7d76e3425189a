"""Tests of roiseg.distill.features: pairs of maps on their grids, and each of the options."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from roiseg.distill.adapter import Adapter
from roiseg.distill.feature_loss import attention
from roiseg.distill.features import FeatureAlignment, FeatureParams, check_features
from roiseg.distill.loss import DistillLossParams
from roiseg.distill.projection import Projection
from roiseg.errors import ParamsError, TrainingError
from roiseg.types import FeatureSpec

SEED: dict[str, Any] = {
    "layers": {"deep": 3},
    "hidden": 8,
    "form": "mse",
    "clamp": None,
    "choose": False,
    "attention": False,
    "adapt": False,
}
TWO = {"deep": 3, "flat": 2}
SPECS = [FeatureSpec("deep", 6, (8.0, 8.0)), FeatureSpec("flat", 4, (4.0, 4.0)), FeatureSpec("image", 3, (1.0, 1.0))]
CHANNELS = {1: 2, 2: 3, 3: 5, 4: 7, 5: 9}
LOSS: dict[str, Any] = {"kl": 1.0, "mse": 0.5, "bce": 0.5, "dice": 1.0, "feature": 0.5, "pos_weight": 1.0}


def parse(**changes: object) -> FeatureParams:
    return FeatureParams.parse(SEED | changes, "distill.features")


def made(**changes: object) -> FeatureAlignment:
    torch.manual_seed(0)
    return FeatureAlignment(parse(**changes), SPECS, CHANNELS)


def drawn(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def taps(images: int = 2) -> dict[int, Tensor]:
    return {number: drawn(images, CHANNELS[number], hw[0], hw[1], seed=number) for number, hw in ((2, (8, 12)), (3, (4, 6)))}


def maps(images: int = 2) -> dict[str, Tensor]:
    return {"deep": drawn(images, 6, 4, 6, seed=11) + 1, "flat": 0.01 * drawn(images, 4, 8, 12, seed=12)}


def numbers(found: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in found.items()}


def test_seed_is_the_plain_error_of_the_projected_map() -> None:
    alignment = made()
    found = alignment(taps(), maps())
    assert set(found) == {"feature", "feature_deep"}
    torch.testing.assert_close(found["feature"], F.mse_loss(alignment.projections["deep"](taps()[3]), maps()["deep"]))
    torch.testing.assert_close(found["feature"], found["feature_deep"])
    assert alignment.taps == (3,)


def test_layers_at_their_own_grids() -> None:
    """Each with a projection of its own; the mean of the two."""
    alignment = made(layers=TWO)
    assert alignment.taps == (2, 3)
    found = alignment(taps(), maps())
    for name, tap in TWO.items():
        torch.testing.assert_close(found[f"feature_{name}"], F.mse_loss(alignment.projections[name](taps()[tap]), maps()[name]))
    torch.testing.assert_close(found["feature"], (found["feature_deep"] + found["feature_flat"]) / 2)


@pytest.mark.parametrize(("layer", "tap"), [("flat", 3), ("deep", 2)])
def test_the_coarser_grid_counts(layer: str, tap: int) -> None:
    """Whichever side it is: the finer one is averaged over areas."""
    alignment = made(layers={layer: tap})
    small = {name: F.adaptive_avg_pool2d(value, (4, 6)) for name, value in maps().items()}
    expected = F.mse_loss(alignment.projections[layer](F.adaptive_avg_pool2d(taps()[tap], (4, 6))), small[layer])
    torch.testing.assert_close(alignment(taps(), maps())["feature"], expected)


def test_cosine() -> None:
    alignment = made(form="cosine")
    expected = 1 - F.cosine_similarity(alignment.projections["deep"](taps()[3]), maps()["deep"], dim=1).mean()
    torch.testing.assert_close(alignment(taps(), maps())["feature"], expected)


def test_clamp() -> None:
    plain, far = made(clamp=[0.0, 10.0]), {"deep": maps()["deep"] * 1e4}
    assert float(plain(taps(), far)["feature"].detach()) == 10
    torch.testing.assert_close(plain(taps(), maps())["feature"], made()(taps(), maps())["feature"])


def test_attention_weighs_cells_by_the_strength_of_the_detector() -> None:
    alignment = made(attention=True)
    truth = maps()["deep"]
    errors = (alignment.projections["deep"](taps()[3]) - truth).square().mean(dim=1)
    strength = truth.square().mean(dim=1)
    expected = (errors * strength / strength.mean(dim=(1, 2), keepdim=True)).mean()
    torch.testing.assert_close(alignment(taps(), maps())["feature"], expected)
    torch.testing.assert_close((errors * attention(truth)).mean(), expected)


def test_choice_begins_even_and_each_layer_counts_by_its_own_variance() -> None:
    """A layer of small numbers is no easier than one of large ones."""
    alignment = made(layers=TWO, choose=True)
    first = alignment(taps(), maps())
    assert float(first["weight_feature_deep"].detach()) == float(first["weight_feature_flat"].detach()) == 0.5
    truth = maps()["flat"]
    spread = (truth - truth.mean(dim=(0, 2, 3), keepdim=True)).square().mean().clamp(min=1e-4)
    torch.testing.assert_close(
        first["feature_flat"], F.mse_loss(alignment.projections["flat"](taps()[2]), truth) / spread, rtol=1e-4, atol=0
    )
    torch.testing.assert_close(first["feature"], (first["feature_deep"] + first["feature_flat"]) / 2)


def test_choice_is_learnt_and_keeps_its_sum() -> None:
    """A map that follows the student's wins over one of noise, and takes no more than all."""
    alignment = made(layers=TWO, choose=True)
    assert alignment.choice is not None
    followed = alignment.projections["flat"].eval()(taps()[2]).detach() * 1.1
    alignment.eval()
    optimizer = torch.optim.SGD([alignment.choice], lr=1.0)
    for _ in range(20):
        optimizer.zero_grad()
        found = alignment(taps(), maps() | {"flat": followed})
        found["feature"].backward()
        optimizer.step()
    weights = numbers(found)
    assert weights["weight_feature_flat"] > 0.8
    assert weights["weight_feature_flat"] + weights["weight_feature_deep"] == pytest.approx(1)


def test_adaptation_compares_in_standard_deviations() -> None:
    """At first the adapter changes nothing but mean and scale, so what the map is multiplied by is of no meaning."""
    first, second = (made(adapt=True)(taps(), {"deep": maps()["deep"] * factor})["feature"] for factor in (1.0, 100.0))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=0)


def test_adaptation_gains_nothing_by_shrinking() -> None:
    """A student that knows the means alone is 1 away, whatever the adapter has learnt."""
    alignment = made(adapt=True)
    projection, adapter = alignment.projections["deep"], alignment.adapters["deep"]
    assert isinstance(projection, Projection)
    assert isinstance(adapter, Adapter)
    for weight in projection.project.parameters():
        torch.nn.init.zeros_(weight)
    for weight in adapter.change.parameters():
        torch.nn.init.normal_(weight, std=3.0)
    adapted = adapter(maps()["deep"])
    assert projection.project.bias is not None
    assert float(alignment(taps(), maps())["feature"].detach()) >= 1 - 1e-5
    with torch.no_grad():
        projection.project.bias.copy_(adapted.mean(dim=(0, 2, 3)))
    assert float(alignment(taps(), maps())["feature"].detach()) == pytest.approx(1, abs=1e-3)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"form": "cosine", "attention": True, "adapt": True, "choose": True, "layers": TWO},
    {"form": "mse", "attention": True, "adapt": True, "choose": True, "layers": TWO, "clamp": [0.0, 10.0]},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_all_that_learns_is_reached_and_the_detector_is_not(options: dict[str, Any]) -> None:
    alignment, student, truth = made(**options), taps(), maps()
    for value in [*student.values(), *truth.values()]:
        value.requires_grad_()
    alignment(student, truth)["feature"].backward()
    without = [name for name, weight in alignment.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()]
    assert not without
    assert all(student[tap].grad is not None for tap in alignment.taps)
    assert all(value.grad is None for value in truth.values())


@pytest.mark.parametrize("options", OPTIONS)
def test_alignment_is_learnt(options: dict[str, Any]) -> None:
    alignment = made(hidden=64, **options)
    optimizer = torch.optim.Adam(alignment.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = alignment(taps(), maps())["feature"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("options", OPTIONS)
def test_no_images(options: dict[str, Any]) -> None:
    alignment = made(**options)
    before = {name: value.clone() for name, value in alignment.state_dict().items()}
    loss = alignment(taps(0), maps(0))["feature"]
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(value.equal(before[name]) for name, value in alignment.state_dict().items())


def test_maps_of_zeros_as_in_the_rehearsal() -> None:
    for options in OPTIONS:
        found = made(**options)(taps(), {name: torch.zeros_like(value) for name, value in maps().items()})
        assert found["feature"].isfinite()


def test_half_precision() -> None:
    alignment = made(layers=TWO, adapt=True, choose=True)
    plain = float(alignment(taps(), maps())["feature"].detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = alignment(taps(), maps())["feature"]
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(plain, rel=0.05)


def test_a_layer_that_is_not_stored() -> None:
    message = (
        r"distill\.features\.layers, 'deeep': the store has no such layer; did you mean 'deep'\?\nstored are .* extractor\.layers"
    )
    with pytest.raises(ParamsError, match=message):
        made(layers={"deeep": 3})


def test_a_map_that_the_student_lacks() -> None:
    with pytest.raises(ParamsError, match=r"distill\.features\.layers, 'deep': the student has no map 4; known: 1, 2"):
        FeatureAlignment(parse(layers={"deep": 4}), SPECS, {1: 2, 2: 3})


def test_maps_that_are_missing_in_a_step() -> None:
    with pytest.raises(TrainingError, match=r"layer 'deep' of the store, map 3 of the student missing; expected all .*`taps`"):
        made()({}, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layers": {"deep": 0, "flat": 6}},
            r"layers: value is .*deep at tap 0, flat at tap 6; expected taps 1 to 5, .*2, 4, 8, 16 and",
        ),
        ({"layers": {}}, r"distill\.features\.layers"),
        (
            {"clamp": [10.0, 0.0]},
            r"clamp: value is .*expected null, or two numbers from 0 up, the lower one first, such as \[0, 10\]",
        ),
        ({"form": "l1"}, r"distill\.features\.form: value is 'l1'; input should be 'mse' or 'cosine'"),
        ({"hidden": 0}, r"distill\.features\.hidden: value is 0"),
    ],
)
def test_params_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse(**changes)


def test_coefficient_and_features_go_together() -> None:
    loss = DistillLossParams.parse(LOSS, "distill.loss")
    check_features(loss, parse())
    check_features(loss.model_copy(update={"feature": 0.0}), None)
    with pytest.raises(
        ParamsError, match=r"distill\.loss\.feature is 0\.5 and distill\.features is null; expected a coefficient above"
    ):
        check_features(loss, None)
    with pytest.raises(ParamsError, match=r"distill\.loss\.feature is 0\.0 and distill\.features is set; .* or 0 and null"):
        check_features(loss.model_copy(update={"feature": 0.0}), parse())
