"""Tests of roiseg.compare.lock: figures that are older than what lies beside them."""

from collections.abc import Mapping
from typing import Any

import pytest

from roiseg.compare.lock import RGB, outdated
from roiseg.rgb import NAME

PARAMS = {"extractor": {"color": "rgb", "onnx": "a.onnx"}, "loss": {"dice": 1.0, "edge": None}, "reader": {"ahead": 4}}


def lock_of(params: Mapping[str, object] | None = None, weights: str = "1") -> dict[str, Any]:
    recorded = {"extractor.color": "rgb", "loss": {"dice": 1.0, "edge": None}, **(params or {})}
    train = {"params": {"params.yaml": recorded}, "outs": [{"path": "models/heads/default", "md5": "1"}]}
    evaluate = {"deps": [{"path": "models/heads/default", "md5": weights}, {"path": "roiseg/coco.py", "md5": "2"}]}
    return {"schema": "2.0", "stages": {"train@default": train, "evaluate@default": evaluate}}


@pytest.mark.parametrize("lock", [lock_of(), {}, {"stages": None}, {"stages": {"train@other": {}}}])
def test_nothing_speaks_against_them(lock: dict[str, Any]) -> None:
    assert outdated(lock, PARAMS, "default") is None


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"loss": {"dice": 2.0, "edge": None}}, "loss.dice"),
        ({"loss": {"dice": 1.0}, "extractor.color": "bgr"}, "extractor.color"),
        ({"loss": {"dice": 1.0, "edge": None, "ce": 1.0}}, "loss.ce"),
        ({"loss": {"a": 1, "b": 2, "c": 3, "dice": 1.0}}, "loss.a, loss.b, loss.c"),
    ],
)
def test_params_that_have_changed_since(params: dict[str, object], named: str) -> None:
    found = outdated(lock_of(params), PARAMS, "default")
    assert found is not None
    assert found.startswith(f"figures are of other params than params.yaml ({named}")
    assert found.endswith("); `dvc repro` makes them anew")


def test_weights_that_were_trained_since() -> None:
    found = outdated(lock_of(weights="0"), PARAMS, "default")
    assert found == "figures are of other weights than were trained last; `dvc repro` makes them anew"


def test_the_head_on_pixels_has_stages_of_its_own() -> None:
    assert RGB == NAME
    stages = {name.replace("train@default", "rgb_train"): stage for name, stage in lock_of()["stages"].items()}
    found = outdated({"stages": stages}, PARAMS | {"loss": {"dice": 2.0, "edge": None}}, "rgb")
    assert found is not None
    assert "loss.dice" in found
    assert outdated({"stages": stages}, PARAMS, "rgb") is None
