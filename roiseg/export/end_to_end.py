"""One ONNX from images to full-size masks: preprocessing, backbone, head, ROIs, paste, confidence, filter and overlaps.

Symbols: N images, R ROIs, (H, W) pixels of an image, (h, w) pixels of the network input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import version_converter

from roiseg.cut_graph import CutGraph
from roiseg.errors import GraphError
from roiseg.export.graph_writer import GraphWriter, Value
from roiseg.export.onnx import described, write_model
from roiseg.export.paste_graph import Canvas, image_masks
from roiseg.export.preprocess_graph import Axis, image_axes, network_pixels
from roiseg.export.region_graph import Frames, Regions, found_boxes, person_regions
from roiseg.export.trace import alien_operators
from roiseg.extractor.graph import read_metadata
from roiseg.network_input import InputRule
from roiseg.onnx_names import BOXES, OUTPUT, feature_input
from roiseg.types import IMAGE

BoxSource = Literal["boxes", "detector"]

LEAST_OPSET = 18
"""The first that has the operators of these graphs as they are written."""

IMAGES, NETWORK_IMAGES = "images", "network_images"
"""Inputs of a graph that preprocesses, and of one that doesn't."""

SCORES, BOX_SCORES = "scores", "box_scores"

INTERFACE: Mapping[str, str] = {
    IMAGES: "uint8 (N, H, W, 3): pixels in the order blue, green, red",
    NETWORK_IMAGES: "float32 (N, 3, h, w): as the backbone takes them",
    BOXES: "float32 (R, 5): image number, x0, y0, x1, y1 in pixels of the input",
    OUTPUT: "uint8 (R, H, W): 1 where the person is, 0 elsewhere; of an image, no two share a pixel",
    SCORES: "float32 (R,): mean of target * (1 - non_target) over the cells that the target wins",
    BOX_SCORES: "float32 (R,): the detector's score of each box",
}
"""Input or output -> what it is; `convention` of the metadata."""


@dataclass(frozen=True)
class EndToEnd:
    """Which of the graphs.

    Attributes:
        boxes: `boxes`: they are an input; `detector`: its own are taken, and are outputs.
        preprocess: whether images of any size come in, or network inputs.
        smoothing: a filter from `input` to `output`, (n, 1, H, W) float32 in [0, 1], for what each person claims; or None.
    """

    boxes: BoxSource
    preprocess: bool
    smoothing: onnx.ModelProto | None = None


def export_end_to_end(
    head: onnx.ModelProto, backbone: onnx.ModelProto, metadata: Mapping[str, Any], choice: EndToEnd, path: Path
) -> onnx.ModelProto:
    """Write the whole way from images to masks as one file.

    Inputs `images` (N, H, W, 3) uint8 BGR, or without preprocessing `network_images` (N, 3, h, w) float32, which are the images
    from there on; and `boxes` (R, 5) float32 of image number and xyxy in their pixels, unless the detector gives them. Outputs
    `masks` (R, H, W) uint8 and `scores` (R,) float32; from the detector also `boxes`, clipped, image by image and best score first,
    and `box_scores` (R,) float32. A box without area in its image has an empty mask and score 0.

    Args:
        head: what `export_head` made.
        backbone: the cut one, its scales baked in.
        metadata: of the head; kept as JSON in the file's metadata, with the graph's own inputs and outputs.
        choice: which of the graphs.
        path: out.

    Raises:
        GraphError: the backbone has no detections, or something that the file must not hold.
    """
    info = read_metadata(backbone, path)
    parts = [head, backbone, *([choice.smoothing] if choice.smoothing else [])]
    opset = max(LEAST_OPSET, *(_opset(part) for part in parts))
    head, backbone, *rest = (_at_opset(part, opset, path) for part in parts)
    writer = GraphWriter(opset)
    with writer.scope("preprocess"):
        source = _source(writer, InputRule.from_plain(metadata["input"]), info, preprocess=choice.preprocess)
    # A head on pixels alone, with boxes given, needs no backbone.
    asks = choice.boxes == "detector" or any(name != IMAGE for name in metadata["layers"])
    found = writer.inline(backbone, "backbone", {info.input_name: source.network}) if asks else {}
    with writer.scope("regions"):
        regions, extra = _regions(found, info, Frames(source.axes), metadata, choice.boxes, path)
    # Else onnxruntime takes the ROIs that the detector finds for another count in each layer, and fails where there are none.
    writer.declare(regions.boxes, ["rois", 5])
    with writer.scope("features"):
        features = _features(found, source.image, metadata)
    probabilities = writer.inline(head, "head", {**features, BOXES: regions.boxes})[OUTPUT]
    with writer.scope("paste"):
        mask_hw = (int(metadata["mask_hw"][0]), int(metadata["mask_hw"][1]))
        masks, scores = image_masks(probabilities, regions, source.canvas, mask_hw, rest[0] if rest else None)
    writer.output(OUTPUT, masks, ["rois", "height", "width"])
    writer.output(SCORES, scores, ["rois"])
    for name, value in extra.items():
        writer.output(name, value, ["rois", 5] if name == BOXES else ["rois"])
    model = writer.model("end_to_end")
    _check_operators(model, path)
    write_model(model, {**metadata, **_described(model, opset)}, path)
    return model


