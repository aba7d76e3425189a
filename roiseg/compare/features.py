"""What a head or its loss may have or not have, read off the params."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from roiseg.types import IMAGE

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Feature:
    """Something that can be switched on.

    Attributes:
        name: for tables.
        keys: dotted beginnings of the keys that say whether and how it is on, and nothing else.
        on: whether it is, by the params of a run.
    """

    name: str
    keys: tuple[str, ...]
    on: Callable[[Params], bool]


def _get(params: Params, path: str) -> Any:  # noqa: ANN401 - YAML holds anything
    """The value at a dotted path, None where it isn't there: heads have keys of their own."""
    current: Any = params
    for part in path.split("."):
        current = current.get(part) if isinstance(current, Mapping) else None
    return current


def _given(name: str, key: str, *more: str) -> Feature:
    """On where the key is neither null, false, zero nor empty."""
    return Feature(name, (key, *more), lambda params: bool(_get(params, key)))


def _layers(params: Params) -> list[str]:
    return [name for name in _get(params, "model.layers") or [] if name != IMAGE]


def _weighs_distances(params: Params) -> bool:
    keys = ("boundary_weight", "instance_sep_weight", "adaptive.end_boundary_weight", "adaptive.end_instance_sep_weight")
    return any((_get(params, f"loss.{key}") or 1.0) > 1.0 for key in keys)


FEATURES = (
    Feature("multi-scale", ("model.layers", "model.inputs.fusion", "model.inputs.layer_roi_hw"), lambda p: len(_layers(p)) > 1),
    Feature(
        "distance loss",
        ("loss.boundary_weight", "loss.boundary_width", "loss.instance_sep_weight", "loss.near_px", "loss.adaptive"),
        _weighs_distances,
    ),
    _given("cascade", "model.cascade", "loss.cascade"),
    _given("a grid for each layer", "model.inputs.layer_roi_hw"),
    _given("smoothed inputs", "model.inputs.smooth"),
    _given("rgb", "model.inputs.rgb", "model.layers"),
    _given("rim around the box", "model.context"),
    _given("attention", "model.attention"),
    _given("target attention", "model.target_attention"),
    _given("skip gates", "model.skip_gates"),
    _given("relational", "model.relational"),
    _given("logit upsampling", "model.refine.upsampling"),
    _given("boundary refinement", "model.refine.boundary"),
    _given("auxiliary foreground", "model.auxiliary.foreground", "loss.auxiliary.foreground"),
    _given("auxiliary contour", "model.auxiliary.contour", "loss.auxiliary.contour"),
    _given("auxiliary distance", "model.auxiliary.distance", "loss.auxiliary.distance"),
    _given("foreground corrects", "model.auxiliary.correct_by_foreground"),
    _given("full map", "model.full_map", "loss.full_map"),
    Feature("class of other people", ("loss.non_target",), lambda params: _get(params, "loss.non_target") == "own"),
    _given("cross entropy", "loss.ce"),
    _given("focal", "loss.focal_gamma", "loss.focal_classes"),
    _given("dice", "loss.dice"),
    _given("tversky", "loss.tversky"),
    Feature("class weights", ("loss.class_weights",), lambda p: _get(p, "loss.class_weights.mode") not in (None, "none")),
    _given("adaptive weights", "loss.adaptive"),
    _given("ignored borders", "loss.ignore_px"),
    _given("boundary cross entropy", "loss.boundary_ce"),
    _given("edge loss", "loss.edge"),
    _given("active contour", "loss.active_contour"),
    _given("contrastive", "loss.contrastive", "model.auxiliary.embedding"),
    _given("hierarchical loss", "loss.hierarchical"),
    _given("a head as teacher", "loss.distill"),
)
"""Those of `model` and `loss` that can be on or off. A key that is missing belongs to other heads, or its default is off."""
