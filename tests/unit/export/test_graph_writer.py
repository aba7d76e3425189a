"""Tests of roiseg.export.graph_writer: arithmetic, order, and models within models."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from roiseg.export.graph_writer import GraphWriter, Value


def result(writer: GraphWriter, value: Value, axes: int = 1, **feeds: NDArray[Any]) -> NDArray[Any]:
    writer.output("out", value, [f"size_{axis}" for axis in range(axes)])
    model = writer.model("test")
    onnx.checker.check_model(model)
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(["out"], feeds)
    return np.asarray(found)


def test_numbers_take_the_type_of_the_value_beside_them() -> None:
    for dtype in (np.float32, np.float64, np.int64):
        writer = GraphWriter(18)
        values = writer.input("values", dtype, ["n"])
        found = result(writer, 10 - (values * 3 + 1) / 2, values=np.array([1, 2, 5], dtype=dtype))
        assert found.dtype == dtype
        assert found.tolist() == ([8, 7, 2] if dtype == np.int64 else [8, 6.5, 2])
    writer = GraphWriter(18)
    values = writer.input("values", np.float32, ["n"])
    assert result(writer, 6 / values, values=np.array([2, 3], dtype=np.float32)).tolist() == [3, 2]


def test_comparisons() -> None:
    writer = GraphWriter(18)
    values = writer.input("values", np.float32, ["n"])
    found = [(values > 1.0), (values >= 1.0), (values < 1.0), (values <= 1.0), values.same(1.0), (values > 0.0) & (values < 2.0)]
    stacked = writer.concat([item.cast(np.int64).unsqueeze(0) for item in found], 0)
    rows = result(writer, stacked, 2, values=np.array([0, 1, 2], dtype=np.float32)).tolist()
    assert rows == [[0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0]]


def test_descending_keeps_the_order_of_equals() -> None:
    values = np.array([1, 3, 2, 3, 1, 3], dtype=np.float32)
    for given in (values, values[:0]):
        writer = GraphWriter(18)
        order = writer.descending(writer.input("values", np.float32, ["n"]))
        assert result(writer, order, values=given).tolist() == ([1, 3, 5, 2, 0, 4] if len(given) else [])


def test_an_inlined_model_keeps_its_names_apart_and_its_opset() -> None:
    inner = GraphWriter(18)
    inner.output("y", inner.input("x", np.float32, ["n"]) * 2, ["n"])
    inner.output("unused", inner.input("z", np.float32, ["n"]) + 1, ["n"])
    model = inner.model("inner")
    model.ir_version = 9
    writer = GraphWriter(18)
    x = writer.input("x", np.float32, ["n"])
    once = writer.inline(model, "first", {"x": x, "z": x})["y"]
    twice = writer.inline(model, "second", {"x": once, "z": x})["y"]
    assert result(writer, twice, x=np.array([1, 5], dtype=np.float32)).tolist() == [4, 20]
    whole = writer.model("test")
    assert whole.ir_version == 9
    names = [node.name for node in whole.graph.node]
    assert len(set(names)) == len(names)
    assert not [node for node in whole.graph.node if node.op_type == "Add"], "what no output needs is left out"
