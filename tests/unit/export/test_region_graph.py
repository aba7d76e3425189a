"""Tests of roiseg.export.region_graph: the boxes of `roiseg.geometry` and `read_detections`, to the last bit."""

from typing import Any, Literal

import numpy as np
import onnxruntime
import pytest
from end_to_end_factory import people
from numpy.typing import NDArray

from roiseg.export.graph_writer import GraphWriter
from roiseg.export.preprocess_graph import image_axes
from roiseg.export.region_graph import Frames, found_boxes, person_regions
from roiseg.extractor.detections import DetectionRule, read_detections
from roiseg.geometry import Resize, clip_boxes, roi_boxes
from roiseg.network_input import InputRule
from roiseg.types import HW

Mode = Literal["stretch", "letterbox"]
NETWORK_HW: HW = (64, 96)
PADDING = 0.15
RULE = DetectionRule(output="found", person_class=2, min_score=0.3)


def session_of(mode: Mode) -> onnxruntime.InferenceSession:
    writer = GraphWriter(18)
    size = writer.input("image_hw", np.int64, [2])
    boxes = writer.input("boxes", np.float64, ["r", 4])
    raw = writer.input("raw", np.float32, ["n", 7])
    frames = Frames(image_axes((size.pick(0, 0), size.pick(1, 0)), NETWORK_HW, mode))
    regions = person_regions(writer.constant(np.array([3])), boxes, frames, PADDING)
    found = found_boxes(raw, frames, RULE.person_class, RULE.min_score)
    writer.output("rois_image", regions.boxes_image, ["r", 4])
    writer.output("alive", regions.alive, ["r"])
    writer.output("images", found.images, ["k"])
    writer.output("found", found.boxes_image, ["k", 4])
    writer.output("scores", found.scores, ["k"])
    return onnxruntime.InferenceSession(writer.model("regions").SerializeToString(), providers=["CPUExecutionProvider"])


NOTHING: dict[str, NDArray[Any]] = {
    "boxes": np.zeros((0, 4)),
    "raw": np.zeros((0, 7), dtype=np.float32),
    "image_hw": np.array([75, 130]),
}


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
def test_rois_have_every_bit_of_those_of_the_single_steps(mode: Mode) -> None:
    session = session_of(mode)
    for image_hw in ((75, 130), (64, 96), (333, 71), (9, 4)):
        boxes = people(image_hw, 200, seed=5)
        resize = Resize(image_hw, NETWORK_HW, mode)
        rois = resize.boxes_to_image(roi_boxes(resize.boxes_to_unit(clip_boxes(boxes, image_hw)), PADDING))
        (got,) = session.run(["rois_image"], NOTHING | {"boxes": boxes, "image_hw": np.array(image_hw)})
        np.testing.assert_array_equal(got, rois)


def test_boxes_without_area_in_the_image_are_dead() -> None:
    boxes = [[10, 10, 20, 20], [-5, -5, 1, 1], [130, 0, 140, 20], [0, 75, 20, 90], [7, 7, 7, 9], [20, 10, 10, 20], [-9, 3, 0, 20]]
    (alive,) = session_of("stretch").run(["alive"], NOTHING | {"boxes": np.array(boxes, dtype=np.float64)})
    assert alive.tolist() == [True, True, False, False, False, False, False]


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
def test_detections_are_those_that_were_extracted(mode: Mode) -> None:
    """Many, of three images in no order, with equal scores, scores at the limit, and boxes that reach over the image or miss it."""
    rng = np.random.default_rng(0)
    low = rng.uniform(-40, 100, (300, 2))
    raw = np.concatenate(
        [
            rng.integers(0, 3, (300, 1)),
            rng.integers(1, 4, (300, 1)),
            rng.integers(1, 10, (300, 1)) / 10,
            low,
            low + rng.uniform(-3, 50, (300, 2)),
        ],
        axis=1,
    ).astype(np.float32)
    image_hw = (75, 91)
    expected = read_detections(raw, RULE, [image_hw] * 3, InputRule(NETWORK_HW, mode, "bgr", 255.0))
    assert min(len(item) for item in expected) > 5
    resize = Resize(image_hw, NETWORK_HW, mode)
    images, found, scores = session_of(mode).run(
        ["images", "found", "scores"], NOTHING | {"raw": raw, "image_hw": np.array(image_hw)}
    )
    assert images.tolist() == [place for place, item in enumerate(expected) for _ in item]
    np.testing.assert_allclose(found, np.concatenate([resize.boxes_to_image(item[:, :4]) for item in expected]), atol=1e-9)
    np.testing.assert_array_equal(scores, np.concatenate([item[:, 4] for item in expected]).astype(np.float32))


def test_no_detections() -> None:
    session = session_of("stretch")
    found = session.run(["images", "found", "scores"], NOTHING)
    assert [item.shape for item in found] == [(0,), (0, 4), (0,)]
    other = np.array([[0, 1, 0.9, 0, 0, 9, 9]], dtype=np.float32)
    assert [len(item) for item in session.run(["images", "found", "scores"], NOTHING | {"raw": other})] == [0, 0, 0]
