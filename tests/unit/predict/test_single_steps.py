"""Tests of roiseg.predict.predictor against the single steps that the end-to-end files are held to: three ways, one answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from end_to_end_factory import StepByStep, backbone, head, int8_scales, metadata, people, photo
from head_factory import SPECS
from onnx import helper

from roiseg.predict import Predictor

LAYERS = ("layer_34", "layer_3", "image")


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ({"resize": "letterbox"}, {"roi_padding": 0.2}),
        ({"resize": "letterbox", "color": "bgr", "pixel_max": 255.0}, {"scales": int8_scales(LAYERS)}),
        ({"color": "bgr"}, {"roi_padding": 0.1}),
        ({}, {}),
    ],
    ids=["letterbox", "int8_bgr", "padding", "plain"],
)
def test_people_are_those_of_the_single_steps(tmp_path: Path, rule: dict[str, Any], changes: dict[str, Any]) -> None:
    """With the image itself among the head's inputs, whose colours a backbone of the other order must not turn round."""
    layers = {name: {"channels": SPECS[name].channels} for name in LAYERS}
    described = metadata(LAYERS, input=metadata()["input"] | rule, **changes) | {"layers": layers}
    parts = head(LAYERS), backbone("int8" if "scales" in changes else "float16"), described
    helper.set_model_props(parts[0], {"roiseg": json.dumps(described)})
    onnx.save(parts[0], tmp_path / "head.onnx")
    onnx.save(parts[1], tmp_path / "backbone.onnx")
    predictor, steps = Predictor(tmp_path, "cpu"), StepByStep(*parts)
    pixels, boxes = photo((75, 101), 4), people((75, 101), 6, 3)
    (mine,), (theirs,) = predictor.encode([pixels]), steps.encode([pixels])
    np.testing.assert_allclose(predictor.detect(mine).boxes_image, steps.detect(theirs).boxes_image)
    found, expected = predictor.masks(mine, boxes), steps.masks(theirs, boxes)
    for person, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(person.mask, wanted.mask)
        assert person.score == pytest.approx(wanted.score, abs=1e-6)
    assert any(person.mask.any() for person in found)
