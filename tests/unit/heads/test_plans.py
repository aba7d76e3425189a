"""Tests of `positional` and `dynamic_filter`: what they see, params and their faults."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from head_factory import MODELS, SPECS, fresh_head

from roiseg.errors import ParamsError
from roiseg.export.onnx import example_inputs
from roiseg.heads import parse_model
from roiseg.nn.roi_align import roi_align
from roiseg.params import overlay


def answer(family: str, changes: Mapping[str, Any]) -> list[Any]:
    params = parse_model(overlay(MODELS[family], changes))
    *maps, boxes = example_inputs([SPECS[name] for name in params.layers], (64, 96), 2, 5, seed=1)
    with torch.no_grad():
        output = fresh_head(params, SPECS)(dict(zip(params.layers, maps, strict=True)), boxes)
    assert output.aux == {}, "what only training looks at"
    found: list[Any] = output.mask_logits.tolist()
    return found


def test_each_kind_of_map_counts() -> None:
    answers = [answer("positional", {"maps": [name]}) for name in ("inside", "offset", "size", "relative")]
    assert all(one != two for place, one in enumerate(answers) for two in answers[:place])


@pytest.mark.parametrize("rois", [0, 5])
def test_the_whole_map_is_what_the_masks_are_cut_out_of(rois: int) -> None:
    """On the grid of the first layer, 8 x 12 cells of the network input."""
    params = parse_model({**MODELS["positional"], "full_map": True})
    head = fresh_head(params, SPECS)
    *maps, boxes = example_inputs([SPECS[name] for name in params.layers], (64, 96), 2, rois, seed=1)
    features = dict(zip(params.layers, maps, strict=True))
    plain, trained = head(features, boxes), head.train()(features, boxes)
    assert plain.aux == {}, "inference doesn't pay for it"
    assert torch.equal(plain.mask_logits, trained.mask_logits)
    whole = trained.aux["full_map"]
    assert whole.shape == (rois, 3, 8, 12)
    own = torch.cat([torch.arange(rois)[:, None], boxes[:, 1:]], dim=1)
    assert torch.equal(trained.mask_logits, roi_align(whole, own, params.mask_hw, 1))


def test_positional_sees_what_lies_outside_the_box() -> None:
    params = parse_model(MODELS["positional"])
    head = fresh_head(params, SPECS)
    layer_34, layer_3, _ = example_inputs([SPECS[name] for name in params.layers], (64, 96), 1, 1, seed=1)
    boxes = torch.tensor([[0.0, 0.0, 0.0, 0.4, 0.5]])
    outside = layer_34.clone()
    outside[:, :, :, 7:] += 3.0  # columns from 0.58 on
    before = head({"layer_34": layer_34, "layer_3": layer_3}, boxes).mask_logits
    assert (head({"layer_34": outside, "layer_3": layer_3}, boxes).mask_logits - before).abs().max() > 1e-3


def test_dynamic_filter_reads_the_image_for_its_weights_only() -> None:
    changes = {"layers": ["layer_34", "layer_3", "image"], "inputs": {"rgb": {"layers": ["layer_34"], "channels": 8}}}
    params = parse_model(overlay(MODELS["dynamic_filter"], changes))
    head = fresh_head(params, SPECS)
    *maps, boxes = example_inputs([SPECS[name] for name in params.layers], (64, 96), 2, 5, seed=1)
    features = dict(zip(params.layers, maps, strict=True))
    before = head(features, boxes).mask_logits
    assert (head({**features, "image": -features["image"]}, boxes).mask_logits - before).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("positional", {"maps": ["inside", "inside"]}, r"model: .*maps are inside, inside, expected each once"),
        ("positional", {"maps": ["outside"]}, r"model\.maps\.0: value is 'outside'"),
        ("positional", {"maps": []}, r"model\.maps: value is \(\)"),
        (
            "positional",
            {"blocks": {"norm": "group", "groups": 4}, "base_channels": 6},
            r"base_channels 6 isn't a multiple of blocks\.groups 4",
        ),
        ("dynamic_filter", {"filter_layers": 1}, r"model\.filter_layers: value is 1"),
        ("dynamic_filter", {"inputs": {"fusion": "single"}}, r"inputs\.fusion is single with 2 feature layers"),
        (
            "dynamic_filter",
            {"blocks": {"norm": "group", "groups": 3}},
            r"mid_channels 8 isn't a multiple of blocks\.groups 3",
        ),
    ],
)
def test_params_are_refused(family: str, changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse_model(overlay(MODELS[family], changes))
