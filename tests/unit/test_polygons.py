"""Tests of roiseg.polygons: outlines between the pixels, holes, what is tiny, and what simplification costs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from roiseg.classes import Bools
from roiseg.polygons import Ring, clean, join_holes, pieces, polygons, ring_area, simplify


def mask_of(*rows: str) -> Bools:
    """A mask drawn with `#`."""
    return np.array([[cell == "#" for cell in row] for row in rows])


def filled(rings: list[Ring], hw: tuple[int, int]) -> Bools:
    """What pycocotools makes of polygons."""
    if not rings:
        return np.zeros(hw, dtype=bool)
    flat = [ring.ravel().astype(float).tolist() for ring in rings]
    return np.asarray(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, *hw))), dtype=bool)


def disc(hw: tuple[int, int], centre: tuple[float, float], radius: float) -> Bools:
    y, x = np.indices(hw) + 0.5
    return np.asarray((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2)


RING = mask_of("######", "#....#", "#.##.#", "#....#", "######")
"""A frame with an island in its hole."""


# --- outlines ---


def test_one_pixel_is_a_square_of_side_one() -> None:
    (ring,) = polygons(mask_of("...", "..#"), 0, 0)
    assert sorted(map(tuple, ring.tolist())) == [(2, 1), (2, 2), (3, 1), (3, 2)]
    assert ring_area(ring) == 1


def test_straight_lines_have_no_corners_between() -> None:
    (ring,) = polygons(np.ones((40, 70), dtype=bool), 0, 0)
    assert sorted(map(tuple, ring.tolist())) == [(0, 0), (0, 40), (70, 0), (70, 40)]


def test_an_l_has_six_corners() -> None:
    (ring,) = polygons(mask_of("#..", "#..", "###"), 0, 0)
    assert sorted(map(tuple, ring.tolist())) == [(0, 0), (0, 3), (1, 0), (1, 2), (3, 2), (3, 3)]


def test_pixels_that_touch_by_a_corner_are_one_piece() -> None:
    mask = mask_of("#..", ".#.", "..#")
    (piece,) = pieces(mask)
    assert piece.pixels == 3
    np.testing.assert_array_equal(filled(polygons(mask, 0, 0), mask.shape), mask)


@pytest.mark.parametrize("hw", [(0, 0), (0, 5), (4, 7)])
def test_an_empty_mask_has_no_polygons(hw: tuple[int, int]) -> None:
    assert polygons(np.zeros(hw, dtype=bool), 0, 0) == []
    assert polygons(np.zeros(hw, dtype=bool), 1.0, 9) == []


@given(arrays(np.bool_, st.tuples(st.integers(1, 13), st.integers(1, 13))))
@settings(max_examples=300, deadline=None)
def test_pycocotools_makes_the_same_mask(mask: Bools) -> None:
    rings = polygons(mask, 0, 0)
    assert mask.shape[0] > 0
    np.testing.assert_array_equal(filled(rings, (mask.shape[0], mask.shape[1])), mask)
    assert sum(ring_area(ring) for ring in rings) == mask.sum()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.97])
def test_large_masks_too(share: float) -> None:
    mask = np.random.default_rng(0).random((121, 90)) < share
    np.testing.assert_array_equal(filled(polygons(mask, 0, 0), (121, 90)), mask)


# --- holes ---


def test_a_hole_is_kept_and_its_island_is_a_piece() -> None:
    outer, island = pieces(RING)[::-1] if len(pieces(RING)[0].holes) == 0 else pieces(RING)
    assert (len(outer.holes), outer.pixels) == (1, 18)
    assert (len(island.holes), island.pixels) == (0, 2)
    assert ring_area(outer.outer) == 30
    assert ring_area(outer.holes[0]) == -12, "the other way round"


def test_a_slit_has_no_area() -> None:
    mask = np.ones((30, 50), dtype=bool)
    for row, column in ((3, 4), (10, 30), (20, 11), (22, 41)):
        mask[row : row + 4, column : column + 5] = False
    (piece,) = pieces(mask)
    joined = join_holes(piece.outer, piece.holes)
    assert ring_area(joined) == mask.sum() == 30 * 50 - 4 * 20
    assert len(joined) == 4 + 4 * (4 + 2), "there and back"
    np.testing.assert_array_equal(filled([joined], (30, 50)), mask)


# --- what is tiny ---


def test_tiny_pieces_and_holes_go() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[2:18, 2:20] = True
    mask[5:8, 5:8] = False
    mask[10, 10] = False
    mask[3:6, 24:27] = True
    mask[12, 24] = True
    expected = mask.copy()
    expected[10, 10], expected[12, 24] = True, False
    np.testing.assert_array_equal(filled(polygons(mask, 0, 4), (20, 30)), expected)
    expected[5:8, 5:8], expected[3:6, 24:27] = True, False
    np.testing.assert_array_equal(filled(polygons(mask, 0, 10), (20, 30)), expected)


def test_a_piece_counts_without_its_holes() -> None:
    frame = clean(pieces(RING), 13)
    assert [piece.pixels for piece in frame] == [30], "the hole of 12 is filled"
    thin = np.zeros((12, 30), dtype=bool)
    thin[:, 15:] = True
    thin[:9, :9] = True
    thin[1:8, 1:8] = False
    assert [piece.pixels for piece in clean(pieces(thin), 40)] == [180], "32 pixels around a hole of 49"


def test_the_largest_piece_always_stays() -> None:
    mask = mask_of("#....", "...##", ".....")
    np.testing.assert_array_equal(filled(polygons(mask, 0, 100), (3, 5)), mask_of(".....", "...##", "....."))


# --- fewer corners ---


def test_simplification_keeps_the_shape() -> None:
    mask = disc((90, 120), (45, 60), 38) & ~disc((90, 120), (40, 55), 12)
    exact, coarse = polygons(mask, 0, 0), polygons(mask, 1.0, 0)
    assert len(coarse[0]) < len(exact[0]) / 3
    back = filled(coarse, (90, 120))
    assert (back & mask).sum() / (back | mask).sum() > 0.97
    assert not back[40, 55], "the hole is there still"


@given(st.floats(0.5, 6), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_outlines_move_by_the_tolerance_at_most(tolerance: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = disc((60, 80), (rng.uniform(20, 40), rng.uniform(20, 60)), rng.uniform(5, 18))
    mask |= disc((60, 80), (rng.uniform(20, 40), rng.uniform(20, 60)), rng.uniform(5, 18))
    for piece in pieces(mask):
        for ring in (piece.outer, *piece.holes):
            simple = simplify(ring, tolerance)
            assert distance_to(simple, ring).max() <= tolerance + 1e-6
            assert {tuple(point) for point in simple.tolist()} <= {tuple(point) for point in ring.tolist()}


def distance_to(ring: Ring, points: Ring) -> NDArray[np.float64]:
    """Distance of each point to a closed outline."""
    start, end = ring.astype(float), np.roll(ring, -1, axis=0).astype(float)
    along = ((points[:, None] - start) * (end - start)).sum(2) / ((end - start) ** 2).sum(1)
    nearest = start + along.clip(0, 1)[..., None] * (end - start)
    return np.asarray(np.linalg.norm(points[:, None] - nearest, axis=2).min(axis=1))


def test_what_would_vanish_keeps_all_its_corners() -> None:
    mask = mask_of("....", ".##.", ".##.", "....")
    np.testing.assert_array_equal(filled(polygons(mask, 5.0, 0), (4, 4)), mask)
