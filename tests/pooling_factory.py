"""Filters of a single node, which cost no export."""

import json
from pathlib import Path
from typing import Literal

from onnx import TensorProto, helper

from roiseg.files import write_bytes


def write_pooling(path: Path, operator: Literal["AveragePool", "MaxPool"], reach: int) -> None:
    """Write the ONNX of a mean or a dilation, with the metadata of `roiseg export-filter`.

    Args:
        path: out.
        operator: which of the two; neither looks beyond the border of its map.
        reach: how many pixels it sees to each side.
    """
    side = 2 * reach + 1
    shape: list[str | int | None] = ["images", 1, "height", "width"]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output")]
    node = helper.make_node(operator, ["input"], ["output"], kernel_shape=[side, side], pads=[reach] * 4)
    graph = helper.make_graph([node], "filter", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"roiseg": json.dumps({"reach_px": reach, "channels": 1})})
    write_bytes(path, model.SerializeToString(deterministic=True))
