"""Tests of roiseg.losses.params: what is refused."""

from typing import Any

import pytest
from loss_factory import FULL, PLAIN, loss_params

from roiseg.errors import ParamsError


@pytest.mark.parametrize(
    "changes",
    [
        {"boundary_weight": 0.9},
        {"boundary_width": 0.0},
        {"near_px": 0.0},
        {"dice_smooth": 0.0},
        {"dice_classes": [3]},
        {"ce": -1.0},
        {"focal_gamma": -0.1},
        {"focal_classes": []},
        {"ignore_px": -1.0},
        {"cascade": [0.5, 0.5]},
        {"tversky": {"weight": 1.0}},
        {"active_contour": {"weight": 0.0, "curvature": 0.0}},
        {"contrastive": {"weight": 1.0, "temperature": 0.0, "samples": 1}},
        {"adaptive": {"curve": "step", "end_boundary_weight": 1.0, "end_instance_sep_weight": 1.0}},
    ],
)
def test_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=rf"loss\.{next(iter(changes))}"):
        loss_params(**changes)


@pytest.mark.parametrize(
    ("name", "values", "most"),
    [
        ("edge", FULL["edge"], 0.5),
        ("boundary_ce", {"weight": 0.1, "width": 3, "factor": 2.0}, 0.5),
        ("boundary_ce", {"weight": 0.1, "width": 5, "factor": 2.0}, 1.5),
        ("auxiliary.contour", {"weight": 0.1, "width": 1.0}, 0.5),
        ("auxiliary.contour", {"weight": 0.1, "width": 2.2}, 1.5),
    ],
)
def test_a_border_that_is_ignored_and_taught_is_refused(name: str, values: dict[str, Any], most: float) -> None:
    if name == "auxiliary.contour":
        changes = {"auxiliary": PLAIN["auxiliary"] | {"contour": values}}
    else:
        changes = {name: values}
    loss_params(**changes, ignore_px=most)
    with pytest.raises(ParamsError, match=rf"ignore_px {most + 0.1} leaves out .* that {name} would teach; lower it to {most}"):
        loss_params(**changes, ignore_px=most + 0.1)
