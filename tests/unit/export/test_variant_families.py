"""Every family in float16 and INT8: the head's answers, with many ROIs, one and none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from head_factory import INPUT_HW, MODELS, SPECS, every_part, fresh_head

from roiseg.export.half import make_half
from roiseg.export.onnx import example_inputs, export_head
from roiseg.export.onnx_head import OnnxHead
from roiseg.export.quantize import make_int8
from roiseg.heads import FAMILIES, parse_model
from roiseg.onnx_names import BOXES, feature_input
from roiseg.params import overlay

CASES: Mapping[str, Mapping[str, Any]] = {
    **{family: MODELS[family] for family in FAMILIES},
    **{f"multiscale, {name}": overlay(MODELS["multiscale"], every_part(4, name)) for name in ("progressive", "subpixel")},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_variants_answer_as_the_head_does(case: str, tmp_path: Path) -> None:
    params = parse_model(CASES[case])
    specs = [SPECS[name] for name in params.layers]
    whole, half, int8 = (tmp_path / f"{name}.onnx" for name in ("head", "half", "int8"))
    export_head(fresh_head(params, SPECS), specs, INPUT_HW, 18, {}, whole)
    names = [*(feature_input(spec.name) for spec in specs), BOXES]
    given = [example_inputs(specs, INPUT_HW, 2, 6, seed) for seed in range(4)]
    make_half(whole, half)
    make_int8(whole, int8, [{name: item.numpy() for name, item in zip(names, case, strict=True)} for case in given])
    heads = [OnnxHead(path) for path in (whole, half, int8)]
    for images, rois in ((1, 1), (3, 7), (1, 0), (3, 0)):
        *maps, boxes = example_inputs(specs, INPUT_HW, images, rois, seed=9)
        features = dict(zip(params.layers, maps, strict=True))
        expected, *found = (head(features, boxes).mask_logits.exp() for head in heads)
        for name, tolerance, answer in zip(("half", "int8"), (0.02, 0.5), found, strict=True):
            assert answer.shape == (rois, 3, *params.mask_hw), name
            assert torch.isfinite(answer).all(), name
            if rois:
                off = (answer - expected).abs().flatten()
                # A few cells of a head with random weights lie where any rounding tips them over.
                assert off.quantile(0.99) < tolerance, name
                assert off.mean() < tolerance / 8, name
