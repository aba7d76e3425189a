"""Tests of roiseg.nn.roi_align: the docstring's numbers, torchvision and onnxruntime beside it, invariance, empties, windows."""

import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import roi_align as reference

from roiseg.export.trace import trace
from roiseg.nn.roi_align import roi_align, roi_window, window_roi_align
from roiseg.types import HW, Window

MAP_HW, OUT_HW, RATIO = (5, 9), (4, 3), 2
"""Of the exported aligner."""


def features_of(seed: int, images: int, channels: int, map_hw: HW) -> Tensor:
    return torch.randn(images, channels, *map_hw, generator=torch.Generator().manual_seed(seed))


def random_boxes(seed: int, images: int, count: int) -> Tensor:
    """Boxes (count, 5) of which many leave the unit frame."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 1.6 - 0.3
    size = torch.rand(count, 2, generator=generator) * 0.8 + 0.001
    number = torch.randint(images, (count, 1), generator=generator).float()
    return torch.cat([number, corner, corner + size], dim=1)


def torchvision_boxes(boxes: Tensor, map_hw: HW) -> Tensor:
    return boxes * torch.tensor([1.0, map_hw[1], map_hw[0], map_hw[1], map_hw[0]])


def test_example_of_the_docstring() -> None:
    row = torch.tensor([1.0, 2.0, 4.0, 8.0]).view(1, 1, 1, 4)
    whole = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]])
    torch.testing.assert_close(roi_align(row, whole, (1, 2), 1), torch.tensor([[[[1.5, 6.0]]]]))
    column = row.transpose(2, 3)
    torch.testing.assert_close(roi_align(column, whole, (2, 1), 1), torch.tensor([[[[1.5], [6.0]]]]))


def test_one_bin_a_cell_returns_the_cells() -> None:
    features = features_of(0, 2, 3, (4, 7))
    boxes = torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0], [0.0, 1 / 7, 0.25, 5 / 7, 0.75]])
    torch.testing.assert_close(roi_align(features, boxes[:1], (4, 7), 1)[0], features[1])
    torch.testing.assert_close(roi_align(features, boxes[1:], (2, 4), 1)[0], features[0, :, 1:3, 1:5])


BOXES = {
    "border": [[0.0, 0.0, 0.4, 0.5], [0.6, 0.5, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]],
    "crosses the border": [[-0.2, -0.1, 0.3, 0.4], [0.8, 0.7, 1.3, 1.2], [-0.5, -0.5, 1.5, 1.5]],
    "outside": [[-0.9, -0.8, -0.5, -0.4], [1.4, 1.5, 1.9, 1.8]],
    "tiny": [[0.31, 0.42, 0.3101, 0.4201], [0.999, 0.999, 1.0, 1.0]],
    "no area": [[0.31, 0.42, 0.31, 0.42], [0.2, 0.1, 0.7, 0.1]],
    "a cell beyond the border": [[1.0, 0.2, 1.3, 0.6], [0.2, -0.3, 0.6, 0.0]],
}


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("sampling_ratio", [1, 2, 3])
@pytest.mark.parametrize(("map_hw", "out_hw"), [((5, 9), (4, 3)), ((9, 5), (2, 7)), ((6, 6), (6, 6)), ((1, 3), (2, 2))])
def test_values_are_torchvision_s(name: str, sampling_ratio: int, map_hw: HW, out_hw: HW) -> None:
    boxes = torch.tensor([[number % 2, *box] for number, box in enumerate(BOXES[name])])
    features = features_of(1, 2, 3, map_hw)
    expected = reference(features, torchvision_boxes(boxes, map_hw), out_hw, 1.0, sampling_ratio, True)
    if name == "outside":
        assert not expected.any()
    torch.testing.assert_close(roi_align(features, boxes, out_hw, sampling_ratio), expected, atol=1e-5, rtol=0)


def test_half_the_map_and_twice_the_box_see_the_same() -> None:
    features = features_of(2, 1, 2, (12, 20))
    box = torch.tensor([[0.0, 0.1, 0.08, 0.4, 0.39]])
    double = box * torch.tensor([1.0, 2.0, 2.0, 2.0, 2.0])
    torch.testing.assert_close(
        roi_align(features, box, (3, 5), 2), roi_align(features[:, :, :6, :10], double, (3, 5), 2), atol=1e-5, rtol=0
    )


def test_shifted_map_and_shifted_box_see_the_same() -> None:
    features = features_of(3, 1, 2, (10, 10))
    shifted = torch.roll(features, (3, 2), dims=(2, 3))
    box = torch.tensor([[0.0, 0.1, 0.2, 0.5, 0.6]])
    torch.testing.assert_close(
        roi_align(features, box, (4, 3), 2),
        roi_align(shifted, box + torch.tensor([0, 0.2, 0.3, 0.2, 0.3]), (4, 3), 2),
        atol=1e-5,
        rtol=0,
    )


def test_no_boxes() -> None:
    assert roi_align(features_of(4, 2, 3, (4, 5)), torch.zeros(0, 5), (6, 7), 2).shape == (0, 3, 6, 7)


# --- as ONNX ---


@pytest.fixture(scope="module")
def exported() -> onnxruntime.InferenceSession:
    class Aligned(nn.Module):
        def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
            return roi_align(features, boxes, OUT_HW, RATIO)

    example = (features_of(0, 2, 3, MAP_HW), random_boxes(0, 2, 3))
    free = ({0: torch.export.Dim("images")}, {0: torch.export.Dim("rois")})
    model = trace(Aligned(), example, (["features", "boxes"], ["bins"]), free, 18, "aligner")
    assert [node.op_type for node in model.graph.node].count("RoiAlign") == 1
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def in_onnxruntime(session: onnxruntime.InferenceSession, features: Tensor, boxes: Tensor) -> Tensor:
    (found,) = session.run(["bins"], {"features": features.numpy(), "boxes": boxes.numpy()})
    return torch.from_numpy(found)


@pytest.mark.parametrize("name", BOXES)
def test_the_operator_of_onnx_gives_the_same(exported: onnxruntime.InferenceSession, name: str) -> None:
    boxes = torch.tensor([[number % 2, *box] for number, box in enumerate(BOXES[name])])
    features = features_of(1, 2, 3, MAP_HW)
    expected = reference(features, torchvision_boxes(boxes, MAP_HW), OUT_HW, 1.0, RATIO, True)
    torch.testing.assert_close(in_onnxruntime(exported, features, boxes), expected, atol=1e-5, rtol=0)


@given(seed=st.integers(0, 10_000), images=st.integers(1, 3), count=st.integers(0, 6))
def test_the_operator_of_onnx_on_any_boxes(exported: onnxruntime.InferenceSession, seed: int, images: int, count: int) -> None:
    features, boxes = features_of(seed, images, 3, MAP_HW), random_boxes(seed, images, count)
    found = in_onnxruntime(exported, features, boxes)
    assert found.shape == (count, 3, *OUT_HW)
    torch.testing.assert_close(found, roi_align(features, boxes, OUT_HW, RATIO), atol=1e-5, rtol=1e-5)


# --- windows ---


def aligned_in_window(features: Tensor, boxes: Tensor, out_hw: HW, ratio: int) -> tuple[Tensor, Window]:
    """ROI align that is given the cells of the window and no others."""
    map_hw = (features.shape[2], features.shape[3])
    window = roi_window(boxes[:, 1:], map_hw)
    assert 0 <= window.top < window.bottom <= map_hw[0]
    assert 0 <= window.left < window.right <= map_hw[1]
    part = features[:, :, window.top : window.bottom, window.left : window.right]
    return window_roi_align(part, window, map_hw, boxes, out_hw, ratio), window


@given(
    seed=st.integers(0, 10_000),
    map_hw=st.tuples(st.integers(1, 24), st.integers(1, 30)),
    out_hw=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    ratio=st.integers(1, 3),
    count=st.integers(1, 6),
)
def test_a_window_gives_the_values_of_the_whole_map(seed: int, map_hw: HW, out_hw: HW, ratio: int, count: int) -> None:
    """Boxes inside, across and beyond the border alike."""
    features, boxes = features_of(seed, 1, 3, map_hw), random_boxes(seed, 1, count)
    found, _ = aligned_in_window(features, boxes, out_hw, ratio)
    torch.testing.assert_close(found, roi_align(features, boxes, out_hw, ratio), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", list(BOXES))
def test_a_window_of_odd_boxes(case: str) -> None:
    features = features_of(1, 1, 2, (9, 14))
    boxes = torch.tensor([[0.0, *box] for box in BOXES[case]])
    for rows in (boxes, *(boxes[place : place + 1] for place in range(len(boxes)))):
        found, _ = aligned_in_window(features, rows, (3, 4), 2)
        torch.testing.assert_close(found, roi_align(features, rows, (3, 4), 2), atol=1e-5, rtol=1e-5)


def test_a_window_is_small_for_a_small_box() -> None:
    _, window = aligned_in_window(features_of(0, 1, 1, (80, 60)), torch.tensor([[0.0, 0.5, 0.25, 0.6, 0.3]]), (7, 7), 2)
    assert window == Window(18, 26, 28, 38)
