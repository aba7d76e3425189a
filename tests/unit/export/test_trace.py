"""Tests of roiseg.export.trace: what a graph may hold, and how inputs and free sizes are named."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from roiseg.errors import ParityError
from roiseg.export.trace import check_operators, trace
from roiseg.nn.norms import GroupNorm


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
    with pytest.raises(ParityError, match=r"head\.onnx: the graph holds com\.microsoft\.Gelu, expected none"):
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


def test_no_rows_pass_through_norms_and_a_sum_of_convolutions() -> None:
    """Of 64 channels: onnxruntime has a layout of its own for those, which failed here."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.ModuleList(nn.Sequential(GroupNorm(4, 64), nn.ReLU(), nn.Conv2d(64, 3, 1)) for _ in range(2))

        def forward(self, maps: Tensor) -> Tensor:
            first, second = (branch(maps) for branch in self.branches)
            total: Tensor = first + second
            return total

    branches = Branches().eval()
    model = trace(branches, (torch.zeros(2, 64, 5, 6),), (["maps"], ["sum"]), ({0: torch.export.Dim("rows")},), 18, "sum")
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    reshapes = [constants[node.input[1]].tolist() for node in model.graph.node if node.op_type == "Reshape"]
    assert reshapes
    assert {shape[0] for shape in reshapes} == {0}, "as it was"
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for rows in (0, 1, 3):
        maps = torch.randn(rows, 64, 5, 6)
        (found,) = session.run(None, {"maps": maps.numpy()})
        np.testing.assert_allclose(found, branches(maps).detach().numpy(), atol=1e-5)
