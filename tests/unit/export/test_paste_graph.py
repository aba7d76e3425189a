"""Tests of roiseg.export.paste_graph: the masks of `paste_target` and `resolve`, at the size of the image."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from roiseg.export.graph_writer import GraphWriter
from roiseg.export.paste_graph import BANDS, Canvas, image_masks
from roiseg.export.region_graph import Regions
from roiseg.overlap import resolve
from roiseg.placed import paste_target

MASK_HW = (7, 5)


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    writer = GraphWriter(18)
    probabilities = writer.input("probabilities", np.float32, ["r", 3, *MASK_HW])
    images = writer.input("images", np.int64, ["r"])
    boxes = writer.input("boxes", np.float64, ["r", 4])
    alive = writer.input("alive", np.bool_, ["r"])
    size = writer.input("size", np.int64, [3])
    canvas = Canvas(size.pick(0, 0), size.pick(1, 0), size.pick(2, 0))
    masks, scores = image_masks(probabilities, Regions(images, boxes, boxes, alive), canvas, MASK_HW, None)
    writer.output("masks", masks, ["r", "h", "w"])
    writer.output("scores", scores, ["r"])
    return onnxruntime.InferenceSession(writer.model("paste").SerializeToString(), providers=["CPUExecutionProvider"])


def softmaxed(rois: int, rng: np.random.Generator) -> NDArray[np.float32]:
    logits = np.exp(rng.normal(0, 2, (rois, 3, *MASK_HW)))
    return np.asarray(logits / logits.sum(axis=1, keepdims=True), dtype=np.float32)


def run(session: onnxruntime.InferenceSession, size: tuple[int, int, int], **feeds: NDArray[Any]) -> list[NDArray[Any]]:
    feeds.setdefault("alive", np.ones(len(feeds["images"]), dtype=bool))
    return list(session.run(None, {"size": np.array(size), **feeds}))


@pytest.mark.parametrize("image_hw", [(40, 61), (3, 70), (1, 1), (9, 2)], ids=str)
def test_as_pasted_and_resolved_in_windows(session: onnxruntime.InferenceSession, image_hw: tuple[int, int]) -> None:
    """Sizes below the number of bands too; boxes beyond the image, smaller than a pixel, and on the middle of pixels."""
    rng = np.random.default_rng(3)
    height, width = image_hw
    low = rng.uniform(-0.3, 0.9, (30, 2)) * [width, height]
    boxes = np.concatenate([low, low + rng.uniform(0.01, 0.8, (30, 2)) * [width, height]], axis=1)
    boxes[::4] = np.floor(boxes[::4]) + np.array([0.5, 0.5, 1.5, 1.5])
    probabilities, images = softmaxed(30, rng), rng.integers(0, 3, 30)
    masks, scores = run(session, (3, *image_hw), probabilities=probabilities, images=images, boxes=boxes)
    assert masks.shape == (30, *image_hw)
    for image in range(3):
        mine = np.flatnonzero(images == image)
        pasted = [paste_target(probabilities[number], boxes[number], image_hw) for number in mine]
        np.testing.assert_allclose(scores[mine], [item.score for item in pasted], atol=1e-6)
        for number, placed in zip(mine, resolve(pasted), strict=True):
            np.testing.assert_array_equal(masks[number], placed.whole(image_hw), err_msg=str(number))
    assert BANDS > 3


def test_written_out(session: onnxruntime.InferenceSession) -> None:
    """Two ROIs over the same 7 x 5 pixels: the surer one has what both claim, however much the other is sure of its cells there."""
    sure, unsure = (np.full((3, *MASK_HW), fill, dtype=np.float32) for fill in (0.0, 0.0))
    sure[1], sure[0] = 0.75, 0.25
    unsure[1], unsure[2] = 0.625, 0.375
    unsure[:, :, 4] = np.array([0.0, 0.0, 1.0], dtype=np.float32)[:, None]
    sure[:, 0] = np.array([1.0, 0.0, 0.0], dtype=np.float32)[:, None]
    boxes = np.array([[2.0, 1.0, 7.0, 8.0]] * 2)
    masks, scores = run(
        session, (1, 10, 9), probabilities=np.stack([unsure, sure]), images=np.zeros(2, dtype=np.int64), boxes=boxes
    )
    np.testing.assert_allclose(scores, [0.625 * 0.625, 0.75], atol=1e-6)
    wanted = np.zeros((2, 10, 9), dtype=np.uint8)
    wanted[1, 2:8, 2:7] = 1
    wanted[0, 1, 2:6] = 1
    np.testing.assert_array_equal(masks, wanted)


def test_dead_boxes_of_no_numbers_leave_the_others_alone(session: onnxruntime.InferenceSession) -> None:
    rng = np.random.default_rng(1)
    probabilities, images = softmaxed(3, rng), np.zeros(3, dtype=np.int64)
    boxes = np.array([[2.0, 2, 20, 20], [5, 5, 5, 30], [10, 10, 30, 25]])
    alive = np.array([True, False, True])
    probabilities[1] = np.nan
    masks, scores = run(session, (1, 30, 40), probabilities=probabilities, images=images, boxes=boxes, alive=alive)
    alone, _ = run(session, (1, 30, 40), probabilities=probabilities[alive], images=images[alive], boxes=boxes[alive])
    np.testing.assert_array_equal(masks[alive], alone)
    assert alone.any()
    assert not masks[1].any()
    assert scores[1] == 0


def test_empty(session: onnxruntime.InferenceSession) -> None:
    masks, scores = run(
        session,
        (2, 6, 8),
        probabilities=softmaxed(0, np.random.default_rng(0)),
        images=np.zeros(0, dtype=np.int64),
        boxes=np.zeros((0, 4)),
    )
    assert (masks.shape, scores.shape) == ((0, 6, 8), (0,))
