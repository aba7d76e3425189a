"""Heads, one file per family; this is the one table from a family's name to its params and its builder.

Contract: `head(features, boxes) -> HeadOutput`, with features as layer -> (N, C, H, W) float32 and boxes (R, 5) of image number
and xyxy in the unit frame.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from roiseg.errors import ParamsError
from roiseg.heads.base import HeadParams
from roiseg.heads.baseline import BaselineParams, build_baseline
from roiseg.heads.class_specific import ClassSpecificParams, build_class_specific
from roiseg.heads.coarse import CoarseParams, build_coarse
from roiseg.heads.dynamic_filter import DynamicFilterParams, build_dynamic_filter
from roiseg.heads.hierarchical import HierarchicalParams, build_hierarchical
from roiseg.heads.hierarchical_unet import (
    UNetV1Params,
    UNetV2Params,
    UNetV3Params,
    UNetV4Params,
    build_v1,
    build_v2,
    build_v3,
    build_v4,
)
from roiseg.heads.multiscale import MultiscaleParams, build_multiscale
from roiseg.heads.positional import PositionalParams, build_positional
from roiseg.heads.rgb_hierarchical import RgbHierarchicalParams, build_rgb_hierarchical
from roiseg.heads.roi_crop import RoiCropParams, build_roi_crop
from roiseg.heads.roi_unet import RoiUnetParams, build_roi_unet
from roiseg.heads.variable_roi import VariableRoiParams, build_variable_roi
from roiseg.params import nearest
from roiseg.types import FeatureSpec

Builder = Callable[[Any, Sequence[FeatureSpec]], nn.Module]

FAMILIES: Mapping[str, tuple[type[HeadParams], Builder]] = {
    "roi_crop": (RoiCropParams, build_roi_crop),
    "roi_unet": (RoiUnetParams, build_roi_unet),
    "baseline": (BaselineParams, build_baseline),
    "multiscale": (MultiscaleParams, build_multiscale),
    "variable_roi": (VariableRoiParams, build_variable_roi),
    "coarse": (CoarseParams, build_coarse),
    "hierarchical": (HierarchicalParams, build_hierarchical),
    "hierarchical_unet_v1": (UNetV1Params, build_v1),
    "hierarchical_unet_v2": (UNetV2Params, build_v2),
    "hierarchical_unet_v3": (UNetV3Params, build_v3),
    "hierarchical_unet_v4": (UNetV4Params, build_v4),
    "rgb_hierarchical": (RgbHierarchicalParams, build_rgb_hierarchical),
    "class_specific": (ClassSpecificParams, build_class_specific),
    "positional": (PositionalParams, build_positional),
    "dynamic_filter": (DynamicFilterParams, build_dynamic_filter),
}


def parse_model(values: Mapping[str, Any]) -> HeadParams:
    """Section `model` as the params of the family that `model.head` names.

    Raises:
        ParamsError: unknown family, or a fault in its params.
    """
    family = values.get("head")
    if family not in FAMILIES:
        raise ParamsError(f"model.head: value is {family!r}; {nearest(str(family), FAMILIES)}")
    return FAMILIES[str(family)][0].parse(values, "model")


def build_head(params: HeadParams, specs: Mapping[str, FeatureSpec]) -> nn.Module:
    """The head that `params` describes, with fresh weights from torch's global generator.

    Args:
        params: section `model`.
        specs: what the store holds; every layer of `params.layers` must be in it.
    """
    return FAMILIES[params.head][1](params, [specs[name] for name in params.layers])
