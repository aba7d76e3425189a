"""Graphs without what their exporters leave over."""

from typing import cast

import onnx

from roiseg.errors import GraphError


def simplify(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """The same function in fewer nodes: constants folded, unused and repeated parts taken out; inputs and outputs stay as they are.

    Args:
        model: left as it is.
        source: file name for messages.

    Raises:
        GraphError: the interface changed: names, types or shapes of inputs or outputs.
    """
    # Half a second to import, and `export.simplify` may be off.
    import onnxslim

    simplified = onnx.ModelProto()
    simplified.CopyFrom(model)
    simplified = cast("onnx.ModelProto", onnxslim.slim(simplified))
    del simplified.graph.value_info[:]
    before, after = (
        {item.name: item.type.SerializeToString(deterministic=True) for item in (*graph.input, *graph.output)}
        for graph in (model.graph, simplified.graph)
    )
    if before != after:
        changed = [name for name in before | after if before.get(name) != after.get(name)]
        raise GraphError(
            f"{source}: simplification changed {', '.join(changed)} of its inputs and outputs, expected them as they were; set "
            "export.simplify to false"
        )
    return simplified
