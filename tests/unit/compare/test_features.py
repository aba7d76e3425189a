"""Tests of roiseg.compare.features: each is off in a plain run, and on by the keys that it names."""

from types import NoneType
from typing import Any, get_args

import pytest
from knobs import nested

from roiseg.compare.features import FEATURES, Feature
from roiseg.compare.lock import flatten
from roiseg.heads.composed import AuxiliaryParams as Branches
from roiseg.heads.composed import ComposedParams, RefineParams
from roiseg.losses import LossParams
from roiseg.losses.auxiliary import AuxiliaryParams
from roiseg.params import PARAMS_FILE, Section, overlay, read_yaml, with_preset

PLAIN: dict[str, Any] = {
    "model": {"layers": ["layer_34"]},
    "loss": {"non_target": "background", "ce": 0.0, "boundary_weight": 1.0, "class_weights": {"mode": "none"}},
}

ON: dict[str, dict[str, Any]] = {
    "multi-scale": {"model.layers": ["layer_34", "layer_3"]},
    "distance loss": {"loss.instance_sep_weight": 1.5},
    "cascade": {"model.cascade": {"channels": 128}},
    "a grid for each layer": {"model.inputs.layer_roi_hw": {"layer_34": [56, 56]}},
    "smoothed inputs": {"model.inputs.smooth": True},
    "rgb": {"model.inputs.rgb": {"layers": ["layer_34"]}, "model.layers": ["layer_34", "image"]},
    "rim around the box": {"model.context": 2},
    "attention": {"model.attention": "se"},
    "target attention": {"model.target_attention": True},
    "skip gates": {"model.skip_gates": True},
    "relational": {"model.relational": {"heads": 8}},
    "logit upsampling": {"model.refine.upsampling": "subpixel"},
    "boundary refinement": {"model.refine.boundary": True},
    "auxiliary foreground": {"model.auxiliary.foreground": {"channels": 8}, "loss.auxiliary.foreground": {"weight": 0.3}},
    "auxiliary contour": {"model.auxiliary.contour": {"channels": 8}},
    "auxiliary distance": {"model.auxiliary.distance": {"channels": 8}},
    "foreground corrects": {"model.auxiliary.correct_by_foreground": True},
    "full map": {"model.full_map": True, "loss.full_map": {"weight": 1.0}},
    "class of other people": {"loss.non_target": "own"},
    "cross entropy": {"loss.ce": 1.0},
    "focal": {"loss.focal_gamma": 2.0},
    "dice": {"loss.dice": 1.0},
    "tversky": {"loss.tversky": {"weight": 1.0}},
    "class weights": {"loss.class_weights.mode": "log"},
    "adaptive weights": {"loss.adaptive": {"curve": "linear", "end_boundary_weight": 1.0}},
    "ignored borders": {"loss.ignore_px": 1.0},
    "boundary cross entropy": {"loss.boundary_ce": {"weight": 0.1}},
    "edge loss": {"loss.edge": {"weight": 0.1}},
    "active contour": {"loss.active_contour": {"weight": 0.1}},
    "contrastive": {"loss.contrastive": {"weight": 0.1}},
    "hierarchical loss": {"loss.hierarchical": {"bg": 2.0}},
    "a head as teacher": {"loss.distill": {"alpha": 0.7}},
}
"""Feature -> what switches on that one alone."""


def switched(feature: str) -> dict[str, Any]:
    params = PLAIN
    for key, value in ON[feature].items():
        params = overlay(params, nested(key, value))
    return params


@pytest.mark.parametrize("feature", FEATURES, ids=lambda item: item.name)
def test_each_is_on_alone_by_its_own_keys(feature: Feature) -> None:
    assert not feature.on(PLAIN)
    params = switched(feature.name)
    assert [item.name for item in FEATURES if item.on(params)] == [feature.name]
    before, after = dict(flatten(PLAIN)), dict(flatten(params))
    changed = [key for key in after if before.get(key) != after[key]]
    assert all(any(key == own or key.startswith(f"{own}.") for own in feature.keys) for key in changed), changed


def test_weights_that_rise_over_the_run_are_a_distance_loss() -> None:
    params = overlay(PLAIN, {"loss": {"adaptive": {"end_boundary_weight": 3.0, "end_instance_sep_weight": 1.0}}})
    assert {item.name for item in FEATURES if item.on(params)} == {"distance loss", "adaptive weights"}


def nullable(cls: type[Section], where: str) -> list[str]:
    return [f"{where}.{name}" for name, field in cls.model_fields.items() if NoneType in get_args(field.annotation)]


def test_nothing_that_can_be_switched_on_is_left_out() -> None:
    """Keys of the loss and of composed heads that are null where they are off."""
    keys = [
        *nullable(LossParams, "loss"),
        *nullable(AuxiliaryParams, "loss.auxiliary"),
        *[key for key in nullable(ComposedParams, "model") if key not in ("model.auxiliary", "model.refine")],
        *nullable(RefineParams, "model.refine"),
        *nullable(Branches, "model.auxiliary"),
    ]
    assert len(keys) > 15
    owned = {own for feature in FEATURES for own in feature.keys}
    assert set(keys) <= owned, sorted(set(keys) - owned)


def test_presets_have_the_features_that_they_are_named_for() -> None:
    values = read_yaml(PARAMS_FILE)
    names = ("baseline", "multiscale", "multiscale_distance", "full", "rgb_enhanced_lightweight", "hierarchical_unet_v2_auxiliary")
    of = {name: [item.name for item in FEATURES if item.on(with_preset(values, name))] for name in names}
    assert "multi-scale" not in of["baseline"]
    assert "multi-scale" in of["multiscale"]
    assert "distance loss" in of["multiscale_distance"]
    assert not {"distance loss", "cascade"} & set(of["multiscale"])
    assert {"multi-scale", "cascade", "distance loss", "adaptive weights"} <= set(of["full"])
    assert "rgb" in of["rgb_enhanced_lightweight"]
    assert {"auxiliary foreground", "hierarchical loss"} <= set(of["hierarchical_unet_v2_auxiliary"])
