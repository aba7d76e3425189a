"""Tests of roiseg.predict.given: what isn't an image or a box is refused, with the way to mend it."""

import numpy as np
import pytest
from numpy.typing import ArrayLike

from roiseg.errors import BoxError, PixelsError
from roiseg.predict.given import BoxFormat, BoxFrame, check_pixels, pixel_boxes

IMAGE = np.zeros((50, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        pytest.param(None, r"got None, which cv2\.imread gives for a file that it can't read; check the path", id="none"),
        pytest.param("a.jpg", r"got str; read a file by cv2\.imread", id="path"),
        pytest.param(IMAGE.tolist(), r"got list; ", id="list"),
        pytest.param(IMAGE[:, :, 0], r"got \[50, 70\] of uint8: a grey image; turn it by .*COLOR_GRAY2BGR", id="grey"),
        pytest.param(IMAGE[:, :, :1], r"got \[50, 70, 1\] of uint8: a grey image", id="one channel"),
        pytest.param(np.zeros((50, 70, 4), np.uint8), r"an image with transparency; .*COLOR_BGRA2BGR", id="transparent"),
        pytest.param(IMAGE.transpose(2, 0, 1), r"channels first; turn it by image\.transpose\(1, 2, 0\)", id="channels first"),
        pytest.param(IMAGE[None], r"got \[1, 50, 70, 3\] of uint8: several images; .* as a list to `encode`", id="batch"),
        pytest.param(IMAGE / 255, r"of float64; turn it by \(image \* 255\)\.round\(\)\..* if white is 1", id="float"),
        pytest.param(IMAGE.astype(np.uint16), r"of uint16; turn it", id="16 bit"),
        pytest.param(IMAGE[:0], r"got \[0, 70, 3\] of uint8; give an image with .* at least one pixel", id="empty"),
        pytest.param(np.zeros((50, 70, 5), np.uint8), r"got \[50, 70, 5\] of uint8; give an image with three channels", id="five"),
    ],
)
def test_what_is_no_image(pixels: object, message: str) -> None:
    with pytest.raises(PixelsError, match=rf"^here: expected a numpy array \(H, W, 3\) of uint8 .*{message}"):
        check_pixels(pixels, "here")


def test_an_image_comes_back_in_one_piece() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    found = check_pixels(pixels[:, :, ::-1], "here")
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, pixels[:, :, ::-1])
    assert check_pixels(np.zeros((3, 3, 3), dtype=np.uint8), "here").shape == (3, 3, 3)


@pytest.mark.parametrize(
    ("boxes", "box_format", "frame"),
    [
        ([[7, 5, 35, 30]], "xyxy", "pixels"),
        ([[21, 17.5, 28, 25]], "cxcywh", "pixels"),
        ([[0.1, 0.1, 0.5, 0.6]], "xyxy", "unit"),
        ([[0.3, 0.35, 0.4, 0.5]], "cxcywh", "unit"),
    ],
)
def test_formats_and_frames(boxes: ArrayLike, box_format: BoxFormat, frame: BoxFrame) -> None:
    np.testing.assert_allclose(pixel_boxes(boxes, (50, 70), box_format, frame, "here"), [[7, 5, 35, 30]])


def test_none() -> None:
    nothing: list[ArrayLike] = [[], np.zeros((0, 4)), np.zeros((0, 5), dtype=np.int64)]
    for boxes in nothing:
        assert pixel_boxes(boxes, (50, 70), "xyxy", "pixels", "here").shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        pytest.param([5, 6, 7, 8], r"boxes have the shape \[4\], expected \(R, 4\).*; put a single box in a list", id="one"),
        pytest.param([[1, 2, 3, 4, 5]], r"boxes have the shape \[1, 5\], expected \(R, 4\), four numbers a box$", id="five"),
        pytest.param([[1, 2, 3], [1, 2, 3, 4]], r"boxes aren't numbers \(.*\), expected an array", id="ragged"),
        pytest.param([["a", 2, 3, 4]], r"boxes aren't numbers", id="text"),
        pytest.param(
            [[0.1, 0.1, 0.5, 1.0]],
            r"larger than 1, in an image of 70x50 pixels; .*: give frame='unit' \(--frame unit\), or multiply",
            id="shares",
        ),
        pytest.param([[10, 5, 30, float("nan")]], r"box 0 is \(10, 5, 30, nan\), expected finite numbers", id="nan"),
        pytest.param([[10, 5, 30, float("inf")]], r"expected finite numbers", id="inf"),
        pytest.param([[40, 5, 20, 30]], r"box 0 is \(40, 5, 20, 30\), expected x0 < x1 .* \(xyxy or cxcywh\)\?", id="reversed"),
        pytest.param([[10, 5, 10, 30]], r"expected x0 < x1", id="no area"),
        pytest.param([[5, 5, 9, 9], [80, 5, 90, 20]], r"box 1 is .* lies outside the image of 70x50 pixels", id="outside"),
    ],
)
def test_boxes_that_arent_pixels(boxes: ArrayLike, message: str) -> None:
    with pytest.raises(BoxError, match=f"^here: .*{message}"):
        pixel_boxes(boxes, (50, 70), "xyxy", "pixels", "here")


def test_pixels_where_shares_are_declared() -> None:
    with pytest.raises(
        BoxError, match=r"the boxes reach 35, expected shares .* image of 70x50 pixels; .*: give frame='pixels' \(--frame pixels\)"
    ):
        pixel_boxes([[7, 5, 35, 30]], (50, 70), "xyxy", "unit", "here")
    assert pixel_boxes([[-0.2, 0.5, 1.3, 1.1]], (50, 70), "xyxy", "unit", "here").shape == (1, 4)


def test_a_pixel_of_a_tiny_image_is_no_share() -> None:
    np.testing.assert_array_equal(pixel_boxes([[0, 0, 1, 1]], (4, 3), "xyxy", "pixels", "here"), [[0, 0, 1, 1]])


def test_unknown_formats_and_frames() -> None:
    with pytest.raises(BoxError, match=r"here: box_format is 'xywh', expected 'xyxy' .* or 'cxcywh'"):
        pixel_boxes([[7, 5, 35, 30]], (50, 70), "xywh", "pixels", "here")  # type: ignore[arg-type]
    with pytest.raises(BoxError, match=r"here: frame is 'network', expected 'pixels' of the image, or 'unit'"):
        pixel_boxes([[7, 5, 35, 30]], (50, 70), "xyxy", "network", "here")  # type: ignore[arg-type]
