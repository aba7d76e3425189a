"""No knob without effect: each key of section `model` of each family, turned alone, changes what the head answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from zlib import crc32

import head_factory
import pytest
import torch
from head_factory import MODELS
from knobs import differences, knobs, nested
from torch import Tensor, nn

from roiseg.export.onnx import example_inputs
from roiseg.heads import FAMILIES, build_head, parse_model
from roiseg.params import overlay
from roiseg.types import FeatureSpec

SPECS = {**head_factory.SPECS, "layer_5": FeatureSpec("layer_5", 4, (4.0, 4.0))}


@dataclass(frozen=True)
class Turn:
    """Another value of a key.

    Attributes:
        to: the value.
        around: what else is otherwise than in the small model, before and after, so that the key matters.
        along: what has to change together with the key.
    """

    to: Any
    around: Mapping[str, Any] = field(default_factory=dict)
    along: Mapping[str, Any] = field(default_factory=dict)


BRANCH = {"channels": 4}
RGB: dict[str, Any] = {
    "layers": ["layer_34", "layer_3", "image"],
    "inputs": {"rgb": {"layers": ["layer_34"], "channels": 8}},
}


def branch(**on: object) -> dict[str, Any]:
    """Section `auxiliary` with these keys, and the rest off."""
    off = dict.fromkeys(("foreground", "contour", "distance", "embedding"))
    return {"auxiliary": {**off, "correct_by_foreground": False, **on}}


TURNS: dict[str, Turn] = {
    "layers": Turn(["layer_34", "layer_5"]),
    "mask_hw": Turn([10, 12]),
    "mid_channels": Turn(24),
    "blocks.norm": Turn("instance"),
    "blocks.groups": Turn(2, around={"blocks": {"norm": "group", "groups": 1}}),
    "blocks.batch_share": Turn(0.3, around={"blocks": {"norm": "mixed", "batch_share": 0.6}}),
    "blocks.activation": Turn("silu"),
    "inputs.roi_hw": Turn([8, 6]),
    "inputs.layer_roi_hw": Turn({"layer_3": [12, 16]}),
    "inputs.sampling_ratio": Turn(3),
    "inputs.fusion": Turn("sum"),
    "inputs.smooth": Turn(True),
    "inputs.rgb": Turn(RGB["inputs"]["rgb"], along={"layers": RGB["layers"]}),
    "inputs.rgb.layers": Turn(["layer_3"], around=RGB),
    "inputs.rgb.channels": Turn(6, around=RGB),
    "attention": Turn("spatial"),
    "auxiliary": Turn(branch(contour=BRANCH)["auxiliary"]),
    "auxiliary.foreground": Turn(BRANCH, around=branch(contour=BRANCH)),
    "auxiliary.contour": Turn(BRANCH, around=branch(foreground=BRANCH)),
    "auxiliary.distance": Turn(BRANCH, around=branch(foreground=BRANCH)),
    "auxiliary.embedding": Turn(BRANCH, around=branch(foreground=BRANCH)),
    **{
        f"auxiliary.{name}.channels": Turn(6, around=branch(**{name: BRANCH}))
        for name in ("foreground", "contour", "distance", "embedding")
    },
    "auxiliary.correct_by_foreground": Turn(True, around=branch(foreground=BRANCH)),
    "refine": Turn({"upsampling": None, "boundary": True}),
    "refine.upsampling": Turn("subpixel", around={"refine": {"upsampling": "progressive", "boundary": False}}),
    "refine.boundary": Turn(True, around={"refine": {"upsampling": "subpixel", "boundary": False}}),
    "relational": Turn({"heads": 2, "dropout": 0.0}),
    "relational.heads": Turn(4, around={"relational": {"heads": 2, "dropout": 0.0}}),
    "relational.dropout": Turn(0.9, around={"relational": {"heads": 2, "dropout": 0.0}}),
    "cascade": Turn({"channels": 8}),
    "cascade.channels": Turn(6, around={"cascade": {"channels": 8}}),
    "cascade.share_features": Turn(False, around={"cascade": {"channels": 8, "share_features": True}}),
    "combine": Turn("scaled"),
    "base_channels": Turn(6),
    "skip_gates": Turn(True),
    "target_base_channels": Turn(6),
    "roi_hw": Turn([8, 6]),
    "sampling_ratio": Turn(3),
}
"""Dotted key -> another value of it, in every family that has the key."""

OWN: dict[str, dict[str, Turn]] = {
    "roi_crop": {"mid_channels": Turn(12), "blocks": Turn(2), "groups": Turn(4)},
    "roi_unet": {
        "context": Turn(2),
        "layer_channels": Turn(6),
        "mid_channels": Turn(12),
        "deep_channels": Turn(8),
        "out_channels": Turn(6),
        "dropout": Turn(0.6),
        "groups": Turn(1),
    },
    "positional": {"maps": Turn(["relative", "inside", "offset", "size"]), "full_map": Turn(True)},
    "dynamic_filter": {"branch_channels": Turn(4), "filter_channels": Turn(7), "filter_layers": Turn(2)},
    "hierarchical_unet_v2": {"depth": Turn(2), "dropout": Turn(0.5), "target_attention": Turn(False)},
    "hierarchical_unet_v3": {"depth": Turn(3)},
    "hierarchical_unet_v4": {"depth": Turn(2), "target_depth": Turn(3)},
    "rgb_hierarchical": {
        "layers": Turn(["image"], around={"guided": False}),
        "inputs.steps": Turn(4),
        "inputs.further_roi_hw": Turn([[12, 16]]),
        "depth": Turn(2),
        "dropout": Turn(0.5),
        "target_attention": Turn(False),
        "guided": Turn(False),
    },
}
"""Keys that only one family has, or that it has other values of."""

TAG = "head"
"""The one key that isn't turned: it says which class the others are of."""

