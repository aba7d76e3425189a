"""Names in the files that `export` writes, for those who write them and those who read them."""

METADATA_KEY = "roiseg"
"""Key of a file's metadata under which roiseg's own lie, as JSON."""

HEAD_FILE, BACKBONE_FILE, AUX_FILE, FILTER_FILE = "head.onnx", "backbone.onnx", "head.aux.onnx", "filter.onnx"

VARIANT_FILES = {"fp16": "head.fp16.onnx", "int8": "head.int8.onnx"}

END_TO_END_FILES = {"boxes": "end_to_end.onnx", "detector": "end_to_end_detector.onnx"}
"""Where the boxes come from -> file from images to masks."""

OWN_FILTER = "export"
"""What is said for the filter that a head was exported with."""

METADATA_FILE = "head.json"

SNAPPER_FILE, SNAPPER_METADATA_FILE = "snapper.onnx", "snapper.json"

SNAPPER_VARIANT_FILES = {"fp16": "snapper.fp16.onnx", "int8": "snapper.int8.onnx"}

WINDOWS = "windows"
"""Input of a Snapper: (R, 5) float32 of image number and a window's xyxy in the unit frame."""

CONFIDENCES = "confidences"
"""Output of a Snapper beside `BOXES` (R, 4) xyxy in the unit frame: (R, 4) float32, how sure each edge is."""

PERSON_LOGITS = "person_logits"
"""Tensor of a people net's cut graph that the layer `teacher` comes from."""

BOXES = "boxes"
"""Input of a head: (R, 5) float32 of image number and xyxy in the unit frame; output of a Snapper."""

OUTPUT = "masks"
"""Output of a head: (R, 3, h, w) float32, probabilities that sum to 1 over the classes."""


def feature_input(layer: str) -> str:
    """Name of the input that takes a layer, (N, C, H, W) float32."""
    return f"features_{layer}"
