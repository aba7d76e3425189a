"""Tests of roiseg.export.preprocess_graph: the pixels that OpenCV gives, and the geometry of `Resize`."""

from typing import Literal

import numpy as np
import onnxruntime
import pytest
from end_to_end_factory import photo

from roiseg.export.graph_writer import GraphWriter
from roiseg.export.preprocess_graph import image_axes, network_pixels
from roiseg.geometry import Resize
from roiseg.network_input import InputRule, network_image

Mode = Literal["stretch", "letterbox"]


def session_of(rule: InputRule) -> onnxruntime.InferenceSession:
    writer = GraphWriter(18)
    images = writer.input("images", np.uint8, ["n", "h", "w", 3])
    axes = image_axes((images.size(1), images.size(2)), rule.hw, rule.resize)
    writer.output("pixels", network_pixels(images, axes, rule), ["n", 3, *rule.hw])
    for name, axis in zip(("rows", "columns"), axes, strict=True):
        numbers = [axis.scale, axis.shift, axis.content, axis.offset]
        writer.output(name, writer.concat([number.reshape(1) for number in numbers], 0), [4])
    return onnxruntime.InferenceSession(writer.model("preprocess").SerializeToString(), providers=["CPUExecutionProvider"])


SIZES = ((48, 80), (96, 160), (47, 33), (24, 200), (301, 190), (31, 80), (2, 3), (1, 50), (1, 1), (480, 640))


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("network_hw", [(48, 80), (64, 32)], ids=str)
def test_pixels_are_those_of_opencv(network_hw: tuple[int, int], mode: Mode) -> None:
    """To the bit where OpenCV is the pinned one on x86; others may round a pixel in a thousand to its neighbour."""
    rule = InputRule(network_hw, mode, "bgr", 255.0)
    session = session_of(rule)
    for number, image_hw in enumerate(SIZES):
        noise = np.random.default_rng(number).integers(0, 256, (*image_hw, 3), dtype=np.uint8)
        images = np.stack([photo(image_hw, number), noise])
        expected = np.stack([network_image(item, rule) for item in images]).astype(np.float32)
        pixels, *axes = session.run(None, {"images": images})
        difference = np.abs(pixels - expected)
        assert difference.max() <= 1, image_hw
        assert (difference > 0).mean() <= 1e-3, image_hw
        resize = Resize(image_hw, network_hw, mode)
        scale, shift = resize._affine()
        for axis, side in zip(axes, (1, 0), strict=True):
            wanted = [scale[side], shift[side], resize.content_hw[1 - side], resize.offset_hw[1 - side]]
            assert axis.tolist() == wanted, image_hw


def test_a_plain_resize_would_differ() -> None:
    """What the bar above is worth: bilinear in float32, rounded, gives other pixels than OpenCV's whole numbers do."""
    rule = InputRule((48, 80), "stretch", "bgr", 255.0)
    image = np.random.default_rng(0).integers(0, 256, (67, 101, 3), dtype=np.uint8)
    writer = GraphWriter(18)
    given = writer.input("images", np.float32, [1, 3, "h", "w"])
    sizes = np.array([1, 3, *rule.hw])
    writer.output("pixels", writer.op("Resize", given, EMPTY, EMPTY, sizes, mode="linear"), [1, 3, *rule.hw])
    session = onnxruntime.InferenceSession(writer.model("plain").SerializeToString(), providers=["CPUExecutionProvider"])
    (plain,) = session.run(None, {"images": image.transpose(2, 0, 1)[None].astype(np.float32)})
    assert (np.round(plain[0]) != network_image(image, rule)).mean() > 2e-3


EMPTY = np.zeros(0, dtype=np.float32)
