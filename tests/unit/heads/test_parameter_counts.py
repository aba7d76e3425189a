"""The sizes of the as-original configurations equal the published, verified ones; built without memory for their weights."""

from typing import Any

import pytest
import torch
from head_factory import COMPOSED
from torch import nn

from roiseg.heads import build_head, parse_model
from roiseg.heads.composed import ComposedHead
from roiseg.nn.cascade import Cascade
from roiseg.params import overlay, preset_path, read_yaml
from roiseg.types import FeatureSpec

SPECS = {
    name: FeatureSpec(name, channels, (stride, stride))
    for name, channels, stride in (
        ("layer_3", 256, 4.0),
        ("layer_22", 512, 8.0),
        ("layer_5", 512, 8.0),
        ("layer_34", 1024, 8.0),
        ("image", 3, 1.0),
    )
}
THREE = ["layer_3", "layer_22", "layer_34"]
HIRES = {"layer_roi_hw": {"layer_3": [56, 56]}, "smooth": True}
PROGRESSIVE = {"layer_roi_hw": {"layer_3": [56, 56], "layer_22": [42, 42]}, "smooth": True}
HIERARCHY = {"combine": "logprob", "skip_gates": False}


def seed_head(family: str, inputs: dict[str, Any] | None = None, **changes: Any) -> ComposedHead:  # noqa: ANN401
    """A head of the seed's widths and grids, on the meta device."""
    grids = {"roi_hw": [28, 28], "layer_roi_hw": {}, "sampling_ratio": 2, "fusion": "adaptive", "smooth": False, "rgb": None}
    values = {**COMPOSED, "head": family, "layers": THREE, "mask_hw": [56, 56], "mid_channels": 256, "inputs": grids}
    with torch.device("meta"):
        head = build_head(parse_model({**values, "inputs": {**grids, **(inputs or {})}, **changes}), SPECS)
    assert isinstance(head, ComposedHead)
    return head


def count(*modules: nn.Module | None) -> int:
    return sum(item.numel() for module in modules if module is not None for item in module.parameters())


@pytest.mark.parametrize(
    ("family", "inputs", "changes", "expected"),
    [
        ("baseline", {"fusion": "single"}, {"layers": ["layer_34"]}, 5_791_555),
        ("multiscale", {}, {}, 4_620_934),
        ("multiscale", {"fusion": "concat"}, {}, 4_818_307),
        ("multiscale", {"fusion": "sum"}, {}, 4_620_931),
        ("multiscale", {"fusion": "sum"}, {"layers": ["layer_5", "layer_34"]}, 4_554_627),
        ("variable_roi", HIRES, {}, 7_516_166),
        ("variable_roi", PROGRESSIVE, {}, 9_877_766),
        (
            "variable_roi",
            {**PROGRESSIVE, "rgb": {"layers": ["layer_34"], "channels": 64}},
            {"layers": [*THREE, "image"]},
            9_964_006,
        ),
        ("variable_roi", {**PROGRESSIVE, "rgb": {"layers": THREE, "channels": 64}}, {"layers": [*THREE, "image"]}, 10_005_350),
        ("coarse", {}, {"cascade": {"channels": 128}}, 4_891_020),
    ],
)
def test_whole_heads(family: str, inputs: dict[str, Any], changes: dict[str, Any], expected: int) -> None:
    assert count(seed_head(family, inputs, **changes)) == expected


@pytest.mark.parametrize(
    ("family", "changes", "expected"),
    [
        ("coarse", {}, 1_675_011),
        ("coarse", {"cascade": {"channels": 128}}, 4_429_961),
        ("hierarchical", {"combine": "logprob"}, 6_186_948),
        ("hierarchical_unet_v1", {**HIERARCHY, "base_channels": 128}, 12_345_062),
        (
            "hierarchical_unet_v2",
            {**HIERARCHY, "base_channels": 96, "depth": 3, "dropout": 0.1, "target_attention": False},
            18_671_286,
        ),
        (
            "hierarchical_unet_v2",
            {**HIERARCHY, "base_channels": 96, "depth": 3, "dropout": 0.1, "target_attention": True},
            18_671_286 + 4_194,
        ),
        ("hierarchical_unet_v3", {**HIERARCHY, "base_channels": 96, "depth": 3, "target_base_channels": 64}, 19_049_753),
        (
            "hierarchical_unet_v4",
            {**HIERARCHY, "base_channels": 128, "depth": 4, "target_base_channels": 96, "target_depth": 3},
            117_020_395,
        ),
        ("class_specific", {}, 5_516_381),
    ],
)
def test_heads_behind_their_inputs(family: str, changes: dict[str, Any], expected: int) -> None:
    head = seed_head(family, **changes)
    assert count(head) - count(head.inputs) == expected


