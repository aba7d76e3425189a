"""Tests of each family of heads: sizes as published, what they are by default, params and their faults."""

from pathlib import Path
from typing import Any

import pytest
import torch
from head_factory import MODELS, fresh_head
from torch import nn

from roiseg.errors import ParamsError
from roiseg.heads import FAMILIES, build_head, parse_model
from roiseg.heads.roi_unet import ContextGrid
from roiseg.nn.outputs import HeadOutput
from roiseg.params import PARAMS_FILE, overlay, preset_path, read_yaml
from roiseg.types import FeatureSpec

SPECS = {
    "layer_34": FeatureSpec("layer_34", 6, (8.0, 8.0)),
    "layer_3": FeatureSpec("layer_3", 4, (4.0, 4.0)),
    "image": FeatureSpec("image", 3, (1.0, 1.0)),
    "teacher": FeatureSpec("teacher", 1, (2.0, 2.0)),
}


def test_roi_crop_as_in_the_seed_has_its_parameters() -> None:
    values = {"head": "roi_crop", "layers": ["a"], "roi_hw": [14, 14], "mask_hw": [56, 56], "sampling_ratio": 2}
    params = parse_model({**values, "mid_channels": 256, "blocks": 1, "groups": 32})
    head = build_head(params, {"a": FeatureSpec("a", 1024, (8.0, 8.0))})
    assert sum(item.numel() for item in head.parameters()) == 3_541_507


def test_roi_crop_parameters_by_hand() -> None:
    head = build_head(parse_model({**MODELS["roi_crop"], "blocks": 2}), SPECS)
    stem, block, refine = 10 * 8 * 9 + 8 + 16, 8 * 8 * 9 + 8 + 16, 8 * 8 * 9 + 8 + 8 * 3 + 3
    assert sum(item.numel() for item in head.parameters()) == stem + 2 * block + refine


def test_layers_are_concatenated_in_the_order_of_the_params() -> None:
    specs = {"a": FeatureSpec("a", 2, (8.0, 8.0)), "b": FeatureSpec("b", 3, (8.0, 8.0))}
    base = {**MODELS["roi_crop"], "roi_hw": [2, 3]}
    heads = [build_head(parse_model({**base, "layers": layers}), specs).eval() for layers in (["a", "b"], ["b", "a"])]
    weight = heads[0].state_dict()["stem.conv.weight"]
    heads[1].load_state_dict({**heads[0].state_dict(), "stem.conv.weight": torch.cat([weight[:, 2:], weight[:, :2]], dim=1)})
    features, boxes = {"a": torch.randn(1, 2, 5, 6), "b": torch.randn(1, 3, 5, 6)}, torch.tensor([[0.0, 0.1, 0.2, 0.8, 0.9]])
    first, second = (head(features, boxes).mask_logits for head in heads)
    torch.testing.assert_close(first, second)


# --- as they are unless something else is asked for ---


def of_defaults(family: str) -> dict[str, Any]:
    """Section `model` that says nothing but the layers; for families without defaults, as the file has it in which they stand."""
    layers = {"layers": MODELS[family]["layers"]}
    if family == "roi_unet":
        return {**read_yaml(Path(__file__).parents[3] / PARAMS_FILE)["model"], **layers}
    if family == "roi_crop":
        return {**overlay({}, read_yaml(preset_path(family)))["model"], **layers}
    return {"head": family, **layers}


def default_output(family: str, device: str) -> tuple[nn.Module, HeadOutput]:
    """The head, and what it says in training of two boxes."""
    with torch.device(device):
        head = build_head(parse_model(of_defaults(family)), SPECS)
        features = {
            name: torch.randn(1, spec.channels, int(320 / spec.stride_hw[0]), int(480 / spec.stride_hw[1]))
            for name, spec in SPECS.items()
        }
        output = head(features, torch.tensor([[0.0, 0.1, 0.2, 0.8, 0.9], [0.0, 0.4, 0.3, 0.5, 0.5]]))
    assert isinstance(output, HeadOutput)
    return head, output


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_with_its_defaults_answers(family: str) -> None:
    """Without values: shapes fit, and no value decides what is done."""
    _, output = default_output(family, "meta")
    assert output.mask_logits.shape == (2, 3, *((128, 96) if family == "rgb_hierarchical" else (56, 56)))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_with_its_defaults_learns(family: str) -> None:
    head, output = default_output(family, "cpu")
    assert torch.isfinite(output.mask_logits).all()
    summed = torch.stack([item.square().mean() for item in (output.mask_logits, *output.aux.values())]).sum()
    summed.backward()  # type: ignore[no-untyped-call]
    assert [name for name, item in head.named_parameters() if item.grad is None or not torch.isfinite(item.grad).all()] == []


