"""Tests of roiseg.geometry: written-out numbers, slow references, invariance, round trips, empties."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roiseg.errors import BoxError
from roiseg.geometry import (
    Floats,
    Resize,
    ResizeMode,
    box_area,
    box_iou,
    cells_inside,
    check_boxes,
    clip_boxes,
    crop_boxes,
    cxcywh_to_xyxy,
    jitter_boxes,
    pad_boxes,
    paired_box_iou,
    roi_boxes,
    xywh_to_xyxy,
    xyxy_to_cxcywh,
    xyxy_to_xywh,
)
from roiseg.types import HW

MODES: tuple[ResizeMode, ...] = ("stretch", "letterbox")
EMPTY = np.zeros((0, 4))

sides = st.integers(1, 900)
sizes = st.tuples(sides, sides)
modes = st.sampled_from(MODES)
shares = st.floats(0, 1, width=32)


def random_boxes(count: int, seed: int, limit_hw: HW = (1, 1)) -> Floats:
    """Boxes (N, 4) xyxy of positive area within the limit."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 0.9, (count, 2, 2)), axis=1)
    corners[:, 1] += 0.05
    return np.asarray((corners * np.array(limit_hw[::-1])).reshape(-1, 4))


# --- Resize ---


@pytest.mark.parametrize(
    ("image_hw", "network_hw", "mode", "content_hw", "offset_hw"),
    [
        ((480, 640), (640, 640), "stretch", (640, 640), (0, 0)),
        ((480, 640), (640, 640), "letterbox", (480, 640), (80, 0)),
        ((640, 320), (320, 640), "letterbox", (320, 160), (0, 240)),
        ((100, 50), (64, 128), "letterbox", (64, 32), (0, 48)),
        ((3, 1000), (64, 64), "letterbox", (1, 64), (31, 0)),
        ((1, 1000), (64, 64), "letterbox", (1, 64), (31, 0)),
        ((427, 640), (640, 640), "letterbox", (427, 640), (106, 0)),
        ((7, 9), (7, 9), "letterbox", (7, 9), (0, 0)),
    ],
)
def test_content_and_offset(image_hw: HW, network_hw: HW, mode: ResizeMode, content_hw: HW, offset_hw: HW) -> None:
    resize = Resize(image_hw, network_hw, mode)
    assert resize.content_hw == content_hw
    assert resize.offset_hw == offset_hw


@pytest.mark.parametrize(
    ("mode", "points"),
    [
        ("stretch", [[0, 0], [1, 1], [0.5, 0.25], [0.25, 0.75]]),
        ("letterbox", [[0, 0.125], [1, 0.875], [0.5, 0.3125], [0.25, 0.6875]]),
    ],
)
def test_points_to_unit_written_out(mode: ResizeMode, points: list[list[float]]) -> None:
    """An image of 480x640 in 640x640: letterbox leaves 80 of 640 rows (0.125) above and below."""
    resize = Resize((480, 640), (640, 640), mode)
    points_image = np.array([[0, 0], [640, 480], [320, 120], [160, 360]], dtype=np.float64)
    np.testing.assert_allclose(resize.points_to_unit(points_image), points, rtol=0, atol=1e-12)


def test_boxes_to_unit_written_out_for_a_network_that_is_not_square() -> None:
    """200x100 in 128x512: scale 0.64 gives 128x64, so 224 of 512 columns stay empty on each side."""
    resize = Resize((200, 100), (128, 512), "letterbox")
    boxes = resize.boxes_to_unit(np.array([[25.0, 50.0, 75.0, 200.0]]))
    np.testing.assert_allclose(boxes, [[240 / 512, 32 / 128, 272 / 512, 128 / 128]], rtol=0, atol=1e-12)


def slow_point_to_unit(x: float, y: float, image_hw: HW, network_hw: HW, mode: ResizeMode) -> tuple[float, float]:
    """The same map, told step by step."""
    height, width = image_hw
    if mode == "stretch":
        return x / width, y / height
    scale = network_hw[0] / height if network_hw[0] * width < network_hw[1] * height else network_hw[1] / width
    filled_h, filled_w = max(round(height * scale), 1), max(round(width * scale), 1)
    above, left = (network_hw[0] - filled_h) // 2, (network_hw[1] - filled_w) // 2
    return (left + x * filled_w / width) / network_hw[1], (above + y * filled_h / height) / network_hw[0]


