"""Choices of a composed head together: every two of them in each run, all of them under the marker `slow`.

All choices make 6.6 million heads, days of work. The product is cut where heads are: what is in front of the shared features
(layers, grids, fusion, style) knows nothing of what is behind them (attention, branches, refinement, stages). So the product of
either side is run whole, 1,152 and 576 heads of each family, with the other side's choices drawn; some 25 minutes of one core.
"""

import random
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Any

import pytest
import torch
from head_factory import COMPOSED, INPUT_HW, MODELS, SPECS, fresh_head

from roiseg.export.onnx import example_inputs
from roiseg.heads import parse_model
from roiseg.params import overlay

FAMILIES = [name for name, values in MODELS.items() if "cascade" in values]
BRANCH = {"channels": 4}
NO_BRANCH: dict[str, Any] = {
    **dict.fromkeys(("foreground", "contour", "distance", "embedding")),
    "correct_by_foreground": False,
}
FRONT: dict[str, list[Any]] = {
    "norm": ["layernorm2d", "channel", "batch", "instance", "group", "mixed"],
    "activation": ["relu", "silu", "gelu", "mixed"],
    "fusion": ["adaptive", "sum", "concat", "fpn"],
    "smooth": [True, False],
    "grids": [{}, {"layer_3": [12, 16]}, {"layer_3": [9, 12], "layer_34": [4, 5]}],
    "rgb": [True, False],
}
"""Choices in front of the shared features, of each its levels."""

BEHIND: dict[str, list[Any]] = {
    "attention": [None, "se", "spatial", "cbam"],
    "auxiliary": [None, "foreground", "contour", "distance", "embedding", "correction"],
    "refine": [None, ("progressive", False), ("subpixel", True), (None, True)],
    "relational": [None, {"heads": 4, "dropout": 0.2}],
    "cascade": [None, {"channels": 8}, {"channels": 8, "share_features": False}],
}
"""Choices behind them."""

LEVELS: dict[str, list[Any]] = {"family": FAMILIES, **FRONT, **BEHIND}


def inputs_of(level: Mapping[str, Any]) -> dict[str, Any]:
    """Layers and `inputs`; of the choices in front, a head on pixels has grids, and `rgb` is whether it has them alone."""
    if level["family"] == "rgb_hierarchical":
        further = [grid for name, grid in level["grids"].items() if name == "layer_3"]
        return {
            "layers": ["image"] if level["rgb"] else ["image", "teacher"],
            "inputs": {"steps": 4 if level["smooth"] else 3, "further_roi_hw": further},
            "guided": not level["rgb"],
        }
    rgb = {"rgb": {"layers": ["layer_34"], "channels": 8}} if level["rgb"] else {}
    return {
        "layers": ["layer_34", "layer_3", "image"] if level["rgb"] else COMPOSED["layers"],
        "inputs": {"fusion": level["fusion"], "smooth": level["smooth"], "layer_roi_hw": level["grids"], **rgb},
    }


def changes_of(level: Mapping[str, Any]) -> dict[str, Any]:
    """Changes to a small model that make these choices."""
    on, refine = level["auxiliary"], level["refine"]
    named = "foreground" if on == "correction" else on
    return {
        **inputs_of(level),
        "blocks": {
            "norm": level["norm"],
            "groups": 2 if level["norm"] == "group" else None,
            "batch_share": 0.5 if level["norm"] == "mixed" else None,
            "activation": level["activation"],
        },
        "attention": level["attention"],
        "auxiliary": on and {**NO_BRANCH, named: BRANCH, "correct_by_foreground": on == "correction"},
        "refine": refine and {"upsampling": refine[0], "boundary": refine[1]},
        "relational": level["relational"],
        "cascade": level["cascade"],
    }


def check(level: Mapping[str, Any]) -> None:
    """A head of these choices answers, none is harmed by no ROIs, and every weight learns."""
    params = parse_model(overlay(MODELS[level["family"]], changes_of(level)))
    head = fresh_head(params, SPECS)
    for rois in (4, 0):
        *maps, boxes = example_inputs([SPECS[name] for name in params.layers], INPUT_HW, 2, rois, seed=1)
        features = dict(zip(params.layers, maps, strict=True))
        output = head.train()(features, boxes)
        assert output.mask_logits.shape == (rois, 3, 12, 10), level
        sum((item.square().sum() for item in (output.mask_logits, *output.aux.values())), torch.tensor(0.0)).backward()
        with torch.no_grad():
            assert torch.isfinite(head.eval()(features, boxes).mask_logits).all(), level
    dead = [name for name, item in head.named_parameters() if item.grad is None or not torch.isfinite(item.grad).all()]
    assert dead == [], level


# --- every two ---


def pairwise_cover(sizes: list[int]) -> list[tuple[int, ...]]:
    """Cases in which every two levels of different choices meet, by seeded greed: the best of some random cases each time."""
    rng = random.Random(0)
    places = range(len(sizes))
    missing = {(a, i, b, j) for a, b in combinations(places, 2) for i in range(sizes[a]) for j in range(sizes[b])}
    cases = []
    while missing:
        first = min(missing)
        drawn = [[rng.randrange(size) for size in sizes] for _ in range(50)]
        for case in drawn:
            case[first[0]], case[first[2]] = first[1], first[3]
        met = [{(a, case[a], b, case[b]) for a, b in combinations(places, 2)} & missing for case in drawn]
        best = max(range(len(drawn)), key=lambda place: len(met[place]))
        missing -= met[best]
        cases.append(tuple(drawn[best]))
    return cases


def test_every_two_choices_go_together() -> None:
    cases = pairwise_cover([len(levels) for levels in LEVELS.values()])
    assert len(cases) < 120
    for case in cases:
        check({name: levels[place] for (name, levels), place in zip(LEVELS.items(), case, strict=True)})


# --- all ---


def whole(side: Mapping[str, list[Any]], other: Mapping[str, list[Any]], family: str) -> Iterator[dict[str, Any]]:
    """The product of one side's choices, each with a draw of the other side's."""
    rng = random.Random(family)
    for levels in product(*side.values()):
        yield {
            "family": family,
            **dict(zip(side, levels, strict=True)),
            **{name: rng.choice(choices) for name, choices in other.items()},
        }


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_all_choices_in_front(family: str) -> None:
    for level in whole(FRONT, BEHIND, family):
        check(level)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_all_choices_behind(family: str) -> None:
    for level in whole(BEHIND, FRONT, family):
        check(level)
