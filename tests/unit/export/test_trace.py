"""Tests of roiseg.export.trace: what a graph may hold, and how inputs and free sizes are named."""

import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from roiseg.errors import ParityError
from roiseg.export.trace import check_operators, trace


def test_a_loop_is_refused() -> None:
    loop = helper.make_node("Loop", ["n", "c"], [], body=helper.make_graph([], "body", [], []))
    model = helper.make_model(helper.make_graph([loop], "graph", [], []))
    with pytest.raises(
        ParityError, match=r"head\.onnx: the graph holds Loop, expected none; make the sizes of the module Python ints"
    ):
        check_operators(model, "head.onnx")


def test_another_s_operator_is_refused() -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    sizes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "graph", sizes[:1], sizes[1:]))
    with pytest.raises(ParityError, match=r"head\.onnx: the graph holds Gelu, expected none"):
        check_operators(model, "head.onnx")


def test_inputs_and_free_sizes_have_the_given_names() -> None:
    class Sum(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return first + second

    rows = torch.export.Dim("rows")
    example = (torch.zeros(3, 2), torch.zeros(3, 2))
    model = trace(Sum(), example, (["a", "b"], ["c"]), ({0: rows}, {0: rows}), 18, "sum")
    assert [item.name for item in model.graph.input] == ["a", "b"]
    assert [[dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim] for item in model.graph.output] == [
        ["rows", 2]
    ]