@given(image_hw=sizes, network_hw=sizes, mode=modes, x=shares, y=shares)
def test_points_to_unit_matches_reference(image_hw: HW, network_hw: HW, mode: ResizeMode, x: float, y: float) -> None:
    point = np.array([x * image_hw[1], y * image_hw[0]])
    expected = slow_point_to_unit(point[0], point[1], image_hw, network_hw, mode)
    np.testing.assert_allclose(Resize(image_hw, network_hw, mode).points_to_unit(point), expected, rtol=0, atol=1e-9)


@given(image_hw=sizes, network_hw=sizes, mode=modes, seed=st.integers(0, 99))
def test_resize_there_and_back(image_hw: HW, network_hw: HW, mode: ResizeMode, seed: int) -> None:
    resize = Resize(image_hw, network_hw, mode)
    boxes_image = random_boxes(5, seed, image_hw)
    np.testing.assert_allclose(resize.boxes_to_image(resize.boxes_to_unit(boxes_image)), boxes_image, rtol=0, atol=1e-8)
    points = boxes_image.reshape(5, 2, 2)
    np.testing.assert_allclose(resize.points_to_image(resize.points_to_unit(points)), points, rtol=0, atol=1e-8)


@given(image_hw=sizes, network_hw=sizes, mode=modes)
def test_content_lies_within_the_network_input(image_hw: HW, network_hw: HW, mode: ResizeMode) -> None:
    resize = Resize(image_hw, network_hw, mode)
    for content, offset, side in zip(resize.content_hw, resize.offset_hw, network_hw, strict=True):
        assert 1 <= content <= side
        assert 0 <= offset <= side - content
        assert abs(side - content - 2 * offset) <= 1, "the image is centred"
    if mode == "letterbox":
        assert any(content == side for content, side in zip(resize.content_hw, network_hw, strict=True))


@given(image_hw=sizes, network_hw=sizes, mode=modes)
def test_transposed_sizes_give_transposed_points(image_hw: HW, network_hw: HW, mode: ResizeMode) -> None:
    points = np.array([[0.3, 0.8], [1.0, 0.0]]) * image_hw[::-1]
    upright = Resize(image_hw, network_hw, mode).points_to_unit(points)
    turned = Resize(image_hw[::-1], network_hw[::-1], mode).points_to_unit(points[:, ::-1])
    np.testing.assert_allclose(turned[:, ::-1], upright, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_resize_of_no_boxes_is_empty(mode: ResizeMode) -> None:
    resize = Resize((480, 640), (64, 96), mode)
    assert resize.boxes_to_unit(EMPTY).shape == (0, 4)
    assert resize.boxes_to_image(EMPTY).shape == (0, 4)
    assert resize.points_to_unit(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize(("image_hw", "network_hw"), [((0, 5), (8, 8)), ((5, 5), (8, -1))])
def test_resize_without_pixels_is_refused(image_hw: HW, network_hw: HW) -> None:
    with pytest.raises(ValueError, match=rf"sizes \({image_hw[0]}, {image_hw[1]}\) and .*expected at least 1 pixel"):
        Resize(image_hw, network_hw, "stretch")


# --- box forms ---

FORMS: dict[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats], list[float]]] = {
    "xywh": (xyxy_to_xywh, xywh_to_xyxy, [10, 20, 30, 8]),
    "cxcywh": (xyxy_to_cxcywh, cxcywh_to_xyxy, [25, 24, 30, 8]),
}


@pytest.mark.parametrize(("there", "back", "written"), FORMS.values(), ids=FORMS)
def test_box_forms_written_out(there: Callable[[Floats], Floats], back: Callable[[Floats], Floats], written: list[float]) -> None:
    boxes = np.array([[10.0, 20.0, 40.0, 28.0]])
    np.testing.assert_array_equal(there(boxes), [written])
    np.testing.assert_array_equal(back(np.array([written], dtype=np.float64)), boxes)


@pytest.mark.parametrize(("there", "back", "written"), FORMS.values(), ids=FORMS)
def test_box_forms_there_and_back(
    there: Callable[[Floats], Floats], back: Callable[[Floats], Floats], written: list[float]
) -> None:
    del written
    boxes = random_boxes(50, seed=3, limit_hw=(48, 640))
    np.testing.assert_allclose(back(there(boxes)), boxes, rtol=0, atol=1e-10)
    assert there(EMPTY).shape == back(EMPTY).shape == (0, 4)


