"""Tests of roiseg.masks: written-out numbers, slow references, invariance, round trips, empties."""

from typing import Any

import numpy as np
import pytest
from data_factory import compressed, ellipse, polygon_mask, rectangle, uncompressed
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from roiseg.classes import Bools, Floats32, Labels
from roiseg.geometry import Floats, Resize, ResizeMode
from roiseg.masks import FAR, Segmentation, compressed_rle, encode_mask, frame_labels, label_distances, rle_runs, roi_labels
from roiseg.paste import paste
from roiseg.types import HW

WHOLE = np.array([0.0, 0.0, 1.0, 1.0])
MODES: tuple[ResizeMode, ...] = ("stretch", "letterbox")


def same(image_hw: HW) -> Resize:
    """The network input is the image."""
    return Resize(image_hw, image_hw, "stretch")


def box_iou_of(first: Bools, second: Bools) -> float:
    return float((first & second).sum() / (first | second).sum())


def random_mask(seed: int, image_hw: HW) -> Bools:
    return np.asarray(np.random.default_rng(seed).random(image_hw) < 0.4)


# --- RLE ---


@given(seed=st.integers(0, 999), height=st.integers(1, 12), width=st.integers(1, 17), share=st.floats(0, 1))
def test_rle_spellings_all_become_the_same_text(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    text = compressed(mask)
    as_bytes = {"size": text["size"], "counts": text["counts"].encode()}
    for value in (text, as_bytes, uncompressed(mask)):
        runs = compressed_rle(value)
        assert runs == text
        np.testing.assert_array_equal(coco_mask.decode(runs).astype(bool), mask)
    runs_of_list = uncompressed(mask)["counts"]
    assert rle_runs(text["counts"]) == runs_of_list
    assert sum(runs_of_list) == height * width


def test_rle_runs_written_out() -> None:
    """7x9 with rows 2 to 4 of columns 3 to 5: 23 zeros, then thrice 3 ones, 4 zeros apart."""
    mask = np.zeros((7, 9), dtype=bool)
    mask[2:5, 3:6] = True
    assert rle_runs(encode_mask(mask)["counts"]) == [23, 3, 4, 3, 4, 3, 23]
    assert rle_runs("") == []


@pytest.mark.parametrize("text", ["!!", "0o1 ", "o", "Ää"], ids=repr)
def test_rle_runs_of_what_is_no_rle(text: str) -> None:
    assert rle_runs(text) is None


@given(seed=st.integers(0, 999), height=st.integers(1, 20), width=st.integers(1, 20))
def test_encode_mask_there_and_back(seed: int, height: int, width: int) -> None:
    mask = random_mask(seed, (height, width))
    runs = encode_mask(mask)
    assert isinstance(runs["counts"], str)
    assert runs["size"] == [height, width]
    np.testing.assert_array_equal(coco_mask.decode(runs), mask)
    assert coco_mask.area(runs) == mask.sum()


@pytest.mark.parametrize("value", [False, True])
def test_encode_mask_of_all_or_nothing(value: bool) -> None:
    runs = encode_mask(np.full((5, 3), value))
    assert coco_mask.area(runs) == 15 * value


# --- Segmentation ---


def test_segmentation_has_exactly_one_form() -> None:
    runs = encode_mask(np.ones((4, 4), dtype=bool))
    for polygons, rle in ((None, None), ((np.zeros((3, 2)),), runs)):
        with pytest.raises(ValueError, match="polygons or an RLE, not both and not neither"):
            Segmentation(polygons, rle, same((4, 4)))


@pytest.mark.parametrize("mode", MODES)
def test_from_coco_brings_polygons_to_the_unit_frame(mode: ResizeMode) -> None:
    """A network input of 128x512 takes the image of 200x100 as 128x64, from column 224 on."""
    outline = Segmentation.from_coco([[0, 0, 100, 0, 50, 200]], Resize((200, 100), (128, 512), mode))
    left, right = (0.0, 1.0) if mode == "stretch" else (224 / 512, 288 / 512)
    assert outline.polygons is not None
    np.testing.assert_allclose(outline.polygons[0], [[left, 0], [right, 0], [0.5, 1]], rtol=0, atol=1e-12)
    assert outline.rle is None


def test_json_there_and_back() -> None:
    resize = Resize((97, 61), (64, 96), "letterbox")
    polygons = Segmentation.from_coco([ellipse((30, 50), (20, 31)), rectangle(1, 2, 3, 4)], resize)
    again = Segmentation.from_json(polygons.to_json(), resize)
    assert polygons.polygons is not None
    assert again.polygons is not None
    assert len(again.polygons) == 2
    for before, after in zip(polygons.polygons, again.polygons, strict=True):
        np.testing.assert_allclose(after, before, rtol=0, atol=5.1e-8)
    assert again.to_json() == polygons.to_json()
    mask = random_mask(2, (97, 61))
    runs = Segmentation.from_coco(uncompressed(mask), resize)
    read = Segmentation.from_json(runs.to_json(), resize)
    assert read.polygons is None
    assert read.rle == compressed(mask)


# --- rasterise ---


def test_rasterise_written_out() -> None:
    """A rectangle over columns 2 to 5 and rows 1 to 2 of an image of 4x8."""
    outline = Segmentation.from_coco([rectangle(2, 1, 4, 2)], same((4, 8)))
    expected = [[0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(outline.rasterise(WHOLE, (4, 8)), expected)
    inner = outline.rasterise(np.array([0.25, 0.25, 1.0, 1.0]), (3, 6))
    np.testing.assert_array_equal(inner, [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]])


def even_odd(points: Floats, polygon: Floats) -> Bools:
    """Whether points (N, 2) are inside a polygon (P, 2): the rule of an odd number of crossings to the right."""
    inside = np.zeros(len(points), dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (points[:, 1] < y0) != (points[:, 1] < y1)
        inside ^= crosses & (points[:, 0] < x0 + (points[:, 1] - y0) / (y1 - y0) * (x1 - x0))
    return inside


def edge_distance(points: Floats, polygon: Floats) -> NDArray[np.float64]:
    """Distances (N,) of points to the outline of a polygon (P, 2)."""
    nearest = np.full(len(points), np.inf)
    for start, stop in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        along = stop - start
        share = np.clip((points - start) @ along / max(float(along @ along), 1e-12), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(points - start - share[:, None] * along, axis=1))
    return nearest


def cell_centres(box: Floats, out_hw: HW) -> Floats:
    """Centres (h * w, 2) of the cells of a grid over a box."""
    found = []
    for row in range(out_hw[0]):
        for column in range(out_hw[1]):
            share = np.array([(column + 0.5) / out_hw[1], (row + 0.5) / out_hw[0]])
            found.append(box[:2] + share * (box[2:] - box[:2]))
    return np.array(found)


BOXES = {
    "whole": [0.0, 0.0, 1.0, 1.0],
    "inside": [0.3, 0.2, 0.7, 0.8],
    "border": [0.0, 0.4, 0.35, 1.0],
    "thin": [0.45, 0.1, 0.5, 0.9],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("out_hw", [(56, 56), (28, 20), (7, 64)], ids=str)
def test_rasterise_of_polygons_matches_reference(mode: ResizeMode, box: list[float], out_hw: HW) -> None:
    """pycocotools draws on a grid of 1/5 cell, so centres nearer than that to the outline may go either way."""
    resize = Resize((120, 90), (64, 96), mode)
    area = np.array(box)
    star = np.stack([np.cos(np.arange(10) * np.pi / 5), np.sin(np.arange(10) * np.pi / 5)], axis=1)
    star *= np.where(np.arange(10) % 2, 18, 42)[:, None]
    polygon = star + np.array([47, 58])
    outline = Segmentation.from_coco([polygon.ravel().tolist()], resize)
    drawn = outline.rasterise(area, out_hw)
    cells = np.array(out_hw[::-1]) / (area[2:] - area[:2])
    centres = cell_centres(area, out_hw)
    polygon_unit = resize.points_to_unit(polygon)
    sure = edge_distance(centres * cells, polygon_unit * cells) > 0.3
    assert sure.mean() > 0.5
    np.testing.assert_array_equal(drawn.ravel()[sure], even_odd(centres, polygon_unit)[sure])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_rasterise_of_an_rle_matches_reference(mode: ResizeMode, box: list[float]) -> None:
    """Each centre looks up the image pixel that covers it, one after the other."""
    image_hw, out_hw = (31, 47), (13, 18)
    resize = Resize(image_hw, (64, 40), mode)
    mask = random_mask(5, image_hw)
    drawn = Segmentation.from_coco(compressed(mask), resize).rasterise(np.array(box), out_hw)
    expected = np.zeros(out_hw, dtype=bool)
    for number, centre in enumerate(cell_centres(np.array(box), out_hw)):
        x, y = np.floor(resize.points_to_image(centre)).astype(int).tolist()
        if 0 <= y < image_hw[0] and 0 <= x < image_hw[1]:
            expected.flat[number] = mask[y, x]
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_rle_equals_polygon_within_a_pixel(mode: ResizeMode, box: list[float]) -> None:
    image_hw, out_hw = (120, 90), (40, 56)
    resize = Resize(image_hw, (96, 64), mode)
    polygon = ellipse((44.3, 61.7), (30.2, 44.9), 60)
    area = np.array(box)
    first = Segmentation.from_coco([polygon], resize).rasterise(area, out_hw)
    second = Segmentation.from_coco(compressed(polygon_mask(polygon, image_hw)), resize).rasterise(area, out_hw)
    points_image = resize.points_to_image(cell_centres(area, out_hw))
    away = edge_distance(points_image, np.array(polygon).reshape(-1, 2)) > 1
    np.testing.assert_array_equal(first.ravel()[away], second.ravel()[away])
    assert first.any()


def test_rasterise_unites_polygons_and_is_the_same_mirrored() -> None:
    resize = same((60, 80))
    parts = [ellipse((20.25, 20.5), (9.3, 11.4)), ellipse((25.25, 30.5), (12.6, 9.7))]
    together = Segmentation.from_coco(parts, resize).rasterise(WHOLE, (60, 80))
    apart = [Segmentation.from_coco([part], resize).rasterise(WHOLE, (60, 80)) for part in parts]
    np.testing.assert_array_equal(together, apart[0] | apart[1])
    mirrored = [(np.array(part).reshape(-1, 2) * [-1, 1] + [80, 0]).ravel().tolist() for part in parts]
    turned = Segmentation.from_coco(mirrored, resize).rasterise(WHOLE, (60, 80))
    assert box_iou_of(turned[:, ::-1], together) > 0.97


@pytest.mark.parametrize("form", ["polygon", "rle"])
def test_rasterise_outside_the_outline_is_empty(form: str) -> None:
    polygon = rectangle(2, 2, 10, 10)
    value: Any = [polygon] if form == "polygon" else compressed(polygon_mask(polygon, (40, 60)))
    outline = Segmentation.from_coco(value, same((40, 60)))
    assert not outline.rasterise(np.array([0.5, 0.5, 1.0, 1.0]), (9, 14)).any()


def test_rasterise_of_an_rle_in_the_letterbox_margin_is_empty() -> None:
    outline = Segmentation.from_coco(compressed(np.ones((32, 64), dtype=bool)), Resize((32, 64), (64, 64), "letterbox"))
    drawn = outline.rasterise(WHOLE, (8, 4))
    np.testing.assert_array_equal(drawn.all(axis=1), [0, 0, 1, 1, 1, 1, 0, 0])
    assert not drawn[[0, 1, 6, 7]].any()


# --- ROI labels ---


def test_target_wins_over_others_and_others_over_background() -> None:
    resize = same((4, 8))
    target = Segmentation.from_coco([rectangle(2, 0, 4, 2)], resize)
    others = [
        Segmentation.from_coco([rectangle(0, 0, 4, 1)], resize),
        Segmentation.from_coco([rectangle(5, 1, 3, 3)], resize),
    ]
    expected = [[2, 2, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 2, 2], [0, 0, 0, 0, 0, 2, 2, 2], [0, 0, 0, 0, 0, 2, 2, 2]]
    labels = roi_labels(WHOLE, target, others, (4, 8))
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(roi_labels(WHOLE, target, others[::-1], (4, 8)), expected)


def test_roi_labels_of_a_box_at_the_border_of_the_image() -> None:
    """The person leaves the image on the right; the ROI ends with the image."""
    target = Segmentation.from_coco([rectangle(6, 1, 4, 2)], same((4, 8)))
    labels = roi_labels(np.array([0.5, 0.0, 1.0, 1.0]), target, [], (4, 4))
    np.testing.assert_array_equal(labels, [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]])


def test_roi_labels_without_anybody_in_the_box() -> None:
    target = Segmentation.from_coco([rectangle(0, 0, 3, 3)], same((40, 80)))
    assert not roi_labels(np.array([0.5, 0.5, 1.0, 1.0]), target, [], (6, 5)).any()


# --- distances ---


def test_frame_labels_are_those_of_an_roi_of_the_whole_frame() -> None:
    people = [Segmentation.from_coco([rectangle(*box)], same((20, 30))) for box in ((0, 0, 12, 9), (6, 3, 20, 8), (2, 12, 9, 7))]
    found = frame_labels(people, [2, 0, 2], (10, 15))
    frame = np.array([0.0, 0.0, 1.0, 1.0])
    for labels, number in zip(found, (2, 0, 2), strict=True):
        others = [person for place, person in enumerate(people) if place != number]
        np.testing.assert_array_equal(labels, roi_labels(frame, people[number], others, (10, 15)))
    assert frame_labels(people, [], (10, 15)).shape == (0, 10, 15)
    assert found.dtype == np.uint8


def slow_distances(labels: Labels) -> tuple[Floats, Floats, Floats]:
    """Every pixel against every pixel."""
    spots = np.argwhere(np.ones(labels.shape, dtype=bool)).astype(np.float64)
    apart = np.linalg.norm(spots[:, None] - spots[None], axis=2)
    flat = labels.ravel()

    def nearest(chosen: NDArray[np.bool_]) -> Floats:
        reach = np.where(chosen, apart, np.inf).min(axis=1)
        return np.asarray(np.where(np.isfinite(reach), reach, FAR).reshape(labels.shape))

    unlike = nearest(flat[None] != flat[:, None])
    boundary = np.where(unlike < FAR, unlike - 0.5, FAR)
    return boundary, nearest((flat == 1)[None]), nearest((flat == 2)[None])


@given(
    seed=st.integers(0, 999),
    height=st.integers(1, 14),
    width=st.integers(1, 18),
    share=st.sampled_from([0.02, 0.2, 0.6]),
)
def test_label_distances_match_reference(seed: int, height: int, width: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.integers(1, 3, (height, width)) * (rng.random((height, width)) < share)).astype(np.uint8)
    found = label_distances(labels)
    for values, expected in zip((found.boundary, found.target, found.non_target), slow_distances(labels), strict=True):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_distance_to_a_straight_edge() -> None:
    """The border between columns 3 and 4 is half a pixel from either."""
    labels = np.zeros((6, 9), dtype=np.uint8)
    labels[:, 4:] = 1
    found = label_distances(labels)
    np.testing.assert_allclose(found.boundary, np.tile(np.abs(np.arange(9) - 3.5), (6, 1)), atol=1e-6)
    np.testing.assert_allclose(found.target, np.tile([4, 3, 2, 1, 0, 0, 0, 0, 0], (6, 1)), atol=1e-6)
    assert (found.non_target == FAR).all()


def test_distance_within_a_square() -> None:
    """Inside a square the border is as far as its nearest side."""
    labels = np.full((15, 21), 2, dtype=np.uint8)
    labels[4:11, 6:13] = 1
    rows, columns = np.mgrid[4:11, 6:13]
    expected = np.minimum(np.minimum(rows - 4, 10 - rows), np.minimum(columns - 6, 12 - columns)) + 0.5
    found = label_distances(labels)
    np.testing.assert_allclose(found.boundary[4:11, 6:13], expected, atol=1e-6)
    np.testing.assert_allclose(found.target[0, 0], np.hypot(4, 6), rtol=1e-6)
    assert (found.non_target[labels == 2] == 0).all()


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (5, 9)], ids=str)
def test_distances_of_a_single_class_are_far(label: int, size: HW) -> None:
    found = label_distances(np.full(size, label, dtype=np.uint8))
    assert (found.boundary == FAR).all()
    assert (found.target == (0 if label == 1 else FAR)).all()
    assert (found.non_target == (0 if label == 2 else FAR)).all()


def test_distances_turn_with_the_labels() -> None:
    labels = np.random.default_rng(6).integers(0, 3, (9, 13)).astype(np.uint8)
    found = label_distances(labels)
    for values, turned in (
        (found.boundary, label_distances(labels.T.copy()).boundary.T),
        (found.target, label_distances(labels[:, ::-1].copy()).target[:, ::-1]),
    ):
        np.testing.assert_allclose(values, turned, atol=1e-5)


# --- paste ---


def slow_paste(values: Floats32, box: list[float], image_hw: HW) -> NDArray[np.float64]:
    """Full-size result, pixel by pixel; NaN where the centre isn't in the box."""
    height, width = values.shape
    full = np.full(image_hw, np.nan)
    x0, y0, x1, y1 = box
    for row in range(image_hw[0]):
        for column in range(image_hw[1]):
            x, y = column + 0.5, row + 0.5
            if not (x0 <= x <= x1 and y0 <= y <= y1):
                continue
            at_y = min(max((y - y0) / (y1 - y0) * height - 0.5, 0), height - 1)
            at_x = min(max((x - x0) / (x1 - x0) * width - 0.5, 0), width - 1)
            top, left = min(int(at_y), max(height - 2, 0)), min(int(at_x), max(width - 2, 0))
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            down, across = at_y - top, at_x - left
            above = values[top, left] * (1 - across) + values[top, right] * across
            under = values[below, left] * (1 - across) + values[below, right] * across
            full[row, column] = above * (1 - down) + under * down
    return full


PASTE_BOXES = {
    "inside": [3.2, 4.7, 20.9, 15.1],
    "whole pixels": [4.0, 2.0, 12.0, 10.0],
    "on pixel centres": [4.5, 2.5, 12.5, 10.5],
    "over the top left": [-7.3, -5.5, 9.0, 8.8],
    "over the bottom right": [12.0, 9.3, 44.0, 31.0],
    "over all of the image": [-3.0, -4.0, 40.0, 30.0],
    "one pixel": [5.1, 6.2, 6.0, 7.0],
    "narrow": [5.1, 1.0, 5.9, 17.0],
}


@pytest.mark.parametrize("box", PASTE_BOXES.values(), ids=PASTE_BOXES)
@pytest.mark.parametrize("mask_hw", [(7, 5), (1, 1), (1, 6), (28, 14)], ids=str)
def test_paste_matches_reference(box: list[float], mask_hw: HW) -> None:
    image_hw = (19, 27)
    values = np.random.default_rng(1).normal(size=mask_hw).astype(np.float32)
    window, pasted = paste(values, np.array(box), image_hw)
    full = np.full(image_hw, np.nan)
    full[window] = pasted
    assert pasted.dtype == np.float32
    np.testing.assert_allclose(full, slow_paste(values, box, image_hw), rtol=0, atol=1e-4)


def test_paste_written_out() -> None:
    """Two cells over four pixels: the centres read at -0.25, 0.25, 0.75 and 1.25 of the cells."""
    window, pasted = paste(np.array([[0.0, 8.0]], dtype=np.float32), np.array([2.0, 1.0, 6.0, 2.0]), (3, 7))
    assert window == (slice(1, 2), slice(2, 6))
    np.testing.assert_allclose(pasted, [[0, 2, 6, 8]], atol=1e-6)


def test_paste_at_its_own_size_changes_nothing() -> None:
    values = np.random.default_rng(2).normal(size=(6, 9)).astype(np.float32)
    window, pasted = paste(values, np.array([5.0, 3.0, 14.0, 9.0]), (20, 20))
    assert window == (slice(3, 9), slice(5, 14))
    np.testing.assert_allclose(pasted, values, atol=1e-6)


OUTSIDE = {
    "right": [30.0, 2.0, 40.0, 9.0],
    "left": [-9.0, 2.0, -1.0, 9.0],
    "below": [2.0, 50.0, 9.0, 60.0],
    "between pixel centres": [5.6, 3.0, 6.4, 9.0],
}


@pytest.mark.parametrize("box", OUTSIDE.values(), ids=OUTSIDE)
def test_paste_of_a_box_without_pixel_centres_is_empty(box: list[float]) -> None:
    window, pasted = paste(np.ones((4, 4), dtype=np.float32), np.array(box), (19, 27))
    full = np.zeros((19, 27))
    full[window] = pasted
    assert pasted.size == 0
    assert pasted.shape == full[window].shape
    assert not full.any()


@given(seed=st.integers(0, 99), low=st.floats(-5, 0), high=st.floats(0.1, 5))
def test_paste_stays_within_the_values_it_reads(seed: int, low: float, high: float) -> None:
    values = np.random.default_rng(seed).uniform(low, high, (5, 8)).astype(np.float32)
    _window, pasted = paste(values, np.array([-2.0, 1.5, 23.0, 14.0]), (16, 20))
    assert pasted.min() >= values.min() - 1e-5
    assert pasted.max() <= values.max() + 1e-5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mask_hw", [(56, 56), (64, 48)], ids=str)
def test_paste_is_the_inverse_of_rasterise(mode: ResizeMode, mask_hw: HW) -> None:
    image_hw = (360, 480)
    resize = Resize(image_hw, (640, 512), mode)
    polygon = ellipse((250, 190), (160, 140), 120)
    box_image = np.array([80.0, 40.0, 420.0, 340.0])
    box = resize.boxes_to_unit(box_image[None])[0]
    small = Segmentation.from_coco([polygon], resize).rasterise(box, mask_hw)
    window, pasted = paste(small.astype(np.float32), box_image, image_hw)
    full = np.zeros(image_hw, dtype=bool)
    full[window] = pasted > 0.5
    assert box_iou_of(full, polygon_mask(polygon, image_hw)) > 0.98
