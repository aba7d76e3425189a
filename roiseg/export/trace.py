"""A torch module as an ONNX graph of standard operators, with nothing in it of the machine that made it."""

import importlib
import logging
import warnings
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from roiseg.errors import ParityError

FORBIDDEN = ("If", "Loop", "Scan")
STANDARD = ("", "ai.onnx")


def trace(
    module: nn.Module,
    example: tuple[Tensor, ...],
    names: tuple[Sequence[str], Sequence[str]],
    free: tuple[Any, ...],
    opset: int,
    what: str,
) -> onnx.ModelProto:
    """Export by torch's exporter, and see that every target format can take the graph.

    Args:
        module: in eval mode, on the CPU.
        example: its positional inputs; free sizes are 2 or more, since torch.export takes 0 and 1 for constants.
        names: of the inputs, and of the outputs.
        free: for each parameter of the module, axis -> `torch.export.Dim`; for `*parameters`, a tuple of such.
        opset: ONNX operator set.
        what: what to call the graph in messages.

    Raises:
        ParityError: the graph has a branch, a loop or an operator that isn't ONNX's own.
    """
    # The exporter knows torchvision's operators only where that is there before it; heads import it when they first align ROIs.
    importlib.import_module("torchvision")
    with warnings.catch_warnings():
        # the exporter's own deprecations, which nobody here can act on
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            input_names=list(names[0]),
            output_names=list(names[1]),
            opset_version=opset,
            dynamic_shapes=free,
            verbose=False,
        )
    if program is None:
        raise ParityError(f"{what}: torch.onnx.export gave no program")
    model = program.model_proto
    check_operators(model, what)
    strip(model)
    keep_counts(model)
    onnx.checker.check_model(model)
    return model


def check_operators(model: onnx.ModelProto, what: str) -> None:
    """See that a graph holds standard operators only, and neither branch nor loop.

    Raises:
        ParityError: names those that it holds.
    """
    alien = alien_operators(model)
    if alien:
        raise ParityError(f"{what}: the graph holds {', '.join(alien)}, expected none; make the sizes of the module Python ints")


def alien_operators(model: onnx.ModelProto) -> list[str]:
    """Branches, loops and operators that aren't ONNX's own, which not every target format takes; those with their domain."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    alien = {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in STANDARD}
    return sorted(alien | {node.op_type for node in nodes if node.op_type in FORBIDDEN})


def strip(model: onnx.ModelProto) -> None:
    """Take out what the exporter notes of itself: file paths and stack traces of this machine."""
    graph = model.graph
    items: list[Any] = [model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]
    for item in items:
        item.doc_string = ""
        del item.metadata_props[:]


def keep_counts(model: onnx.ModelProto) -> None:
    """Say of each `Reshape` that leaves the first size alone that it does, where the exporter says -1.

    The same values for any count. But -1 hides from shape inference that the count is that of the ROIs, and onnxruntime's NCHWc
    layout then adds the results of two convolutions as if one were broadcast, by a reshape that fails for no ROIs.

    Args:
        model: it is changed.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {item.name: item.type.tensor_type.shape.dim for item in (*graph.input, *graph.value_info)}
    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants or not shapes.get(node.input[0]):
            continue
        count, *rest = (int(size) for size in numpy_helper.to_array(constants[node.input[1]]))
        before = [dim.dim_value for dim in shapes[node.input[0]][1:]]
        if count == -1 and min(before + rest, default=0) > 0 and prod(before) == prod(rest):
            name = f"{node.input[1]}_of_each"
            constants.setdefault(name, numpy_helper.from_array(np.array([0, *rest], dtype=np.int64), name))
            node.input[1] = name
            # Without `allowzero`, 0 is "as it was".
            del node.attribute[:]
    read = {name for node in model.graph.node for name in node.input}
    del model.graph.initializer[:]
    model.graph.initializer.extend(item for name, item in constants.items() if name in read)


def count_axes_from_front(model: onnx.ModelProto) -> None:
    """Name the axes that are reduced by their place from the front, where the exporter counts from the back.

    The same values. But onnxruntime 1.31 reduces no axis counted from the back where there are no ROIs, and the next node then
    refuses the shape.

    Args:
        model: it is changed.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    ranks = {item.name: len(item.type.tensor_type.shape.dim) for item in (*graph.input, *graph.value_info)}
    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        rank = ranks.get(node.input[0], 0) if node.input else 0
        if not rank or not (node.op_type.startswith("Reduce") or node.op_type in ("ArgMax", "ArgMin")):
            continue
        for attribute in node.attribute:
            if attribute.name == "axis" and attribute.i < 0:
                attribute.i += rank
        axes = numpy_helper.to_array(constants[node.input[1]]) if len(node.input) > 1 and node.input[1] in constants else None
        if axes is not None and (axes < 0).any():
            name = f"{node.input[1]}_of_{rank}"
            if name not in constants:
                constants[name] = numpy_helper.from_array(axes % rank, name)
                model.graph.initializer.append(constants[name])
            node.input[1] = name