def _opset(model: onnx.ModelProto) -> int:
    return next(int(item.version) for item in model.opset_import if not item.domain)


def _at_opset(model: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    if _opset(model) == opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except (RuntimeError, version_converter.ConvertError) as error:
        raise GraphError(
            f"{path}: a part of opset {_opset(model)} can't be brought to {opset}, which the others have "
            f"({error}); export the detector anew with opset {opset}, or set export.end_to_end to []"
        ) from error


@dataclass(frozen=True)
class _Source:
    """What comes in, in the forms in which the parts take it.

    Attributes:
        network: (N, 3, h, w) float32, as the backbone takes it.
        image: (N, 3, h, w) float32 of whole numbers 0 to 255, RGB, as stores hold images.
        axes: how the images fill the network input.
        canvas: the images that masks are pasted into.
    """

    network: Value
    image: Value
    axes: tuple[Axis, Axis]
    canvas: Canvas


def _source(writer: GraphWriter, rule: InputRule, info: CutGraph, *, preprocess: bool) -> _Source:
    count = info.batch_size or "images"
    flipped = (2, 1, 0)
    if preprocess:
        images = writer.input(IMAGES, np.uint8, [count, "height", "width", 3])
        canvas = Canvas(*(images.size(axis) for axis in range(3)))
        axes = image_axes((canvas.height, canvas.width), rule.hw, rule.resize)
        pixels = network_pixels(images, axes, rule)
        image = pixels.pick(flipped, 1)
        ordered = image if rule.color == "rgb" else pixels
        return _Source(ordered if rule.pixel_max == 255 else ordered * (rule.pixel_max / 255), image, axes, canvas)
    network = writer.input(NETWORK_IMAGES, np.float32, [count, 3, *rule.hw])
    canvas = Canvas(network.size(0), *(writer.number(side, np.int64) for side in rule.hw))
    ordered = network if rule.pixel_max == 255 else writer.op("Round", network * (255 / rule.pixel_max))
    image = ordered if rule.color == "rgb" else ordered.pick(flipped, 1)
    return _Source(network, image, image_axes((canvas.height, canvas.width), rule.hw, "stretch"), canvas)


def _regions(
    found: Mapping[str, Value], info: CutGraph, frames: Frames, metadata: Mapping[str, Any], boxes: BoxSource, path: Path
) -> tuple[Regions, dict[str, Value]]:
    """The ROIs, and what the graph gives out of the detector's boxes."""
    writer, padding = frames.writer, float(metadata["roi_padding"])
    if boxes == "boxes":
        given = writer.input(BOXES, np.float32, ["rois", 5])
        numbers, corners = given.pick(0, 1).cast(np.int64), given.pick((1, 2, 3, 4), 1).cast(np.float64)
        return person_regions(numbers, corners, frames, padding), {}
    rule = metadata.get("detections")
    if not rule or info.detections is None:
        raise GraphError(
            f"{path}: boxes are to come from the detector, but its graph was cut without them; name their output in "
            "extractor.detections and run `dvc repro backbone`, or leave 'detector' out of export.end_to_end"
        )
    people = found_boxes(found[info.detections], frames, int(rule["person_class"]), float(rule["min_score"]))
    numbered = writer.concat([people.images.unsqueeze(1).cast(np.float32), people.boxes_image.cast(np.float32)], 1)
    return person_regions(people.images, people.boxes_image, frames, padding), {BOXES: numbered, BOX_SCORES: people.scores}


def _features(found: Mapping[str, Value], image: Value, metadata: Mapping[str, Any]) -> dict[str, Value]:
    """The head's inputs, as the store's values are read: cast to float32, times their scale."""
    features = {}
    for name in metadata["layers"]:
        values = image if name == IMAGE else found[name].cast(np.float32)
        if name in metadata["scales"]:
            scales = np.array(metadata["scales"][name], dtype=np.float32).reshape(1, -1, 1, 1)
            values = values.writer.op("Mul", values, scales)
        features[feature_input(name)] = values
    return features


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    alien = alien_operators(model)
    if alien:
        raise GraphError(
            f"{path}: the graph holds {', '.join(alien)}, expected standard operators without branches and loops; simplify the "
            "detector's ONNX (`onnxsim`), or set export.end_to_end to []"
        )


def _described(model: onnx.ModelProto, opset: int) -> dict[str, Any]:
    """What the graph says of itself, in place of what the head's does."""
    ends = (*model.graph.input, *model.graph.output)
    return {
        "inputs": described(model.graph.input),
        "outputs": described(model.graph.output),
        "opset": opset,
        "convention": {item.name: INTERFACE[item.name] for item in ends},
    }
