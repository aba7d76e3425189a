"""Tests of roiseg.extractor.detections: [n, 7] to boxes per image."""

import numpy as np
import pytest
from onnx_factory import extractor_params

from roiseg.errors import GraphError
from roiseg.extractor.detections import DetectionRule, read_detections

RULE = DetectionRule(output="det", person_class=2, min_score=0.25)
"""The network input is 32 x 64."""


def rows(*items: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(items, dtype=np.float32).reshape(-1, 7)


def test_sorted_by_image_and_score() -> None:
    raw = rows(
        (1, 2, 0.5, 0, 0, 32, 16),
        (0, 2, 0.25, 0, 0, 16, 32),
        (1, 2, 0.75, 16, 8, 64, 32),
        (1, 1, 0.99, 0, 0, 9, 9),  # another class
        (0, 2, 0.125, 0, 0, 9, 9),  # too low
        (2, 2, 0.9, 0, 0, 9, 9),  # the padding of the batch
    )
    first, second = read_detections(raw, RULE, [(32, 64), (100, 50)], extractor_params().input_rule())
    np.testing.assert_allclose(first, [[0, 0, 0.25, 1, 0.25]])
    np.testing.assert_allclose(second, [[0.25, 0.25, 1, 1, 0.75], [0, 0, 0.5, 0.5, 0.5]])


def test_boxes_are_clipped_to_the_image() -> None:
    raw = rows((0, 2, 0.5, -8, -8, 80, 16), (0, 2, 0.5, 70, 0, 80, 8), (0, 2, 0.5, 8, 8, 8, 16))
    (found,) = read_detections(raw, RULE, [(32, 64)], extractor_params().input_rule())
    np.testing.assert_allclose(found, [[0, 0, 1, 0.5, 0.5]])


def test_boxes_are_clipped_to_the_content_of_a_letterbox() -> None:
    """An image of 40 x 40 fills columns 16 to 48 of the 64."""
    raw = rows((0, 2, 0.5, 0, 0, 32, 16), (0, 2, 0.5, 0, 0, 15, 16))
    (found,) = read_detections(raw, RULE, [(40, 40)], extractor_params(resize="letterbox").input_rule())
    np.testing.assert_allclose(found, [[0.25, 0, 0.5, 0.5, 0.5]])


def test_none() -> None:
    assert [item.shape for item in read_detections(rows(), RULE, [(9, 9), (8, 7)], extractor_params().input_rule())] == [
        (0, 5),
        (0, 5),
    ]


@pytest.mark.parametrize("shape", [(3, 6), (1, 84, 8400), (7,)], ids=str)
def test_another_layout(shape: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match=r"extractor\.detections\.output 'det' has shape \[.*\], expected \[n, 7\]"):
        read_detections(np.zeros(shape, dtype=np.float32), RULE, [(9, 9)], extractor_params().input_rule())
