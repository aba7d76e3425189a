"""The backbone as an ONNX file, with the tensor names of the public graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from roiseg.sample.topology import BOX_BINS, CLASSES, ConvSpec
from roiseg.sample.walker import Walker
from roiseg.sample.weights import Weights

OPSET: Final = 17
IR_VERSION: Final = 10
INPUT: Final = "images"
OUTPUT: Final = "output0"


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
        name: Its name.
        channels: Its channels.
    """

    name: str
    channels: int


def _path(name: str) -> str:
    """`model.3.cv1` as `/model.3/cv1`; a number stays with the word before it."""
    parts: list[str] = []
    for part in name.split("."):
        if part.isdigit() and parts:
            parts[-1] += f".{part}"
        else:
            parts.append(part)
    return "/" + "/".join(parts)


@dataclass
class OnnxWriter:
    """Interpreter that adds a node for each step.

    Attributes:
        weights: Kernels and biases by module name.
        nodes: Nodes so far.
        constants: Initializers so far.
    """

    weights: Weights
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def _constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _node(self, kind: str, path: str, inputs: Sequence[str], count: int = 1, **attributes: Any) -> list[str]:  # noqa: ANN401 - ONNX attributes
        outputs = [f"{path}_output_{index}" for index in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, path, **attributes))
        return outputs

    def channels(self, value: Value) -> int:
        """See `Interpreter`."""
        return value.channels

    def conv(self, value: Value, spec: ConvSpec) -> Value:
        """See `Interpreter`."""
        kernel, bias = self.weights[spec.name]
        path = _path(spec.name)
        inside = f"{path}/conv/Conv" if spec.normed else f"{path}/Conv"
        inputs = [
            value.name,
            self._constant(f"{spec.name}.weight", kernel),
            self._constant(f"{spec.name}.bias", bias),
        ]
        (name,) = self._node(
            "Conv",
            inside,
            inputs,
            dilations=[1, 1],
            group=spec.groups,
            kernel_shape=[spec.kernel] * 2,
            pads=[spec.kernel // 2] * 4,
            strides=[spec.stride] * 2,
        )
        if spec.normed:
            (gate,) = self._node("Sigmoid", f"{path}/act/Sigmoid", [name])
            (name,) = self._node("Mul", f"{path}/act/Mul", [name, gate])
        return Value(name, spec.outputs)

    def add(self, name: str, values: Sequence[Value]) -> Value:
        """See `Interpreter`; in the order in which torch adds, so that the results agree."""
        total = values[0].name
        for step, value in enumerate(values[1:]):
            (total,) = self._node("Add", f"{_path(name)}_{step}" if len(values) > 2 else _path(name), [total, value.name])
        return Value(total, values[0].channels)

    def concat(self, name: str, values: Sequence[Value]) -> Value:
        """See `Interpreter`."""
        (output,) = self._node("Concat", _path(name), [value.name for value in values], axis=1)
        return Value(output, sum(value.channels for value in values))

    def split(self, name: str, value: Value, sizes: Sequence[int]) -> list[Value]:
        """See `Interpreter`."""
        if len(sizes) == 1:
            return [value]
        lengths = self._constant(f"{name}.sizes", np.asarray(sizes, np.int64))
        outputs = self._node("Split", _path(name), [value.name, lengths], len(sizes), axis=1)
        return [Value(output, size) for output, size in zip(outputs, sizes, strict=True)]

    def upsample(self, name: str, value: Value, factor: int) -> Value:
        """See `Interpreter`."""
        scales = self._constant(f"{name}.scales", np.asarray([1, 1, factor, factor], np.float32))
        modes: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
        (output,) = self._node("Resize", _path(name), [value.name, "", scales], **modes)
        return Value(output, value.channels)

    def max_pool(self, name: str, value: Value, kernel: int, stride: int) -> Value:
        """See `Interpreter`."""
        shape: dict[str, Any] = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2}
        (output,) = self._node("MaxPool", _path(name), [value.name], **shape)
        return Value(output, value.channels)

    def avg_pool(self, name: str, value: Value) -> Value:
        """See `Interpreter`."""
        (output,) = self._node("AveragePool", _path(name), [value.name], kernel_shape=[2, 2], strides=[1, 1])
        return Value(output, value.channels)

    def flatten(self, name: str, values: Sequence[Value]) -> Value:
        """See `Interpreter`."""
        shape = self._constant(f"{name}.shape", np.asarray([0, values[0].channels, -1], np.int64))
        flat = [self._node("Reshape", f"{_path(name)}_{index}", [value.name, shape])[0] for index, value in enumerate(values)]
        self.nodes.append(helper.make_node("Concat", flat, [OUTPUT], _path(name), axis=2))
        return Value(OUTPUT, values[0].channels)


def build_onnx(width: float, weights: Weights) -> onnx.ModelProto:
    """The network as an ONNX model.

    Input `images` (N, 3, H, W) float32 RGB, 0 to 1, H and W multiples of 32; output `output0`
    (N, 4 * 16 + 80, cells) float32, raw box bins and class logits of all cells of strides 8, 16 and 32.

    Args:
        width: Factor on all channels.
        weights: Kernels and biases for that width.

    Returns:
        The checked model.
    """
    writer = OnnxWriter(weights)
    Walker(writer, width).run(Value(INPUT, 3))
    graph = helper.make_graph(
        writer.nodes,
        "backbone",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", 4 * BOX_BINS + CLASSES, "cells"])],
        writer.constants,
    )
    model = helper.make_model(graph, producer_name="roiseg", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


def write_onnx(model: onnx.ModelProto, file: Path) -> None:
    """Write a model; the same model gives the same bytes.

    Args:
        model: The model.
        file: Where to.
    """
    file.write_bytes(model.SerializeToString(deterministic=True))
