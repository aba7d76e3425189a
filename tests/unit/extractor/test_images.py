"""Tests of roiseg.extractor.images: every picture that can be met, whole or refused; and the network input, value by value."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_factory import INPUT_HW, extractor_params
from PIL import Image

from roiseg.errors import ImageReadError, MissingImageError
from roiseg.extractor.images import decode, read_bytes
from roiseg.network_input import LETTERBOX_GREY, to_input

HW = (36, 52)


def picture(hw: tuple[int, int] = HW) -> NDArray[np.uint8]:
    """Smooth, and different in each colour and each corner; BGR."""
    y, x = np.mgrid[: hw[0], : hw[1]]
    planes = [x * 255 / hw[1], y * 255 / hw[0], 200 - x * 150 / hw[1]]
    return np.stack(planes, axis=2).astype(np.uint8)


def encode(kind: str, pixels: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(kind, pixels)[1])


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pil(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))


def test_png_is_exact() -> None:
    pixels = picture()
    found = decode(encode(".png", pixels), "x", HW)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)


def test_jpeg_is_bgr() -> None:
    found = decode(encode(".jpg", picture()), "x", HW)
    np.testing.assert_allclose(found.astype(int), picture(), atol=12)


def test_grey_becomes_colour() -> None:
    grey = picture()[:, :, 0]
    np.testing.assert_array_equal(decode(encode(".png", grey), "x", HW), np.repeat(grey[:, :, None], 3, axis=2))


def test_cmyk_becomes_colour() -> None:
    data = saved(pil(picture()).convert("CMYK"), "JPEG", quality=95)
    np.testing.assert_allclose(decode(data, "x", HW).astype(int), picture(), atol=16)


def test_16_bit_becomes_8_bit() -> None:
    deep = picture().astype(np.uint16) * 257
    data = bytes(cv2.imencode(".png", deep)[1])
    found = decode(data, "x", HW)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found.astype(int), picture(), atol=1)


def test_palette_becomes_colour() -> None:
    image = pil(picture()).quantize(16)
    np.testing.assert_array_equal(decode(saved(image, "PNG"), "x", HW)[:, :, ::-1], np.asarray(image.convert("RGB")))


def test_transparency_is_left_out() -> None:
    with_alpha = np.dstack([picture(), np.full(HW, 7, dtype=np.uint8)])
    np.testing.assert_array_equal(decode(encode(".png", with_alpha), "x", HW), picture())


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_rotation_is_not_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(pil(picture()), "JPEG", quality=95, exif=exif)
    np.testing.assert_allclose(decode(data, "x", HW).astype(int), picture(), atol=12)


@pytest.mark.parametrize("hw", [(1, 3000), (3000, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_huge_aspects(hw: tuple[int, int], resize: str) -> None:
    found = decode(encode(".png", picture(hw)), "x", hw)
    assert found.shape == (*hw, 3)
    assert to_input(found, extractor_params(resize=resize).input_rule()).shape == (3, *INPUT_HW)


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp", ".bmp"])
def test_truncated_anywhere(kind: str) -> None:
    data = encode(kind, picture())
    assert decode(data, "x", HW).shape == (*HW, 3)
    for length in range(1, len(data), 7 if len(data) > 500 else 3):
        with pytest.raises(ImageReadError, match=rf"a/b\.x: .*{length} bytes|a/b\.x: can't be decoded"):
            decode(data[:length], "a/b.x", HW)


@pytest.mark.parametrize("kind", [".jpg", ".png"])
@pytest.mark.parametrize("tail", [b"\0", b"\r\n<!-- cached -->", b"\xff" * 300])
def test_bytes_after_the_end_are_fine(kind: str, tail: bytes) -> None:
    data = encode(kind, picture())
    np.testing.assert_array_equal(decode(data + tail, "x", HW), decode(data, "x", HW))


def test_a_jpeg_cut_behind_its_thumbnail() -> None:
    """The end marker of an embedded thumbnail is not that of the picture."""
    thumbnail = encode(".jpg", picture((8, 12)))
    whole = encode(".jpg", picture())
    data = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + whole[2:]
    assert decode(data, "x", HW).shape == (*HW, 3)
    with pytest.raises(ImageReadError, match=r"x: \d+ bytes that are no image|x: the image is truncated"):
        decode(data[: 6 + len(thumbnail)], "x", HW)


def test_zero_bytes() -> None:
    with pytest.raises(ImageReadError, match=r"000\.jpg: the file is empty; fetch it again"):
        decode(b"", "000.jpg", HW)


def test_a_text() -> None:
    with pytest.raises(ImageReadError, match=r"000\.jpg: 22 bytes that are no image OpenCV can read"):
        decode(b"<html>not found</html>", "000.jpg", HW)


def test_a_png_with_flipped_bits() -> None:
    data = bytearray(encode(".png", picture()))
    data[len(data) // 2] ^= 0x10
    with pytest.raises(ImageReadError, match=r"x\.png: "):
        decode(bytes(data), "x.png", HW)


def test_another_size_than_annotated() -> None:
    with pytest.raises(ImageReadError, match=r"x: the image has 52x36 pixels, but its annotation says 36x52; .*EXIF rotation"):
        decode(encode(".png", picture()), "x", (36, 52)[::-1])
    assert decode(encode(".png", picture()), "x").shape == (*HW, 3)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingImageError, match=r"no\.jpg: no such image"):
        read_bytes(tmp_path / "no.jpg")


def test_stretch_by_a_factor() -> None:
    """Doubled, bilinear, pixel centres at +0.5: weights 3/4 and 1/4, and the edge repeated."""
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[0, 0] = (16, 32, 64)
    found = to_input(pixels, extractor_params().input_rule())
    assert found.shape == (3, 32, 64)
    assert found.dtype == np.float32
    weights = np.array([1, 0.75, 0.25, 0])
    for plane, value in enumerate((64, 32, 16)):
        np.testing.assert_array_equal(found[plane, :4, :4], value * np.outer(weights, weights))
        assert not found[plane, 4:].any()
        assert not found[plane, :, 4:].any()


@pytest.mark.parametrize(("color", "order"), [("rgb", (2, 1, 0)), ("bgr", (0, 1, 2))])
@pytest.mark.parametrize("pixel_max", [1.0, 255.0, 2.0])
def test_colour_and_range(color: str, order: tuple[int, int, int], pixel_max: float) -> None:
    pixels = picture(INPUT_HW)
    pixels[0, 0] = 255
    found = to_input(pixels, extractor_params(color=color, pixel_max=pixel_max).input_rule())
    expected = pixels.transpose(2, 0, 1)[list(order)].astype(np.float64) * pixel_max / 255
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0, 0, 0] == np.float32(pixel_max)
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("hw", "top", "left", "content"),
    [((64, 64), 0, 16, (32, 32)), ((16, 64), 8, 0, (16, 64)), ((100, 60), 0, 22, (32, 19)), ((32, 64), 0, 0, (32, 64))],
    ids=str,
)
def test_letterbox(hw: tuple[int, int], top: int, left: int, content: tuple[int, int]) -> None:
    pixels = np.full((*hw, 3), 200, dtype=np.uint8)
    found = to_input(pixels, extractor_params(resize="letterbox", pixel_max=1.0).input_rule())
    expected = np.full((3, *INPUT_HW), LETTERBOX_GREY / 255)
    expected[:, top : top + content[0], left : left + content[1]] = 200 / 255
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_letterbox_keeps_the_picture() -> None:
    pixels = picture((16, 64))
    found = to_input(pixels, extractor_params(resize="letterbox", color="bgr").input_rule())
    np.testing.assert_array_equal(found[:, 8:24], pixels.transpose(2, 0, 1))