# --- clip, pad ---


def test_clip_boxes_written_out() -> None:
    boxes = np.array([[-5.0, 10.0, 70.0, 60.0], [3.0, 4.0, 5.0, 6.0], [80.0, -9.0, 90.0, -1.0]])
    expected = [[0, 10, 64, 48], [3, 4, 5, 6], [64, 0, 64, 0]]
    np.testing.assert_array_equal(clip_boxes(boxes, (48, 64)), expected)
    np.testing.assert_array_equal(clip_boxes(np.array([[-0.5, 0.2, 0.7, 1.5]])), [[0, 0.2, 0.7, 1]])
    assert clip_boxes(EMPTY).shape == (0, 4)


@given(seed=st.integers(0, 999))
def test_clip_boxes_twice_is_once(seed: int) -> None:
    boxes = np.random.default_rng(seed).normal(0, 40, (6, 4))
    once = clip_boxes(boxes, (30, 50))
    np.testing.assert_array_equal(clip_boxes(once, (30, 50)), once)
    assert once.min() >= 0
    assert once[:, [0, 2]].max() <= 50
    assert once[:, [1, 3]].max() <= 30


def test_pad_boxes_written_out() -> None:
    np.testing.assert_allclose(pad_boxes(np.array([[10.0, 20.0, 50.0, 30.0]]), 0.25), [[0, 17.5, 60, 32.5]])
    np.testing.assert_array_equal(pad_boxes(np.array([[1.0, 2.0, 3.0, 4.0]]), 0.0), [[1, 2, 3, 4]])
    assert pad_boxes(EMPTY, 0.1).shape == (0, 4)