# --- roi_unet's grid ---


def test_context_grid_grows_by_whole_cells() -> None:
    grid = ContextGrid((4, 8), 2, 1)
    assert grid.hw == (8, 12)
    boxes = torch.tensor([[1.0, 0.2, 0.4, 0.6, 0.6]])
    torch.testing.assert_close(grid.grow(boxes), torch.tensor([[1.0, 0.1, 0.3, 0.7, 0.7]]))
    assert torch.equal(ContextGrid((4, 8), 0, 1).grow(boxes), boxes)


def test_context_grid_coordinates_are_one_at_the_box() -> None:
    grid = ContextGrid((2, 4), 1, 1)
    x, y = grid.coordinates(torch.zeros(3, 5))[2]
    torch.testing.assert_close(x[0], torch.tensor([-1.25, -0.75, -0.25, 0.25, 0.75, 1.25]))
    torch.testing.assert_close(y[:, 0], torch.tensor([-1.5, -0.5, 0.5, 1.5]))
    assert (x == x[0]).all()
    assert (y == y[:, :1]).all()
    assert grid.coordinates(torch.zeros(0, 5)).shape == (0, 2, 4, 6)


def test_context_grid_crop_takes_the_rim_off() -> None:
    cells = torch.arange(24.0).view(1, 1, 4, 6)
    assert ContextGrid((2, 4), 1, 1).crop(cells).flatten().tolist() == [7, 8, 9, 10, 13, 14, 15, 16]


def test_roi_unet_is_told_where_a_cell_lies() -> None:
    head = fresh_head(parse_model(MODELS["roi_unet"]), SPECS)
    features = {"layer_34": torch.randn(1, 6, 8, 12), "layer_3": torch.randn(1, 4, 16, 24)}
    boxes = torch.tensor([[0.0, 0.1, 0.2, 0.8, 0.9]])
    before = head(features, boxes).mask_logits
    state = head.state_dict()
    state["fuse.0.conv.weight"][:, -2:] = 0  # the two channels of coordinates come last
    head.load_state_dict(state)
    assert (head(features, boxes).mask_logits - before).abs().max() > 1e-3


# --- params ---


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("roi_crop", {"mid_channels": 10, "groups": 4}, r"model: .*mid_channels 10 isn't a multiple of groups 4"),
        ("roi_unet", {"deep_channels": 13}, r"model: .*deep_channels 13 isn't a multiple of groups 2"),
        ("roi_unet", {"out_channels": 5}, r"out_channels 5 isn't a multiple"),
        ("roi_crop", {"mid_chanels": 8}, r"model\.mid_chanels: unknown key; did you mean 'mid_channels'"),
        ("roi_crop", {"context": 1}, r"model\.context: unknown key"),
        ("roi_crop", {"layers": []}, r"model\.layers: value is \(\)"),
        ("roi_crop", {"roi_hw": [0, 4]}, r"model\.roi_hw\.0: value is 0"),
        ("roi_crop", {"roi_hw": [4]}, r"model\.roi_hw"),
        ("roi_crop", {"mask_hw": [4, 4.5]}, r"model\.mask_hw\.1: value is 4\.5"),
        ("roi_crop", {"sampling_ratio": 9}, r"model\.sampling_ratio: value is 9"),
        ("roi_unet", {"dropout": 1.0}, r"model\.dropout: value is 1\.0"),
        ("roi_unet", {"context": -1}, r"model\.context: value is -1"),
    ],
)
def test_params_are_refused(family: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse_model({**MODELS[family], **changes})


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("roi_crp", r"model\.head: value is 'roi_crp'; did you mean 'roi_crop'"),
        ("mask_rcnn", r"model\.head: value is 'mask_rcnn'; known: baseline, class_specific, .*roi_crop, roi_unet"),
        (None, r"model\.head: value is None"),
    ],
)
def test_unknown_head_is_refused(head: str | None, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse_model({**MODELS["roi_crop"], "head": head})


def test_missing_key_is_named() -> None:
    with pytest.raises(ParamsError, match=r"model\.blocks: missing"):
        parse_model({key: value for key, value in MODELS["roi_crop"].items() if key != "blocks"})
