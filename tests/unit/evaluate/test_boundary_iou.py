"""Tests of roiseg.evaluate.boundary: bands by hand, by the paper's code, and cell by cell."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from slow_figures import slow_boundary

from roiseg.classes import Bools
from roiseg.evaluate.boundary import band, band_px, crop_boundaries, image_boundary
from roiseg.placed import cut_out


def block(hw: tuple[int, int], rows: slice, columns: slice) -> Bools:
    mask = np.zeros(hw, dtype=bool)
    mask[rows, columns] = True
    return mask


def blobs(seed: int, count: int, hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Random masks of smooth outline, some empty, some full."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, *hw)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(item, (0, 0), 1.5) for item in noise]) if count else noise
    found = np.asarray(smooth > rng.choice([-0.1, 0.0, 0.1], (count, 1, 1)))
    found[rng.random(count) < 0.15] = False
    found[rng.random(count) < 0.1] = True
    return found


def paper_band(mask: Bools, ratio: float = 0.02) -> Bools:
    """`mask_to_boundary` of github.com/bowenc0221/boundary-iou-api."""
    height, width = mask.shape
    dilation = max(round(ratio * np.sqrt(height**2 + width**2)), 1)
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), dtype=np.uint8), iterations=dilation)
    return np.asarray(mask & (eroded[1:-1, 1:-1] == 0))


@pytest.mark.parametrize(
    ("hw", "expected"),
    [((1, 1), 1), ((28, 28), 1), ((64, 48), 2), ((80, 60), 2), ((30, 200), 4), ((480, 640), 16), ((4000, 3000), 100)],
)
def test_width_is_two_percent_of_the_diagonal(hw: tuple[int, int], expected: int) -> None:
    assert band_px(hw) == band_px(hw[::-1]) == expected


def test_a_band_by_hand() -> None:
    found = band(block((6, 7), slice(1, 6), slice(0, 6)), 1)
    assert found.astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0],
        [1, 0, 0, 0, 0, 1, 0],
        [1, 0, 0, 0, 0, 1, 0],
        [1, 0, 0, 0, 0, 1, 0],
        [1, 1, 1, 1, 1, 1, 0],
    ], "the border of the grid is contour too"
    assert (band(block((6, 7), slice(1, 6), slice(0, 6)), 2).sum(), band(np.ones((3, 4), dtype=bool), 2).sum()) == (28, 12)
    assert not band(np.zeros((3, 4), dtype=bool), 2).any()


def test_crop_boundaries_by_hand() -> None:
    """Squares of 6 x 6, the second two columns to the right; bands of 20 cells share 2 x 4 of their upper and lower sides."""
    first, second = (block((10, 12), slice(2, 8), slice(left, left + 6)) for left in (2, 4))
    empty = np.zeros((10, 12), dtype=bool)
    predicted = np.stack([first, first, first, empty, empty])
    annotated = np.stack([first, second, empty, first, empty])
    assert crop_boundaries(predicted, annotated).tolist() == [[20, 20], [8, 32], [0, 20], [0, 20], [0, 0]]


@settings(max_examples=200)
@given(seed=st.integers(0, 10**9), rois=st.integers(0, 3), height=st.integers(1, 9), width=st.integers(1, 11))
def test_crop_boundaries_are_the_slow_ones(seed: int, rois: int, height: int, width: int) -> None:
    predicted, annotated = blobs(seed, rois, (height, width)), blobs(seed + 1, rois, (height, width))
    expected = [slow_boundary(*pair) for pair in zip(predicted, annotated, strict=True)]
    np.testing.assert_array_equal(crop_boundaries(predicted, annotated), np.reshape(expected, (-1, 2)))


@pytest.mark.parametrize("hw", [(130, 170), (480, 333)])
def test_bands_are_those_of_the_papers_code(hw: tuple[int, int]) -> None:
    for mask in blobs(3, 6, hw):
        np.testing.assert_array_equal(band(mask, band_px(hw)), paper_band(mask))


@settings(max_examples=60)
@given(seed=st.integers(0, 10**9), height=st.integers(1, 130), width=st.integers(1, 170), share=st.floats(0.05, 1))
def test_windows_are_as_good_as_the_image(seed: int, height: int, width: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    predicted, annotated = blobs(seed, 2, (height, width))
    for mask in (predicted, annotated):
        top, left = int(rng.integers(0, height)), int(rng.integers(0, width))
        mask[: int(top * share)] = mask[:, : int(left * share)] = False
    first, second = paper_band(predicted), paper_band(annotated)
    found = image_boundary(cut_out(predicted), cut_out(annotated), (height, width))
    assert found == (int((first & second).sum()), int((first | second).sum()))