def test_roi_boxes_are_padded_then_clipped() -> None:
    boxes = np.array([[0.1, 0.4, 0.5, 0.6], [0.9, 0.0, 1.0, 1.0]])
    np.testing.assert_allclose(roi_boxes(boxes, 0.5), [[0, 0.3, 0.7, 0.7], [0.85, 0, 1, 1]], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(roi_boxes(boxes, 0.0), boxes)


# --- jitter ---


def test_jitter_of_zero_changes_nothing() -> None:
    boxes = random_boxes(20, seed=1)
    np.testing.assert_allclose(jitter_boxes(boxes, 0.0, 0.0, np.random.default_rng(0)), boxes, rtol=0, atol=1e-12)


def test_jitter_follows_its_generator() -> None:
    boxes = random_boxes(20, seed=1)
    first, again, other = (jitter_boxes(boxes, 0.1, 0.1, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_jitter_matches_reference() -> None:
    """Shifts for all boxes are drawn first, then scales, x before y."""
    boxes = np.array([[0.4, 0.3, 0.6, 0.7], [0.2, 0.5, 0.3, 0.6]])
    rng = np.random.default_rng(11)
    shifts, scales = rng.uniform(-0.2, 0.2, 4).tolist(), rng.uniform(0.7, 1.3, 4).tolist()
    expected = []
    for number, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        centre_x = (x0 + x1) / 2 + shifts[2 * number] * (x1 - x0)
        centre_y = (y0 + y1) / 2 + shifts[2 * number + 1] * (y1 - y0)
        half_x, half_y = (x1 - x0) * scales[2 * number] / 2, (y1 - y0) * scales[2 * number + 1] / 2
        expected.append([centre_x - half_x, centre_y - half_y, centre_x + half_x, centre_y + half_y])
    jittered = jitter_boxes(boxes, 0.2, 0.3, np.random.default_rng(11))
    np.testing.assert_allclose(jittered, expected, rtol=0, atol=1e-12)


@given(seed=st.integers(0, 999), centre=st.floats(0, 2), scale=st.floats(0, 0.95))
def test_jittered_boxes_stay_usable(seed: int, centre: float, scale: float) -> None:
    boxes = random_boxes(10, seed)
    jittered = jitter_boxes(boxes, centre, scale, np.random.default_rng(seed))
    assert (jittered >= 0).all()
    assert (jittered <= 1).all()
    assert (box_area(jittered) > 0).all()


def test_jitter_reaches_its_bounds_and_no_further() -> None:
    boxes = np.tile([0.4, 0.4, 0.6, 0.5], (4000, 1))
    jittered = xyxy_to_cxcywh(jitter_boxes(boxes, 0.1, 0.3, np.random.default_rng(0)))
    size = np.array([0.2, 0.1])
    shift = (jittered[:, :2] - np.array([0.5, 0.45])) / size
    ratio = jittered[:, 2:] / size
    for values, low, high in ((shift, -0.1, 0.1), (ratio, 0.7, 1.3)):
        assert values.min(axis=0) == pytest.approx([low, low], abs=0.01)
        assert values.max(axis=0) == pytest.approx([high, high], abs=0.01)
        assert (values >= low - 1e-9).all()
        assert (values <= high + 1e-9).all()
    assert abs(np.asarray(np.corrcoef(ratio.T))[0, 1]) < 0.1, "width and height are scaled apart"


def test_jitter_that_leaves_the_frame_returns_the_box() -> None:
    """Of shifts of up to 50 widths nearly all throw the box out of the frame."""
    boxes = np.tile([0.45, 0.45, 0.55, 0.55], (50, 1))
    jittered = jitter_boxes(boxes, 50.0, 0.0, np.random.default_rng(0))
    assert np.all(jittered == boxes, axis=1).sum() >= 40
    assert (box_area(jittered) > 0).all()


def test_jitter_of_no_boxes_is_empty() -> None:
    assert jitter_boxes(EMPTY, 0.1, 0.1, np.random.default_rng(0)).shape == (0, 4)


# --- crop ---


def test_crop_matches_reference() -> None:
    """Shares for all boxes are drawn first, then places, x before y."""
    boxes = np.array([[0.4, 0.3, 0.6, 0.7], [0.2, 0.5, 0.3, 0.6]])
    rng = np.random.default_rng(11)
    shares, places = rng.uniform(0.6, 1, 4).tolist(), rng.uniform(0, 1, 4).tolist()
    expected = []
    for number, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        width, height = shares[2 * number] * (x1 - x0), shares[2 * number + 1] * (y1 - y0)
        left = x0 + places[2 * number] * (x1 - x0 - width)
        top = y0 + places[2 * number + 1] * (y1 - y0 - height)
        expected.append([left, top, left + width, top + height])
    np.testing.assert_allclose(crop_boxes(boxes, 0.6, np.random.default_rng(11)), expected, rtol=0, atol=1e-12)


@given(seed=st.integers(0, 999), smallest=st.floats(0.01, 1))
def test_crops_lie_in_their_boxes_and_keep_the_share(seed: int, smallest: float) -> None:
    boxes = random_boxes(10, seed)
    cropped = crop_boxes(boxes, smallest, np.random.default_rng(seed))
    assert (cropped[:, :2] >= boxes[:, :2]).all()
    assert (cropped[:, 2:] <= boxes[:, 2:]).all()
    kept = (cropped[:, 2:] - cropped[:, :2]) / (boxes[:, 2:] - boxes[:, :2])
    assert (kept >= smallest - 1e-9).all()


def test_crop_of_no_boxes_is_empty() -> None:
    assert crop_boxes(EMPTY, 0.5, np.random.default_rng(0)).shape == (0, 4)


# --- area, overlap ---


def test_box_area_written_out() -> None:
    boxes = np.array([[0.0, 0.0, 3.0, 5.0], [1.0, 1.0, 1.0, 9.0], [4.0, 4.0, 2.0, 2.0]])
    np.testing.assert_array_equal(box_area(boxes), [15, 0, 0])
    assert box_area(EMPTY).shape == (0,)


def test_box_iou_written_out() -> None:
    first = np.array([[0.0, 0.0, 4.0, 2.0], [10.0, 10.0, 11.0, 12.0]])
    second = np.array([[2.0, 1.0, 6.0, 3.0], [0.0, 0.0, 4.0, 2.0], [4.0, 0.0, 8.0, 2.0]])
    expected = np.array([[2 / 14, 1.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(box_iou(first, second), expected, rtol=0, atol=1e-15)


def test_paired_iou_is_the_diagonal() -> None:
    first, second = random_boxes(20, seed=1), random_boxes(20, seed=2)
    found = paired_box_iou(first.reshape(4, 5, 4), second.reshape(4, 5, 4))
    assert found.max() > 0.2
    np.testing.assert_array_equal(found.ravel(), box_iou(first, second).diagonal())
    assert paired_box_iou(EMPTY, EMPTY).shape == (0,)


def test_box_iou_matches_reference() -> None:
    """Counts cells of whole-number boxes."""
    rng = np.random.default_rng(8)
    corners = np.sort(rng.integers(0, 13, (12, 2, 2)), axis=1).reshape(-1, 4)
    masks = np.zeros((12, 9, 13), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, corners.tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    expected: Floats = np.zeros((12, 12))
    for row, first in enumerate(masks):
        for column, second in enumerate(masks):
            union = int((first | second).sum())
            expected[row, column] = (first & second).sum() / union if union else 0
    clipped = clip_boxes(corners.astype(np.float64), (9, 13))
    np.testing.assert_allclose(box_iou(clipped, clipped), expected, rtol=0, atol=1e-12)


@given(seed=st.integers(0, 999), dx=st.floats(-3, 3), scale=st.floats(0.1, 9))
def test_box_iou_does_not_depend_on_the_frame(seed: int, dx: float, scale: float) -> None:
    first, second = random_boxes(4, seed), random_boxes(3, seed + 1)
    overlap = box_iou(first, second)
    np.testing.assert_allclose(box_iou(second, first).T, overlap, rtol=0, atol=1e-12)
    np.testing.assert_allclose(box_iou(first * scale + dx, second * scale + dx), overlap, rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.diag(box_iou(first, first)), 1, rtol=0, atol=1e-12)


def test_box_iou_of_empties() -> None:
    point = np.array([[0.5, 0.5, 0.5, 0.5]])
    np.testing.assert_array_equal(box_iou(point, point), [[0]])
    assert box_iou(EMPTY, point).shape == (0, 1)
    assert box_iou(point, EMPTY).shape == (1, 0)


# --- check ---


def test_check_boxes_lets_good_boxes_pass() -> None:
    check_boxes(np.array([[0.0, 0.0, 64.0, 48.0], [-5.0, -5.0, 1.0, 1.0], [63.0, 47.0, 99.0, 99.0]]), (48, 64), "picture")
    check_boxes(EMPTY, (48, 64), "picture")


BAD_BOXES = {
    "not a number": ([float("nan"), 0, 5, 5], r"box 1 is \(nan, 0, 5, 5\), expected finite numbers"),
    "infinite": ([0, 0, float("inf"), 5], r"box 1 is \(0, 0, inf, 5\), expected finite numbers"),
    "reversed": ([9, 0, 5, 5], r"box 1 is \(9, 0, 5, 5\), expected x0 < x1 and y0 < y1; .*another format"),
    "flat": ([1, 5, 9, 5], r"box 1 is \(1, 5, 9, 5\), expected x0 < x1 and y0 < y1"),
    "right of the image": ([64, 0, 70, 5], r"box 1 is \(64, 0, 70, 5\), which lies outside the image of 64x48"),
    "above the image": ([0, -9, 5, 0], r"box 1 is \(0, -9, 5, 0\), which lies outside the image of 64x48"),
    "below the image": ([0, 48, 5, 60], r"box 1 is .* outside the image of 64x48 pixels; expected pixels of that"),
    "left of the image": ([-5, 1, 0, 5], r"box 1 is \(-5, 1, 0, 5\), which lies outside the image of 64x48"),
}


@pytest.mark.parametrize(("box", "message"), BAD_BOXES.values(), ids=BAD_BOXES)
def test_check_boxes_names_the_bad_box(box: list[float], message: str) -> None:
    boxes = np.array([[1.0, 1.0, 2.0, 2.0], box])
    with pytest.raises(BoxError, match=f"picture: {message}"):
        check_boxes(boxes, (48, 64), "picture")


# --- cells ---


def test_cells_inside_written_out() -> None:
    """Centres at 0.125, 0.375, 0.625, 0.875 across and 0.25, 0.75 down; a side that meets a centre has it."""
    boxes = np.array([[0.125, 0.0, 0.7, 0.5], [0.4, 0.3, 0.6, 0.7], [0.0, 0.0, 1.0, 1.0]])
    assert cells_inside(boxes, (2, 4)).astype(int).tolist() == [
        [[1, 1, 1, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0]],
        [[1, 1, 1, 1], [1, 1, 1, 1]],
    ]
    assert cells_inside(np.zeros((0, 4)), (2, 4)).shape == (0, 2, 4)
