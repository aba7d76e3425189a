"""A head's file in float16: half the bytes, and float32 where half the bits would lose the answer.

onnxruntime's own converter rounds the result of every node that stays float32 to float16 and back before the next one reads it, and
fails where two of them read the same tensor; here float32 nodes that follow each other pass on float32.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from roiseg.errors import GraphError
from roiseg.export.variants import behind_weights, of_boxes, read_head, write_variant

WIDE = (
    frozenset({"RoiAlign", "Resize", "Range", "CumSum", "InstanceNormalization", "LayerNormalization", "GroupNormalization"})
    | frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "Pow", "Sqrt", "Reciprocal"})
    | frozenset({"Exp", "Log", "Softmax", "LogSoftmax"})
)
"""Operators that stay float32: coordinates, sums over many cells, and what overflows (float16 ends at 65504) or underflows."""

HALF = np.finfo(np.float16)


def make_half(head: Path, out: Path, *, exact_answers: bool = False) -> None:
    """Write the float16 variant of a head's file: the same inputs and outputs, float32 too.

    All that depends on the boxes alone stays float32, since float16 knows coordinates to a two-thousandth only and image numbers
    to 2048; so do the nodes of `WIDE`, and those with a constant that float16 can't hold.

    Args:
        head: file of `export_head`, float32.
        out: the variant; its metadata say `precision: float16`.
        exact_answers: whether all behind the last weights stays float32, since the answers are coordinates themselves.

    Raises:
        GraphError: a weight is beyond float16's range, or the graph isn't one of a head.
    """
    model = read_head(head)
    _Halved(model, head).convert(behind_weights(model.graph) if exact_answers else set())
    write_variant(head, model, out, {"precision": "float16"})


class _Halved:
    """A graph on its way to float16."""

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self._graph, self._path = model.graph, path
        self._opset = next(item.version for item in model.opset_import if not item.domain)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        values = (*inferred.input, *inferred.output, *inferred.value_info)
        self._constants = {item.name: item for item in model.graph.initializer}
        self._floats = {item.name for item in values if item.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._floats |= {name for name, item in self._constants.items() if item.data_type == TensorProto.FLOAT}
        self._outputs = {item.name for item in model.graph.output}
        self._halves: set[str] = set()
        self._renamed: dict[str, str] = {}
        self._cast: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, TensorProto] = {}

    def convert(self, exact: Collection[int]) -> None:
        """Rewrite the graph's nodes and initializers; those at `exact` positions stay float32."""
        coordinates = of_boxes(self._graph) | set(exact)
        for place, node in enumerate(self._graph.node):
            self._add(node, wide=place in coordinates or node.op_type in WIDE or any(map(self._beyond, node.input)))
        for name in self._outputs & set(self._renamed):
            self._nodes.append(helper.make_node("Cast", [self._renamed[name]], [name], f"{name}_to_float", to=TensorProto.FLOAT))
        read = {name for node in self._nodes for name in node.input}
        kept = [*self._constants.values(), *self._weights.values()]
        kept = [item for item in kept if item.name in read]
        del self._graph.node[:], self._graph.initializer[:], self._graph.value_info[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(kept)

    def _beyond(self, name: str) -> bool:
        """Whether it is a single number that float16 holds not at all or with few bits, such as a norm's 1e-5."""
        if name not in self._constants or name not in self._floats or np.prod(self._constants[name].dims) > 1:
            return False
        size = np.abs(numpy_helper.to_array(self._constants[name]))
        return bool(np.any(np.isfinite(size) & ((size > HALF.max) | ((size > 0) & (size < HALF.tiny)))))

    def _add(self, node: onnx.NodeProto, *, wide: bool) -> None:
        """Take over a node, with the casts that it needs before it."""
        schema = onnx.defs.get_schema(node.op_type, self._opset, node.domain)
        for place, name in enumerate(node.input):
            if name in self._floats:
                half = not wide and _takes_half(schema.inputs, place)
                node.input[place] = self._as(name, TensorProto.FLOAT16 if half else TensorProto.FLOAT)
        for place, name in enumerate(node.output):
            if name in self._floats and not wide and _takes_half(schema.outputs, place):
                if name in self._outputs:
                    node.output[place] = self._renamed[name] = f"{name}_half"
                self._halves.add(node.output[place])
                _make_results_half(node)
        self._nodes.append(node)

    def _as(self, name: str, kind: int) -> str:
        """Name of a tensor in another type, which is made where it isn't there yet."""
        if name in self._constants:
            return self._half_weight(name) if kind == TensorProto.FLOAT16 else name
        name = self._renamed.get(name, name)
        if (name in self._halves) == (kind == TensorProto.FLOAT16):
            return name
        if (name, kind) not in self._cast:
            found = f"{name}_as_{'half' if kind == TensorProto.FLOAT16 else 'float'}"
            self._nodes.append(helper.make_node("Cast", [name], [found], found, to=kind))
            self._cast[name, kind] = found
        return self._cast[name, kind]

    def _half_weight(self, name: str) -> str:
        found = f"{name}_half"
        if found not in self._weights:
            values = numpy_helper.to_array(self._constants[name])
            largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
            if largest > HALF.max:
                raise GraphError(
                    f"{self._path}: {name} holds {largest:g}, expected at most {HALF.max:g}, the largest float16; "
                    "take fp16 out of export.variants, or train with more train.weight_decay"
                )
            self._weights[found] = numpy_helper.from_array(values.astype(np.float16), found)
        return found


def _takes_half(formal: Sequence[Any], place: int) -> bool:
    """Whether the operator knows float16 at an input or output; the last of a list stands for all that follow."""
    return "tensor(float16)" in formal[min(place, len(formal) - 1)].types


def _make_results_half(node: onnx.NodeProto) -> None:
    """Change the attributes that say what type a node gives."""
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(attribute.t).astype(np.float16)
            attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))
