"""Tests of roiseg.evaluate.infer: passes of a head are bounded, and leave the ROIs of an image together."""

import pytest
import torch
from head_factory import COMPOSED, fresh_head

from roiseg.evaluate.infer import MAX_ROIS, pass_sizes, run_head
from roiseg.export.onnx import example_inputs
from roiseg.heads import parse_model
from roiseg.types import FeatureSpec

SPECS = {"layer_34": FeatureSpec("layer_34", 6, (8.0, 8.0)), "layer_3": FeatureSpec("layer_3", 4, (4.0, 4.0))}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], [0]),
        ([1], [1]),
        ([20, 20, 20], [60]),
        ([40, 24, 1], [64, 1]),
        ([40, 40, 40], [40, 40, 40]),
        ([289], [64, 64, 64, 64, 33]),
        ([10, 289, 31, 1], [10, 64, 64, 64, 64, 64, 1]),
    ],
)
def test_images_stay_together_where_they_fit(counts: list[int], expected: list[int]) -> None:
    images = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.int64)).float()
    assert MAX_ROIS == 64
    assert pass_sizes(images) == expected


def test_rois_that_hear_each_other_say_the_same_in_any_batch() -> None:
    params = parse_model({**COMPOSED, "head": "coarse", "relational": {"heads": 2, "dropout": 0.0}})
    head = fresh_head(params, SPECS)
    *maps, boxes = example_inputs(list(SPECS.values()), (64, 96), 2, 80, seed=0)
    boxes[:, 0] = (torch.arange(80) >= 40).float()
    with torch.no_grad():
        together = run_head(head, dict(zip(SPECS, maps, strict=True)), boxes)
        second = {name: values[1:] for name, values in zip(SPECS, maps, strict=True)}
        alone = run_head(head, second, boxes[40:] - torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(together[40:], alone, atol=1e-5, rtol=1e-5)
