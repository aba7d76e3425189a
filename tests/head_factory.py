"""Heads of a few channels, one of each family."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from roiseg.export.onnx import example_inputs
from roiseg.heads import build_head
from roiseg.heads.base import HeadParams
from roiseg.types import FeatureSpec

INPUT_HW = (64, 96)
SPECS = {
    "layer_34": FeatureSpec("layer_34", 6, (8.0, 8.0)),
    "layer_3": FeatureSpec("layer_3", 4, (4.0, 4.0)),
    "image": FeatureSpec("image", 3, (1.0, 1.0)),
    "teacher": FeatureSpec("teacher", 1, (2.0, 2.0)),
}
"""What the heads read, by layer, of an input of `INPUT_HW`."""

COMPOSED: Mapping[str, Any] = {
    "layers": ["layer_34", "layer_3"],
    "mask_hw": [12, 10],
    "mid_channels": 16,
    "blocks": {"norm": "layernorm2d", "groups": None, "batch_share": None, "activation": "relu"},
    "inputs": {
        "roi_hw": [6, 8],
        "layer_roi_hw": {},
        "sampling_ratio": 1,
        "fusion": "adaptive",
        "smooth": False,
        "rgb": None,
    },
    "attention": None,
    "auxiliary": None,
    "refine": None,
    "relational": None,
    "cascade": None,
}
"""Section `model` of a small composed head, but for what its family adds."""

_HIERARCHY: Mapping[str, Any] = {**COMPOSED, "combine": "logprob", "base_channels": 4, "skip_gates": False}

MODELS: Mapping[str, Mapping[str, Any]] = {
    "roi_crop": {
        "head": "roi_crop",
        "layers": ["layer_34", "layer_3"],
        "roi_hw": [6, 8],
        "mask_hw": [12, 10],
        "sampling_ratio": 1,
        "mid_channels": 8,
        "blocks": 1,
        "groups": 2,
    },
    "roi_unet": {
        "head": "roi_unet",
        "layers": ["layer_34", "layer_3"],
        "roi_hw": [6, 8],
        "mask_hw": [12, 10],
        "sampling_ratio": 2,
        "context": 1,
        "layer_channels": 4,
        "mid_channels": 8,
        "deep_channels": 12,
        "out_channels": 4,
        "dropout": 0.2,
        "groups": 2,
    },
    "positional": {
        "head": "positional",
        "layers": ["layer_34", "layer_3"],
        "mask_hw": [12, 10],
        "mid_channels": 8,
        "base_channels": 4,
        "maps": ["inside", "offset", "size", "relative"],
        "skip_gates": False,
        "sampling_ratio": 1,
        "full_map": False,
        "blocks": COMPOSED["blocks"],
    },
    "dynamic_filter": {
        "head": "dynamic_filter",
        "layers": ["layer_34", "layer_3"],
        "mask_hw": [12, 10],
        "mid_channels": 8,
        "branch_channels": 6,
        "filter_channels": 5,
        "filter_layers": 3,
        "inputs": COMPOSED["inputs"],
        "blocks": COMPOSED["blocks"],
    },
    **{name: {**COMPOSED, "head": name} for name in ("baseline", "multiscale", "variable_roi", "coarse", "class_specific")},
    "hierarchical": {**COMPOSED, "head": "hierarchical", "combine": "logprob"},
    "hierarchical_unet_v1": {**_HIERARCHY, "head": "hierarchical_unet_v1"},
    "hierarchical_unet_v2": {
        **_HIERARCHY,
        "head": "hierarchical_unet_v2",
        "depth": 3,
        "dropout": 0.1,
        "target_attention": True,
    },
    "hierarchical_unet_v3": {**_HIERARCHY, "head": "hierarchical_unet_v3", "depth": 2, "target_base_channels": 4},
    "hierarchical_unet_v4": {
        **_HIERARCHY,
        "head": "hierarchical_unet_v4",
        "depth": 3,
        "target_base_channels": 4,
        "target_depth": 2,
    },
    "rgb_hierarchical": {
        **_HIERARCHY,
        "head": "rgb_hierarchical",
        "layers": ["image", "teacher"],
        "inputs": {"roi_hw": [6, 8], "sampling_ratio": 1, "steps": 3, "further_roi_hw": []},
        "depth": 3,
        "dropout": 0.1,
        "target_attention": True,
        "guided": True,
    },
}
"""Section `model` of a small head of every family, with non-square grids."""


def other_layers(family: str, layers: Sequence[str]) -> list[str]:
    """Layers of the detector for a family that reads the detector; the same number of others for one that doesn't."""
    return list(layers) if "image" not in MODELS[family]["layers"] else ["image", "teacher"][: len(layers)]


def every_part(channels: int, upsampling: str = "progressive") -> dict[str, Any]:
    """Changes to a composed head that give it all parts, and all outputs, that it can have.

    Args:
        channels: of branches; the cascade has twice as many.
        upsampling: which of the two.
    """
    return {
        "attention": "cbam",
        "auxiliary": {
            **{name: {"channels": channels} for name in ("foreground", "contour", "distance", "embedding")},
            "correct_by_foreground": True,
        },
        "refine": {"upsampling": upsampling, "boundary": True},
        "relational": {"heads": 2, "dropout": 0.1},
        "cascade": {"channels": 2 * channels},
    }


def fresh_head(params: HeadParams, specs: Mapping[str, FeatureSpec], seed: int = 0) -> nn.Module:
    """A head in eval mode whose every weight is random, so that no norm and no bias is without effect."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = build_head(params, specs).eval()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return head


def inputs_of(params: HeadParams, images: int, rois: int, seed: int = 1) -> tuple[dict[str, Tensor], Tensor]:
    """Random features by layer, and boxes."""
    *maps, boxes = example_inputs([SPECS[name] for name in params.layers], INPUT_HW, images, rois, seed)
    return dict(zip(params.layers, maps, strict=True)), boxes


def logits_of(head: nn.Module, features: dict[str, Tensor], boxes: Tensor) -> Tensor:
    """Mask logits (R, 3, h, w), without gradients."""
    with torch.no_grad():
        logits: Tensor = head(features, boxes).mask_logits
    return logits
