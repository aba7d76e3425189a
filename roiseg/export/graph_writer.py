"""ONNX graphs written as arithmetic, and other models put into them.

onnxscript translates source code, in which a choice of the exporter would become an `If` of the graph; here a node is added as its
line of Python runs, so that what isn't chosen leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import compose, helper, numpy_helper

Constant = float | Sequence[int] | npt.NDArray[Any]
Attribute = int | float | str | Sequence[int] | onnx.TensorProto


@dataclass(frozen=True)
class Value:
    """A tensor of a graph that is being written; numbers beside it in a sum or comparison take its type.

    Attributes:
        writer: of the graph.
        name: in the graph.
        dtype: of its elements.
    """

    writer: GraphWriter
    name: str
    dtype: np.dtype[Any]

    def __add__(self, other: Value | float) -> Value:
        return self.writer.op("Add", self, other)

    def __sub__(self, other: Value | float) -> Value:
        return self.writer.op("Sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return self.writer.op("Sub", self.writer.number(other, self.dtype), self)

    def __rtruediv__(self, other: float) -> Value:
        return self.writer.op("Div", self.writer.number(other, self.dtype), self)

    def __mul__(self, other: Value | float) -> Value:
        return self.writer.op("Mul", self, other)

    def __truediv__(self, other: Value | float) -> Value:
        """Of integers: the quotient cut to a whole number."""
        return self.writer.op("Div", self, other)

    def __gt__(self, other: Value | float) -> Value:
        return self.writer.op("Greater", self, other, dtype=bool)

    def __ge__(self, other: Value | float) -> Value:
        return self.writer.op("GreaterOrEqual", self, other, dtype=bool)

    def __lt__(self, other: Value | float) -> Value:
        return self.writer.op("Less", self, other, dtype=bool)

    def __le__(self, other: Value | float) -> Value:
        return self.writer.op("LessOrEqual", self, other, dtype=bool)

    def __and__(self, other: Value) -> Value:
        return self.writer.op("And", self, other)

    def same(self, other: Value | float) -> Value:
        """Element for element (`==` is the comparison of dataclasses)."""
        return self.writer.op("Equal", self, other, dtype=bool)

    def cast(self, dtype: npt.DTypeLike) -> Value:
        """In another type."""
        return self.writer.op("Cast", self, dtype=dtype, to=int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))

    def pick(self, place: int | Sequence[int] | Value, axis: int) -> Value:
        """What lies at some places of an axis; a single number takes the axis away."""
        where = place if isinstance(place, Value) else self.writer.constant(np.asarray(place, dtype=np.int64))
        return self.writer.op("Gather", self, where, axis=axis)

    def reshape(self, *shape: int) -> Value:
        """-1 once for what is left, 0 for the size that it has."""
        return self.writer.op("Reshape", self, list(shape))

    def unsqueeze(self, *axes: int) -> Value:
        """With axes of one element more."""
        return self.writer.op("Unsqueeze", self, list(axes))

    def reduce(self, kind: str, axes: Sequence[int], *, keep: bool = False) -> Value:
        """`Sum`, `Max`, `Min`: over axes, which stay with one element if `keep`."""
        return self.writer.op(f"Reduce{kind}", self, list(axes), keepdims=int(keep))

    def size(self, axis: int) -> Value:
        """How many elements an axis has: a number, int64."""
        return self.writer.op("Shape", self, dtype=np.int64, start=axis, end=axis + 1).reshape()


class GraphWriter:
    """A graph that grows by a node with each call."""

    def __init__(self, opset: int) -> None:
        self.opset, self.ir_version = opset, 8
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._shapes: list[onnx.ValueInfoProto] = []
        self._scope = ""

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names of what is added begin with this."""
        before, self._scope = self._scope, f"{name}/"
        yield
        self._scope = before

    def _name(self, kind: str) -> str:
        return f"{self._scope}{kind}_{len(self._nodes) + len(self._constants)}"

    def input(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> Value:
        """An input of the graph; sizes that have a name are free."""
        self._inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape))
        return Value(self, name, np.dtype(dtype))

    def output(self, name: str, value: Value, shape: Sequence[int | str]) -> None:
        """Make a value an output of the graph."""
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        self._nodes.append(helper.make_node("Identity", [value.name], [name], name=f"{name}/Identity"))
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def declare(self, value: Value, shape: Sequence[int | str]) -> None:
        """Name sizes that shape inference loses, such as a count that values decide."""
        self._shapes.append(helper.make_tensor_value_info(value.name, helper.np_dtype_to_tensor_dtype(value.dtype), shape))

    def constant(self, values: npt.NDArray[Any]) -> Value:
        """Numbers that are part of the graph."""
        name = self._name("constant")
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))
        return Value(self, name, values.dtype)

    def number(self, value: float, dtype: npt.DTypeLike) -> Value:
        """One number."""
        return self.constant(np.asarray(value, dtype=dtype))

    def op(self, kind: str, *inputs: Value | Constant, dtype: npt.DTypeLike | None = None, **attributes: Attribute) -> Value:
        """A node with one output.

        Args:
            kind: standard operator.
            inputs: a plain number takes the first input's type, a list of numbers is int64.
            dtype: of the output; None: as the first input.
            attributes: of the node.
        """
        name = self._name(kind)
        first = next((item.dtype for item in inputs if isinstance(item, Value)), np.dtype(np.int64))
        given = [self._as_value(item, first) for item in inputs]
        node = helper.make_node(kind, [item.name for item in given], [name], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self._nodes.append(node)
        return Value(self, name, np.dtype(dtype) if dtype is not None else given[0].dtype)

    def _as_value(self, item: Value | Constant, dtype: np.dtype[Any]) -> Value:
        if isinstance(item, Value):
            return item
        if isinstance(item, np.ndarray):
            return self.constant(item)
        return self.constant(np.asarray(item, dtype=np.int64 if isinstance(item, Sequence) else dtype))

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        """Parts behind each other."""
        return self.op("Concat", *parts, axis=axis)

    def count(self, limit: Value) -> Value:
        """0, 1, ... below a number, as int64."""
        return self.op("Range", self.number(0, np.int64), limit, self.number(1, np.int64))

    def where(self, condition: Value, yes: Value, no: float) -> Value:
        """`yes` where the condition holds."""
        return self.op("Where", condition, yes, self.number(no, yes.dtype), dtype=yes.dtype)

    def descending(self, values: Value) -> Value:
        """Places of the values (n,) from the largest to the least, equal ones in their order: int64 (n,)."""
        name = self._name("TopK")
        size = self.op("Shape", values, dtype=np.int64)
        self._nodes.append(helper.make_node("TopK", [values.name, size.name], [f"{name}_values", name], name=name, axis=0))
        return Value(self, name, np.dtype(np.int64))

    def nonzero(self, condition: Value) -> Value:
        """Places (k,) of what is true in (n,): int64."""
        return self.op("NonZero", condition, dtype=np.int64).reshape(-1)

    def inline(self, model: onnx.ModelProto, name: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Put a whole model in.

        Args:
            model: of the same operator set.
            name: what the names of its parts begin with.
            inputs: its input -> value.

        Returns:
            Its output -> value.
        """
        prefix = f"{name}/"
        graph = compose.add_prefix(model, prefix).graph
        for inner, value in inputs.items():
            self._nodes.append(helper.make_node("Identity", [value.name], [prefix + inner], name=f"{prefix}{inner}/Identity"))
        self._nodes.extend(graph.node)
        self._constants.extend(graph.initializer)
        self.ir_version = max(self.ir_version, model.ir_version)
        types = {item.name: item.type.tensor_type.elem_type for item in graph.output}
        return {item[len(prefix) :]: Value(self, item, helper.tensor_dtype_to_np_dtype(kind)) for item, kind in types.items()}

    def model(self, name: str) -> onnx.ModelProto:
        """The graph as it stands, without what no output needs."""
        needed = {item.name for item in self._outputs}
        nodes = []
        for node in reversed(self._nodes):
            if needed & set(node.output):
                nodes.append(node)
                needed |= set(_all_inputs(node))
        constants = [item for item in self._constants if item.name in needed]
        shapes = [item for item in self._shapes if item.name in needed]
        graph = helper.make_graph(nodes[::-1], name, self._inputs, self._outputs, constants, value_info=shapes)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, producer_name="roiseg", opset_imports=opsets, ir_version=self.ir_version)


def _all_inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Of a node, and of what the graphs that it holds take from outside."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from _all_inputs(inner)
