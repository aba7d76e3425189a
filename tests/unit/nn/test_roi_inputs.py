"""Tests of roiseg.nn.roi_inputs and roiseg.heads.inputs: what is read, from where, in which order."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from roiseg.errors import ParamsError
from roiseg.heads.inputs import InputsParams, build_inputs
from roiseg.nn.fusion import TopDown
from roiseg.nn.roi_align import roi_align
from roiseg.nn.roi_inputs import LayerReader, RgbEncoder, RoiInputs
from roiseg.nn.style import group_style
from roiseg.types import FeatureSpec

STYLE = group_style(1)
SPECS = [FeatureSpec("fine", 4, (4.0, 4.0)), FeatureSpec("middle", 5, (8.0, 8.0)), FeatureSpec("deep", 6, (8.0, 8.0))]
IMAGE = FeatureSpec("image", 3, (1.0, 1.0))
BOXES = torch.tensor([[0.0, 0.1, 0.2, 0.7, 0.9], [1.0, 0.3, 0.1, 0.9, 0.5], [0.0, 0.5, 0.5, 0.8, 0.7]])


def section(**changes: object) -> InputsParams:
    plain = {"roi_hw": [6, 8], "layer_roi_hw": {}, "sampling_ratio": 1, "fusion": "sum", "smooth": False, "rgb": None}
    return InputsParams.parse({**plain, **changes}, "model.inputs")


def features() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"fine": (4, 16, 24), "middle": (5, 8, 12), "deep": (6, 8, 12), "image": (3, 64, 96)}
    return {name: torch.rand(2, *size, generator=generator) for name, size in sizes.items()}


def inputs(specs: list[FeatureSpec], **changes: object) -> RoiInputs:
    torch.manual_seed(0)
    return build_inputs(section(**changes), specs, 8, STYLE)


@pytest.mark.parametrize("fusion", ["adaptive", "sum", "concat", "fpn"])
@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("grids", [{}, {"fine": [12, 16], "middle": [9, 12]}, {"deep": [4, 5], "fine": [13, 8]}])
def test_every_fusion_of_every_grid(fusion: str, smooth: bool, grids: dict[str, Any]) -> None:
    module = inputs(SPECS, fusion=fusion, smooth=smooth, layer_roi_hw=grids)
    found = module(features(), BOXES)
    assert found.shape == (3, 8, 6, 8)
    assert module(features(), BOXES[:0]).shape == (0, 8, 6, 8)
    found.square().sum().backward()
    assert [name for name, item in module.named_parameters() if item.grad is None or not item.grad.any()] == []
    for name in ("fine", "middle", "deep"):
        assert (module({**features(), name: -features()[name]}, BOXES) - found).abs().max() > 1e-3


def test_one_layer_is_its_reduction() -> None:
    module = inputs(SPECS[:1], fusion="single", sampling_ratio=2)
    reader = module.readers["fine"]
    assert isinstance(reader, LayerReader)
    torch.testing.assert_close(module(features(), BOXES), reader.reduce(roi_align(features()["fine"], BOXES, (6, 8), 2)))


def test_a_grid_of_its_own_is_where_the_layer_is_aligned() -> None:
    module = inputs(SPECS[:2], layer_roi_hw={"fine": [12, 16]})
    seen: list[torch.Size] = []
    for reader in module.readers.values():
        reader.reduce.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[2:]))  # type: ignore[union-attr]
    module(features(), BOXES)
    assert seen == [(12, 16), (6, 8)]


def test_pyramid_begins_with_the_coarsest_and_the_deeper_of_two_alike() -> None:
    module = inputs(SPECS, fusion="fpn")
    assert isinstance(module.top_down, TopDown)
    deep = module.readers["deep"]
    base = {name: values.clone() for name, values in features().items()}
    merged: list[list[Tensor]] = []
    module.top_down.register_forward_hook(lambda _, __, found: merged.append(found))
    module(base, BOXES)
    module({**base, "deep": -base["deep"]}, BOXES)
    module({**base, "fine": -base["fine"]}, BOXES)
    assert isinstance(deep, LayerReader)
    assert [torch.equal(merged[0][place], merged[1][place]) for place in range(3)] == [False, False, False]
    assert [torch.equal(merged[0][place], merged[2][place]) for place in range(3)] == [False, True, True]


# --- the image ---


def rgb_inputs(layers: list[str]) -> RoiInputs:
    return inputs([*SPECS, IMAGE], rgb={"layers": layers, "channels": 8})


@pytest.mark.parametrize("layers", [["deep"], ["fine", "deep"]])
def test_the_image_stands_beside_the_chosen_layers(layers: list[str]) -> None:
    module = rgb_inputs(layers)
    assert list(module.readers) == ["fine", "middle", "deep"]
    assert [name for name, reader in module.readers.items() if isinstance(reader, LayerReader) and reader.project] == layers
    found = module(features(), BOXES)
    found.square().sum().backward()
    assert [name for name, item in module.named_parameters() if item.grad is None or not item.grad.any()] == []
    other = {**features(), "image": 1 - features()["image"]}
    assert (module(other, BOXES) - found).abs().max() > 1e-3


def test_rgb_encoder_halves_the_image_once() -> None:
    encoder = RgbEncoder(8)
    assert encoder(torch.rand(2, 3, 10, 14)).shape == (2, 8, 5, 7)
    assert [part.out_channels for part in encoder.steps if isinstance(part, nn.Conv2d)] == [4, 4, 8, 8]


# --- params ---


@pytest.mark.parametrize(
    ("changes", "layers", "message"),
    [
        ({"layer_roi_hw": {"fin": [12, 16]}}, ["fine", "deep"], r"inputs\.layer_roi_hw: 'fin' isn't one .*did you mean 'fine'"),
        ({"layer_roi_hw": {"image": [12, 16]}}, ["fine", "deep"], r"inputs\.layer_roi_hw: 'image' isn't one of the feature layers"),
        ({"rgb": {"layers": ["dep"], "channels": 4}}, ["fine", "deep", "image"], r"inputs\.rgb\.layers: 'dep' isn't one"),
        (
            {"rgb": {"layers": ["deep"], "channels": 4}},
            ["fine", "deep"],
            r"inputs\.rgb is set and layers are .*; add image to layers",
        ),
        ({}, ["fine", "deep", "image"], r"inputs\.rgb is null .*take image out of layers or set inputs\.rgb"),
        ({"fusion": "single"}, ["fine", "deep"], r"inputs\.fusion is single with 2 feature layers, expected single for one"),
        ({"fusion": "fpn"}, ["fine"], r"inputs\.fusion is fpn with 1 feature layers"),
    ],
)
def test_what_does_not_fit_the_layers(changes: dict[str, Any], layers: list[str], message: str) -> None:
    (fault,) = section(**changes).faults(layers)
    assert re.search(message, fault)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion": "mean"}, r"model\.inputs\.fusion: value is 'mean'"),
        ({"layer_roi_hw": {"fine": [0, 4]}}, r"model\.inputs\.layer_roi_hw\.fine\.0: value is 0"),
        ({"rgb": {"layers": ["deep"], "channels": 5}}, r"model\.inputs\.rgb\.channels: value is 5"),
        ({"rgb": {"layers": [], "channels": 4}}, r"model\.inputs\.rgb\.layers: value is \(\)"),
        ({"sampling_ratio": 0}, r"model\.inputs\.sampling_ratio: value is 0"),
    ],
)
def test_params_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        section(**changes)
