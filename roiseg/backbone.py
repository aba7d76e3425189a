"""The `backbone` stage: the user's detector, cut to what is cached."""

from pathlib import Path

from roiseg.cut_graph import CutGraph
from roiseg.extractor.graph import cut, load_graph, read_metadata
from roiseg.extractor.params import DetectionParams
from roiseg.files import write_bytes
from roiseg.types import HW, StoredType


def make_backbone(
    source: Path, layers: dict[str, str], input_hw: HW, dtype: StoredType, detections: DetectionParams | None, out: Path
) -> CutGraph:
    """Cut an ONNX and save the part.

    Args:
        source: the detector.
        layers: layer name -> tensor name.
        input_hw: size of the network input.
        dtype: stored type.
        detections: the detector's own boxes, or None.
        out: file.

    Returns:
        What the part says of itself.

    Raises:
        GraphError: see `roiseg.extractor.graph.cut`.
    """
    part = cut(load_graph(source), layers, input_hw, dtype, detections, str(source))
    write_bytes(out, part.SerializeToString(deterministic=True))
    return read_metadata(part, out)