ALL = [(family, path) for family, (params, _) in FAMILIES.items() for path in knobs(params) if path != TAG]


def turn_of(family: str, path: str) -> Turn:
    return OWN.get(family, {}).get(path) or TURNS[path]


@cache
def answers(model: str) -> dict[str, Tensor]:
    """Everything that a head says of five ROIs of two images, training and not.

    Its weights are drawn by their names, so that a part that no answer depends on changes none.

    Args:
        model: section `model` as JSON, so that answers are found again.
    """
    params = parse_model(json.loads(model))
    head = build_head(params, SPECS)
    for name, parameter in head.named_parameters():
        generator = torch.Generator().manual_seed(crc32(name.encode()))
        nn.init.normal_(parameter, 0.5, 1.0, generator) if parameter.ndim < 2 else nn.init.kaiming_normal_(
            parameter, generator=generator
        )
    features = {
        name: example_inputs([spec], (64, 96), 2, 5, seed=crc32(name.encode()))[0]
        for name, spec in SPECS.items()
        if name in params.layers
    }
    boxes = example_inputs([], (64, 96), 2, 5, seed=1)[0]
    found: dict[str, Tensor] = {}
    for training in (True, False):
        torch.manual_seed(0)
        with torch.no_grad():
            output = head.train(training)(features, boxes)
        found |= {f"{name}, training: {training}": item for name, item in (("masks", output.mask_logits), *output.aux.items())}
    return found


def differ(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    if {name: item.shape for name, item in one.items()} != {name: item.shape for name, item in other.items()}:
        return True
    return any((one[name] - other[name]).abs().max() > 1e-4 for name in one)


@pytest.mark.parametrize(("family", "path"), ALL, ids=[" ".join(item) for item in ALL])
def test_a_key_turned_alone_changes_the_answer(family: str, path: str) -> None:
    turn = turn_of(family, path)
    before = overlay(MODELS[family], turn.around)
    after = overlay(before, overlay(nested(path, turn.to), turn.along))
    sections = [json.loads(parse_model(values).model_dump_json()) for values in (before, after)]
    changed = set(differences(*sections)) - set(turn.along)
    assert changed
    assert all(f"{key}.".startswith(f"{path}.") for key in changed), "more is turned than this key"
    assert differ(*(answers(json.dumps(section, sort_keys=True)) for section in sections))


def test_every_key_has_another_value() -> None:
    """What the walk finds is what the tables hold: a key that is added wants a value here, one that goes takes it along."""
    found = {family: {path for owner, path in ALL if owner == family} for family in FAMILIES}
    assert {(family, path) for family, path in ALL if path not in OWN.get(family, {}) and path not in TURNS} == set()
    assert set(TURNS) <= set().union(*found.values())
    assert {(family, path) for family, turns in OWN.items() for path in turns if path not in found[family]} == set()


def test_a_head_says_the_same_twice() -> None:
    """So that what differs above does so by its key."""
    model = json.dumps(MODELS["roi_unet"], sort_keys=True)
    assert not differ(answers(model), answers.__wrapped__(model))


CHOICES: dict[str, tuple[str, list[Any]]] = {
    "blocks.norm": ("coarse", ["layernorm2d", "channel", "batch", "instance"]),
    "blocks.activation": ("baseline", ["relu", "silu", "gelu", "mixed"]),
    "inputs.fusion": ("multiscale", ["adaptive", "sum", "concat", "fpn"]),
    "attention": ("coarse", [None, "se", "spatial", "cbam"]),
    "refine.upsampling": ("coarse", [None, "progressive", "subpixel"]),
    "combine": ("hierarchical", ["logprob", "scaled", "additive"]),
}
"""Keys that name one of several things, a family that has the key, and their values."""


@pytest.mark.parametrize("path", CHOICES)
def test_every_choice_is_one_of_its_own(path: str) -> None:
    family, values = CHOICES[path]
    around = {"refine": {"boundary": True}} if path == "refine.upsampling" else {}
    models = [overlay(overlay(MODELS[family], around), nested(path, value)) for value in values]
    found = [answers(json.dumps(model, sort_keys=True)) for model in models]
    assert all(differ(one, other) for place, one in enumerate(found) for other in found[:place])
