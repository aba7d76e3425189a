"""Each preset that the seeds name sets what their table says (spec 16.3), and nothing else."""

import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from roiseg.heads import FAMILIES, parse_model
from roiseg.params import HEAD_SECTIONS, PARAMS_FILE, overlay, preset_names, preset_path, read_yaml
from roiseg.schema import SECTIONS

SHIPPED = Path(__file__).parents[2] / PARAMS_FILE

COMPOSED: Mapping[str, Any] = {
    "mask_hw": [56, 56],
    "mid_channels": 256,
    "blocks": {"norm": "layernorm2d", "groups": None, "batch_share": None, "activation": "relu"},
    "inputs": {
        "roi_hw": [28, 28],
        "layer_roi_hw": {},
        "sampling_ratio": 2,
        "fusion": "adaptive",
        "smooth": False,
        "rgb": None,
    },
    **dict.fromkeys(("attention", "auxiliary", "refine", "relational", "cascade")),
}
HIERARCHY: Mapping[str, Any] = {**COMPOSED, "combine": "logprob"}
UNET: Mapping[str, Any] = {**HIERARCHY, "skip_gates": False}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("baseline", "multiscale", "variable_roi", "class_specific"), COMPOSED),
    "hierarchical": HIERARCHY,
    "hierarchical_unet_v1": {**UNET, "base_channels": 128},
    "hierarchical_unet_v2": {**UNET, "base_channels": 96, "depth": 3, "dropout": 0.1, "target_attention": False},
    "hierarchical_unet_v3": {**UNET, "base_channels": 96, "depth": 3, "target_base_channels": 64},
    "hierarchical_unet_v4": {**UNET, "base_channels": 128, "depth": 4, "target_base_channels": 96, "target_depth": 3},
}
"""Section `model` of each family as published (spec 9, 14.1), but for `head` and `layers`."""

THREE = ["layer_3", "layer_22", "layer_34"]
HIRES = {"inputs": {"layer_roi_hw": {"layer_3": [56, 56]}, "smooth": True}}
PROGRESSIVE = {"inputs": {"layer_roi_hw": {"layer_3": [56, 56], "layer_22": [42, 42]}, "smooth": True}}
CONCAT = {"inputs": {"fusion": "concat"}}
CASCADE = {"cascade": {"channels": 128, "share_features": True}}
HIER = {"bg": 2.0, "fg": 1.0, "target": 1.5, "consistency": 0.1, "dynamic": True, "clamp": [0.5, 3.0], "ema": 0.9}


def model(head: str, *parts: Mapping[str, Any], layers: list[str] = THREE) -> dict[str, Any]:
    found: dict[str, Any] = {"head": head, "layers": layers}
    for part in (DEFAULTS[head], *parts):
        found = overlay(found, part)
    return found


def rgb(*layers: str) -> dict[str, Any]:
    inputs = overlay(PROGRESSIVE, {"inputs": {"rgb": {"layers": list(layers), "channels": 64}}})
    return model("variable_roi", inputs, layers=[*THREE, "image"])


def distance(width: float = 5.0, boundary: float = 2.0, separation: float = 3.0) -> dict[str, Any]:
    return {"boundary_width": width, "boundary_weight": boundary, "instance_sep_weight": separation}


PLAIN = {"boundary_weight": 1.0, "instance_sep_weight": 1.0}
WEIGHTS = {"class_weights": {"mode": "manual", "values": [0.6, 1.5, 1.2], "cap": None}}
RGB_LOSS = {**distance(3.0, 1.5, 2.0), "focal_gamma": 2.0, **WEIGHTS}

