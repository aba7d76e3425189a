"""A detector that finds people, a head without training, and the single steps from image to masks, which the one file must equal.

Symbols: N images, R people of an image, (H, W) its pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from head_factory import INPUT_HW, SPECS
from numpy.typing import NDArray

from roiseg.classes import Bools
from roiseg.export.graph_writer import GraphWriter, Value
from roiseg.extractor.detections import DetectionRule, read_detections
from roiseg.extractor.graph import bake_scales, cut
from roiseg.extractor.params import DetectionParams
from roiseg.geometry import Floats, clip_boxes, roi_boxes
from roiseg.network_input import InputRule, Pixels, as_input, network_image
from roiseg.overlap import resolve
from roiseg.placed import paste_target
from roiseg.types import HW, FeatureSpec, StoredType

TENSORS = {"layer_34": "/34", "layer_3": "/3"}
DETECTIONS = DetectionParams(output="found", person_class=0, min_score=0.25)
MASK_HW: HW = (12, 10)

FOUND = np.array(
    [
        (1, 0.9, 4, 4, 40, 60),  # another class
        (0, 0.5, 8.25, 6.5, 40.75, 60.1),
        (0, 0.8, 30, 10, 90, 63),
        (0, 0.2, 0, 0, 50, 50),  # too low
        (0, 0.5, 9, 7, 41, 61),  # a tie
        (0, 0.7, -20, 30, 20, 80),  # cut by the image
        (0, 0.6, 97, 3, 120, 30),  # outside
        (0, 0.6, 50, 20, 50, 40),  # no width
    ],
    dtype=np.float32,
)
"""Class, score and box in network pixels of what the detector finds; scores sink with the brightest pixel of an image."""


def backbone(
    dtype: StoredType = "float16", *, detections: bool = True, batch: int | None = None, tensors: Mapping[str, str] = TENSORS
) -> onnx.ModelProto:
    """A cut detector, or a net of people, with these layers of `SPECS`, and `FOUND` in every image."""
    writer = GraphWriter(17)
    images = writer.input("images", np.float32, [batch or "N", 3, *INPUT_HW])
    rng, scales = np.random.default_rng(5), {}
    for name, tensor in tensors.items():
        spec = SPECS[name]
        stride = int(spec.stride_hw[0])
        kernel = rng.normal(0, 2 / stride, (spec.channels, 3, stride, stride)).astype(np.float32)
        values = writer.op("Conv", images, kernel, strides=[stride, stride])
        writer.output(tensor, values, ["N", spec.channels, *(int(side / stride) for side in INPUT_HW)])
        scales[name] = np.full(spec.channels, 0.05, dtype=np.float32)
    count = images.size(0)
    numbers = writer.count(count).cast(np.float32)
    peak = writer.op("ReduceMax", images, axes=[1, 2, 3], keepdims=1).reshape(-1, 1, 1)
    rows = writer.constant(np.concatenate([np.zeros((len(FOUND), 1)), FOUND], axis=1).astype(np.float32)[None])
    place = writer.constant(np.eye(7, dtype=np.float32)[0])
    shrink = writer.constant(np.eye(7, dtype=np.float32)[2])
    found = rows + numbers.reshape(-1, 1, 1) * place - (1.0 - peak) * 0.7 * shrink
    writer.output(DETECTIONS.output, found.reshape(-1, 7), ["n", 7])
    chosen = DETECTIONS if detections else None
    return bake_scales(cut(writer.model("tiny"), tensors, INPUT_HW, dtype, chosen, "tiny"), scales if dtype == "int8" else {})


def head(
    layers: Sequence[str] = ("layer_34",), specs: Mapping[str, FeatureSpec] = SPECS, input_hw: HW = INPUT_HW
) -> onnx.ModelProto:
    """ROI align and one convolution over the layers."""
    writer = GraphWriter(18)
    sizes = {name: [round(side / stride) for side, stride in zip(input_hw, specs[name].stride_hw, strict=True)] for name in layers}
    maps = {name: writer.input(f"features_{name}", np.float32, ["N", specs[name].channels, *size]) for name, size in sizes.items()}
    boxes = writer.input("boxes", np.float32, ["rois", 5])
    numbers = boxes.pick(0, 1).cast(np.int64)
    total: Value | None = None
    for seed, (name, values) in enumerate(maps.items()):
        height, width = sizes[name]
        corners = boxes.pick((1, 2, 3, 4), 1) * writer.constant(np.array([width, height] * 2, dtype=np.float32))
        size: dict[str, Any] = {"output_height": MASK_HW[0], "output_width": MASK_HW[1], "sampling_ratio": 1}
        pooled = writer.op("RoiAlign", values, corners, numbers, coordinate_transformation_mode="half_pixel", **size)
        kernel = np.random.default_rng(seed).normal(0, 2, (3, specs[name].channels, 1, 1)).astype(np.float32)
        logits = writer.op("Conv", pooled, kernel)
        total = logits if total is None else total + logits
    assert total is not None
    writer.output("masks", _contrast(total), ["rois", 3, *MASK_HW])
    return writer.model("head")


def contrasted(model: onnx.ModelProto) -> onnx.ModelProto:
    """A head whose classes share each ROI: one that wasn't trained may never say target."""
    writer = GraphWriter(18)
    inputs = {}
    for item in model.graph.input:
        shape = [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim]
        inputs[item.name] = writer.input(item.name, np.float32, shape)
    masks = writer.inline(model, "head", inputs)["masks"]
    writer.output("masks", _contrast(writer.op("Log", masks)), ["rois", 3, *MASK_HW])
    return writer.model("contrasted")


