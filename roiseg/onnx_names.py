"""Names in the files that `export` writes, for those who write them and those who read them."""

METADATA_KEY = "roiseg"
"""Key of a file's metadata under which roiseg's own lie, as JSON."""

HEAD_FILE, BACKBONE_FILE = "head.onnx", "backbone.onnx"

BOXES = "boxes"
"""Input of a head: (R, 5) float32 of image number and xyxy in the unit frame."""

OUTPUT = "masks"
"""Output of a head: (R, 3, h, w) float32, probabilities that sum to 1 over the classes."""


def feature_input(layer: str) -> str:
    """Name of the input that takes a layer, (N, C, H, W) float32."""
    return f"features_{layer}"