TABLE: Mapping[str, Mapping[str, Any]] = {
    "baseline": {"model": model("baseline", {"inputs": {"fusion": "single"}}, layers=["layer_34"]), "loss": PLAIN},
    "multiscale": {"model": model("multiscale"), "loss": PLAIN},
    "multiscale_distance": {"model": model("multiscale"), "loss": distance()},
    "multiscale_cascade": {"model": model("multiscale", CASCADE), "loss": PLAIN},
    "full": {
        "model": model("multiscale", CASCADE),
        "loss": {
            **distance(),
            "adaptive": {"curve": "linear", "end_boundary_weight": 1.0, "end_instance_sep_weight": 3.0},
        },
    },
    "efficient": {
        "model": model("multiscale", {"inputs": {"fusion": "sum"}}, layers=["layer_5", "layer_34"]),
        "loss": distance(3.0, 1.5, 2.0),
    },
    "variable_roi_hires": {"model": model("variable_roi", HIRES), "loss": distance()},
    "variable_roi_progressive": {"model": model("variable_roi", PROGRESSIVE), "loss": distance()},
    "rgb_enhanced_lightweight": {"model": rgb("layer_34"), "loss": RGB_LOSS, "train": {"lr": 5e-4}},
    "rgb_enhanced_multi_layer": {"model": rgb(*THREE), "loss": RGB_LOSS, "train": {"lr": 5e-4, "images_per_batch": 2}},
    "hierarchical_segmentation": {
        "model": model("hierarchical", PROGRESSIVE),
        "loss": {**PLAIN, "hierarchical": HIER, "class_weights": {"mode": "log", "values": None, "cap": None}},
        "train": {"lr": 5e-4, "images_per_batch": 2},
    },
    "class_specific_decoder": {
        "model": model("class_specific", PROGRESSIVE),
        "loss": {**distance(3.0, 1.5, 2.0), "focal_gamma": 2.0},
        "train": {"lr": 5e-4, "images_per_batch": 2},
    },
    **{
        f"hierarchical_segmentation_unet{suffix}": {
            "model": model(family, PROGRESSIVE),
            "loss": {**PLAIN, "hierarchical": HIER},
            "train": {"images_per_batch": 2, "lr": lr, "clip_norm": clip, "precision": "32-true"},
        }
        for suffix, family, lr, clip in (
            ("", "hierarchical_unet_v1", 5e-4, 5.0),
            ("_v2", "hierarchical_unet_v2", 5e-4, 10.0),
            ("_v3", "hierarchical_unet_v3", 3e-4, 10.0),
            ("_v4", "hierarchical_unet_v4", 2e-4, 15.0),
        )
    },
    "warm_restarts_example": {
        "train": {
            "lr": 1e-3,
            "images_per_batch": 8,
            "epochs": 100,
            "scheduler": "cosine_restarts",
            "restart_epochs": 10,
            "restart_factor": 2,
        }
    },
    "hierarchical_unet_v2_fixed_weights": {
        "model": model("hierarchical_unet_v2", CONCAT),
        "loss": {**PLAIN, "hierarchical": {**HIER, "dynamic": False}},
        "train": {"lr": 5e-5, "warmup_epochs": 15.0, "images_per_batch": 4, "clip_norm": 10.0},
    },
    "hierarchical_unet_v2_external_concat_low_lr": {
        "model": model("hierarchical_unet_v2", CONCAT),
        "loss": {**PLAIN, "hierarchical": HIER},
        "train": {
            "lr": 1e-5,
            "images_per_batch": 2,
            "weight_decay": 1e-3,
            "scheduler": "cosine_restarts",
            "restart_epochs": 20,
            "early_stop": {"metric": "miou_fg_roi", "mode": "max", "patience": 15},
        },
    },
    "hierarchical_unet_v2_auxiliary": {
        "model": model(
            "hierarchical_unet_v2",
            CONCAT,
            {
                "auxiliary": {
                    "foreground": {"channels": 128},
                    **dict.fromkeys(("contour", "distance", "embedding")),
                    "correct_by_foreground": False,
                }
            },
        ),
        "loss": {
            **PLAIN,
            "hierarchical": HIER,
            "auxiliary": {"foreground": {"weight": 0.3, "pos_weight": 2.0}, "contour": None, "distance": None},
        },
        "train": {"lr": 5e-5, "images_per_batch": 2, "weight_decay": 1e-3, "warmup_epochs": 0.0},
    },
}
"""Spec 16.3's first table: preset -> section -> what it sets, with the whole of `model`."""


@functools.cache
def shipped() -> dict[str, Any]:
    return read_yaml(SHIPPED)


@functools.cache
def resolved(name: str) -> dict[str, Any]:
    """Every section that a head may have, parsed and written out."""
    values = overlay(shipped(), read_yaml(preset_path(name)))
    sections = {key: SECTIONS[key].parse(values[key], key) for key in HEAD_SECTIONS - {"model"}}
    return {key: json.loads(part.model_dump_json()) for key, part in {**sections, "model": parse_model(values["model"])}.items()}


@pytest.mark.parametrize("name", TABLE)
def test_a_preset_sets_what_the_table_says(name: str) -> None:
    expected = copy.deepcopy(resolved("default"))
    for section, values in TABLE[name].items():
        expected[section] = values if section == "model" else {**expected[section], **values}
    assert resolved(name) == expected


def test_no_two_presets_are_the_same() -> None:
    """In the sections of heads as they are parsed, and in the others as they are written."""
    found = {}
    for name in preset_names():
        values = overlay(shipped(), read_yaml(preset_path(name)))
        others = {key: item for key, item in values.items() if key not in HEAD_SECTIONS}
        found[name] = json.dumps({**others, **resolved(name)}, sort_keys=True)
    same = [(one, two) for one in found for two in found if one < two and found[one] == found[two]]
    assert same == []


@pytest.mark.parametrize("name", TABLE)
def test_a_preset_has_few_keys(name: str) -> None:
    lines = preset_path(name).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 20
    assert set(read_yaml(preset_path(name))) <= HEAD_SECTIONS


@pytest.mark.parametrize("family", DEFAULTS)
def test_the_shortest_model_is_the_published_one(family: str) -> None:
    """The defaults of a family stand in its params class; only head and layers must be said."""
    section = json.loads(parse_model({"head": family, "layers": ["layer_3", "layer_34"]}).model_dump_json())
    assert section == {"head": family, "layers": ["layer_3", "layer_34"], **DEFAULTS[family]}
    single = parse_model({"head": family, "layers": ["layer_3"]})
    assert json.loads(single.model_dump_json())["inputs"]["fusion"] == "single"
    assert set(FAMILIES[family][0].model_fields) == set(section)