def test_parts_of_a_head() -> None:
    branches: dict[str, Any] = {"foreground": {"channels": 128}, "contour": {"channels": 64}, "distance": {"channels": 128}}
    auxiliary = {**branches, "embedding": None, "correct_by_foreground": False}
    head = seed_head(
        "class_specific",
        PROGRESSIVE,
        auxiliary=auxiliary,
        refine={"upsampling": "progressive", "boundary": True},
        cascade={"channels": 128},
    )
    assert count(head.inputs) == 5_775_619
    assert isinstance(head.trunk, nn.Sequential)
    assert count(head.decoder, *head.trunk[3:]) == 4_219_866
    assert {name: count(branch) for name, branch in head.auxiliary.items()} == {
        "foreground": 369_281,
        "contour": 184_769,
        # One less than published: the original's threshold made a mask that nothing read.
        "distance": 591_106 - 1,
    }
    assert count(head.upsampling) == 1_025_923
    assert count(head.boundary) == 10_372
    assert isinstance(head.cascade, Cascade)
    assert [count(stage) for stage in head.cascade.stages] == [1_038_339, 1_716_611]
    assert count(seed_head("coarse", refine={"upsampling": "subpixel", "boundary": False}).upsampling) == 27_660


def test_stages_with_features_of_their_own() -> None:
    """Two trunks more of the first stage's kind: 1x1 convolution and residual block, each with norms and biases."""
    shared, own = (
        count(seed_head("coarse", cascade={"channels": 128, "share_features": answer}).cascade) for answer in (True, False)
    )
    trunk = (256 * 256 + 256 + 2 * 256) + 2 * (9 * 256 * 256 + 256 + 2 * 256)
    assert shared == 1_038_339 + 1_716_611
    assert own - shared == 2 * trunk


def test_rgb_encoder() -> None:
    head = seed_head("coarse", {"rgb": {"layers": ["layer_34"], "channels": 64}}, layers=[*THREE, "image"])
    assert isinstance(head.inputs.rgb, nn.Module)
    assert count(head.inputs.rgb) == 65_568


FUSED = 5_775_619
"""Inputs of three layers on grids of 56, 42 and 28."""

CONCAT = (256 + 512 + 1024 + 3 * 256) * 256 + 4 * 256 + 2 * 4 * 256
"""Inputs of three layers on one grid, joined: four 1x1 convolutions and their norms."""

PRESETS = {
    "baseline": 5_791_555,
    "multiscale": 4_620_934,
    "multiscale_cascade": 4_620_934 + 1_038_339 + 1_716_611,
    "multiscale_distance": 4_620_934,
    "full": 4_620_934 + 1_038_339 + 1_716_611,
    "efficient": 4_554_627,
    "variable_roi_hires": 7_516_166,
    "variable_roi_progressive": 9_877_766,
    "rgb_enhanced_lightweight": 9_964_006,
    "rgb_enhanced_multi_layer": 10_005_350,
    "hierarchical_segmentation": FUSED + 6_186_948,
    "hierarchical_segmentation_unet": FUSED + 12_345_062,
    "hierarchical_segmentation_unet_v2": FUSED + 18_671_286,
    "hierarchical_segmentation_unet_v3": FUSED + 19_049_753,
    "hierarchical_segmentation_unet_v4": FUSED + 117_020_395,
    "class_specific_decoder": FUSED + 5_516_381,
    **dict.fromkeys(("hierarchical_unet_v2_fixed_weights", "hierarchical_unet_v2_external_concat_low_lr"), CONCAT + 18_671_286),
    "hierarchical_unet_v2_auxiliary": CONCAT + 18_671_286 + 369_281,
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_published_sizes(name: str) -> None:
    with torch.device("meta"):
        head = build_head(parse_model(overlay({}, read_yaml(preset_path(name)))["model"]), SPECS)
    assert count(head) == PRESETS[name]
