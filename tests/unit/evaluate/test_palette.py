"""Tests of roiseg.evaluate.palette: any two people of a picture can be told apart, and nobody looks like a mistake."""

import numpy as np
import pytest

from roiseg.evaluate.palette import LIGHTNESS, RED, YELLOW, instance_colour, palette, to_lab


def lab_of(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return to_lab(np.array([instance_colour(number) for number in range(1, count + 1)], dtype=np.uint8))


def test_lab_of_known_colours() -> None:
    """White, black and sRGB's blue, as printed in colour tables (D65)."""
    found = to_lab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]], dtype=np.uint8))
    np.testing.assert_allclose(found, np.array([[100, 0, 0], [0, 0, 0], [32.3, 79.2, -107.9]]), atol=0.2)


@pytest.mark.parametrize(("count", "least"), [(2, 100), (5, 70), (10, 45), (20, 30), (50, 18), (300, 8)])
def test_the_smallest_difference_between_any_two(count: int, least: float) -> None:
    """A difference of 2.3 is just noticeable; tab20's fifteen colours come to 17."""
    lab = lab_of(count)
    differences = np.linalg.norm(lab[:, None] - lab[None], axis=2) + np.eye(count) * 1000
    assert differences.min() >= least


def test_neighbours_in_number_differ_more() -> None:
    lab = lab_of(30)
    assert np.linalg.norm(np.diff(lab, axis=0), axis=1).min() >= 30


def test_nobody_is_red_or_yellow_or_lost_in_the_dark() -> None:
    lab = lab_of(50)
    signs = to_lab(np.array([RED, YELLOW], dtype=np.uint8))
    assert np.linalg.norm(lab[:, None] - signs[None], axis=2).min() >= 18
    assert lab[:, 0].min() >= LIGHTNESS[0]
    assert lab[:, 0].max() <= LIGHTNESS[1]


def test_no_colour_comes_twice_before_all_have_come() -> None:
    count = len(palette())
    assert count >= 1000
    assert len({instance_colour(number) for number in range(1, count + 1)}) == count
    assert instance_colour(count + 1) == instance_colour(1)