def _contrast(logits: Value) -> Value:
    """Probabilities of logits (R, 3, h, w) about their mean over the ROI."""
    return logits.writer.op("Softmax", logits - logits.writer.op("GlobalAveragePool", logits), axis=1)


def metadata(layers: Sequence[str] = ("layer_34",), **changes: object) -> dict[str, Any]:
    """What a head's file says of itself, as far as it is read."""
    values: dict[str, Any] = {
        "layers": {name: {} for name in layers},
        "input": InputRule(INPUT_HW, "stretch", "rgb", 1.0).plain(),
        "scales": {"image": [1 / 255] * 3} if "image" in layers else {},
        "roi_padding": 0.0,
        "mask_hw": list(MASK_HW),
        "detections": {"output": DETECTIONS.output, "person_class": 0, "min_score": DETECTIONS.min_score},
    }
    return values | changes


def int8_scales(layers: Sequence[str]) -> dict[str, list[float]]:
    """`scales` of metadata for a backbone of int8."""
    return {name: [0.05] * SPECS[name].channels if name in TENSORS else [1 / 255] * 3 for name in layers}


@dataclass(frozen=True)
class Encoded:
    """What the backbone says of an image."""

    image_hw: HW
    outputs: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Mask:
    """One person."""

    mask: Bools
    score: float


@dataclass(frozen=True)
class Found:
    """The detector's people."""

    boxes_image: Floats
    scores: Floats


class StepByStep:
    """OpenCV, the backbone, the head, and NumPy from there on."""

    def __init__(self, head: onnx.ModelProto, backbone: onnx.ModelProto, described: Mapping[str, Any]) -> None:
        self.described, self.rule = described, InputRule.from_plain(described["input"])
        self._backbone, self._head = (onnxruntime.InferenceSession(item.SerializeToString()) for item in (backbone, head))

    def encode(self, images: Sequence[Pixels]) -> list[Encoded]:
        (image_input,) = self._backbone.get_inputs()
        encoded = []
        for pixels in images:
            planes = network_image(pixels, self.rule)
            count = image_input.shape[0] if isinstance(image_input.shape[0], int) else 1
            values = self._backbone.run(None, {image_input.name: np.repeat(as_input(planes, self.rule)[None], count, axis=0)})
            outputs = {item.name: value for item, value in zip(self._backbone.get_outputs(), values, strict=True)}
            rgb = planes if self.rule.color == "rgb" else planes[::-1]
            encoded.append(Encoded(pixels.shape[:2], outputs | {"image": rgb[None]}))
        return encoded

    def detect(self, encoded: Encoded) -> Found:
        rule = DetectionRule(**self.described["detections"])
        (unit,) = read_detections(encoded.outputs[rule.output], rule, [encoded.image_hw], self.rule)
        return Found(self.rule.resizing(encoded.image_hw).boxes_to_image(unit[:, :4]), unit[:, 4])

    def masks(self, encoded: Encoded, boxes_image: Floats) -> list[Mask]:
        resize = self.rule.resizing(encoded.image_hw)
        rois = roi_boxes(resize.boxes_to_unit(clip_boxes(boxes_image, encoded.image_hw)), self.described["roi_padding"])
        feeds = {"boxes": np.concatenate([np.zeros((len(rois), 1)), rois], axis=1).astype(np.float32)}
        for name in self.described["layers"]:
            scales = np.array(self.described["scales"].get(name, 1), dtype=np.float32).reshape(1, -1, 1, 1)
            feeds[f"features_{name}"] = encoded.outputs[name][:1].astype(np.float32) * scales
        (probabilities,) = self._head.run(["masks"], feeds)
        pasted = [
            paste_target(cells, roi, encoded.image_hw)
            for cells, roi in zip(probabilities, resize.boxes_to_image(rois), strict=True)
        ]
        return [
            Mask(np.asarray(placed.whole(encoded.image_hw)), item.score)
            for placed, item in zip(resolve(pasted), pasted, strict=True)
        ]


def photo(image_hw: HW, seed: int) -> Pixels:
    """Blurred noise (H, W, 3), so that a resize means something."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(image_hw[0] // 8, 1), max(image_hw[1] // 8, 1), 3)).astype(np.float64)
    rows, columns = (np.linspace(0, side - 1, length) for side, length in zip(coarse.shape, image_hw, strict=False))
    low = coarse[rows.astype(int)][:, columns.astype(int)]
    return np.asarray((low * 0.7 + rng.integers(0, 77, (*image_hw, 3))).clip(0, 255), dtype=np.uint8)


def people(image_hw: HW, count: int, seed: int) -> Floats:
    """Boxes (R, 4) xyxy of an image's pixels, float32 values: two alike, some that end in the middle of a pixel or outside."""
    rng = np.random.default_rng(seed)
    height, width = image_hw
    low = rng.uniform(-0.1, 0.7, (count, 2)) * [width, height]
    boxes = np.concatenate([low, low + rng.uniform(0.2, 0.7, (count, 2)) * [width, height]], axis=1)
    boxes[1::3] = np.round(boxes[1::3]) + 0.5
    if count > 4:
        boxes[4] = boxes[2]
    return boxes.astype(np.float32).astype(np.float64)
