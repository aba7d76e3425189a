"""Tests of roiseg.export.simplify: fewer nodes, the same values, the same interface, the same bytes twice."""

import numpy as np
import onnx
import onnxruntime
import onnxslim
import pytest
from onnx import TensorProto, helper, numpy_helper

from roiseg.errors import GraphError
from roiseg.export.simplify import simplify


def wasteful() -> onnx.ModelProto:
    """y = x + (1 + 2), by way of a sum of constants, twice the same product and nodes that do nothing."""
    nodes = [
        helper.make_node("Add", ["one", "two"], ["three"]),
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Mul", ["same", "three"], ["left"]),
        helper.make_node("Mul", ["same", "three"], ["right"]),
        helper.make_node("Add", ["left", "right"], ["y"]),
        helper.make_node("Neg", ["left"], ["unused"]),
    ]
    sizes = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rois", 3]) for name in ("x", "y")}
    constants = [numpy_helper.from_array(np.full(3, value, np.float32), name) for name, value in (("one", 1), ("two", 2))]
    graph = helper.make_graph(nodes, "wasteful", [sizes["x"]], [sizes["y"]], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_what_isn_t_needed_is_gone_and_the_values_stay() -> None:
    model = wasteful()
    given = model.SerializeToString(deterministic=True)
    simple = simplify(model, "head.onnx")
    assert len(simple.graph.node) <= 3
    assert model.SerializeToString(deterministic=True) == given, "the argument was changed"
    assert [item.SerializeToString() for item in simple.graph.output] == [item.SerializeToString() for item in model.graph.output]
    for rois in (0, 1, 4):
        x = np.random.default_rng(rois).normal(size=(rois, 3)).astype(np.float32)
        np.testing.assert_allclose(run(simple, x), 6 * x, rtol=1e-6)


def test_twice_gives_the_same_bytes() -> None:
    first, second = (simplify(wasteful(), "head.onnx").SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_another_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fixed(model: onnx.ModelProto) -> onnx.ModelProto:
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
        return model

    monkeypatch.setattr(onnxslim, "slim", fixed)
    with pytest.raises(
        GraphError, match=r"head\.onnx: simplification changed y of its inputs and outputs.*export\.simplify to false"
    ):
        simplify(wasteful(), "head.onnx")
