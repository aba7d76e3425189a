"""Tests of roiseg.predict.frames: pictures in order, read ahead but not far, and faults in the place of what can't be read."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from roiseg.errors import ImageReadError, MissingImageError
from roiseg.extractor.images import decode
from roiseg.network_input import Pixels
from roiseg.predict import frames
from roiseg.predict.frames import Fault, Frame, count_frames, read_ahead
from roiseg.predict.sources import Source, find_sources


def write_image(path: Path, level: int, hw: tuple[int, int] = (12, 20)) -> Path:
    cv2.imwrite(str(path), np.full((*hw, 3), level, dtype=np.uint8))
    return path


def write_video(path: Path, count: int, hw: tuple[int, int] = (48, 64), fps: float = 12.5, code: str = "mp4v") -> Path:
    """Frames whose grey grows by 10."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), fps, (hw[1], hw[0]))
    for number in range(count):
        writer.write(np.full((*hw, 3), number * 10, dtype=np.uint8))
    writer.release()
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def sources(*paths: Path) -> list[Source]:
    return find_sources([str(path) for path in paths])


def fault(*paths: Path) -> Fault:
    """The one fault among what is read."""
    (found,) = [item for item in read_ahead(sources(*paths), 2, 3) if isinstance(item, Fault)]
    return found


# --- images ---


def test_images_come_in_order_however_many_are_read_ahead(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{number:02d}.png", number) for number in range(20)]
    for threads, ahead in ((1, 0), (4, 3), (2, 50)):
        found = list(read_ahead(sources(*paths), threads, ahead))
        assert [(item.source.path, int(item.pixels[0, 0, 0])) for item in found if isinstance(item, Frame)] == [
            (path, number) for number, path in enumerate(paths)
        ]
    assert isinstance(found[3], Frame)
    assert (found[3].number, found[3].what, found[3].fps) == (None, str(paths[3]), 0)


def test_no_more_are_decoded_than_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_image(tmp_path / f"{number:02d}.png", number) for number in range(20)]
    decoded: list[str] = []

    def counted(data: bytes, name: str) -> Pixels:
        decoded.append(name)
        return decode(data, name)

    monkeypatch.setattr(frames, "decode", counted)
    reading = read_ahead(sources(*paths), 2, 3)
    for count in range(1, 5):
        next(reading)
        assert len(decoded) <= count + 3
    reading.close()
    assert len(decoded) < 10


def test_bad_files_are_faults_and_the_rest_is_read(tmp_path: Path) -> None:
    good = write_image(tmp_path / "good.png", 7)
    whole = write_image(tmp_path / "whole.jpg", 9, (200, 300)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "dir.png").mkdir()
    names = ["empty.png", "good.png", "cut.jpg", "gone.png", "text.png"]
    found = list(read_ahead(sources(*(tmp_path / name for name in names)), 2, 2))
    messages = ["the file is empty", None, "the image is truncated", "no such image; correct the path", "no image OpenCV can read"]
    assert [item.source.name for item in found] == names
    for item, message in zip(found, messages, strict=True):
        if isinstance(item, Fault):
            assert isinstance(item.error, MissingImageError if "no such" in str(message) else ImageReadError)
            assert str(item.source.path) in str(item.error)
            assert message is not None
            assert message in str(item.error)
        else:
            assert item.source.path == good


def test_what_may_not_be_read(tmp_path: Path) -> None:
    folder = Source(tmp_path, "a", "a")
    (found,) = read_ahead([folder], 1, 1)
    assert isinstance(found, Fault)
    assert "can't be read (Is a directory); expected an image file" in str(found.error)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_huge_images_are_refused_by_their_header(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"huge{suffix}"
    if suffix == ".png":
        path.write_bytes(png_header(30_000, 30_000))
    else:
        data = write_image(path, 5).read_bytes()
        start = data.index(b"\xff\xc0") + 5
        path.write_bytes(data[:start] + struct.pack(">HH", 30_000, 30_000) + data[start + 4 :])
    monkeypatch.setattr(frames, "decode", None)
    message = str(fault(path).error)
    assert f"{path}: has 30000x30000 pixels by its header, expected at most 200,000,000 in all; scale it down" in message


def test_pillows_limit_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(png_header(12_000, 10_000))
    before = Image.MAX_IMAGE_PIXELS
    assert before is not None
    assert 12_000 * 10_000 > before, "Pillow would warn"
    assert "pixels by its header" not in str(fault(tmp_path / "large.png").error)
    assert before == Image.MAX_IMAGE_PIXELS


# --- videos ---


def test_frames_of_a_video(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", 9)
    picture = write_image(tmp_path / "z.png", 3)
    wanted = sources(clip, picture)
    assert count_frames(wanted) == 10
    found = [item for item in read_ahead(wanted, 2, 3) if isinstance(item, Frame)]
    assert [item.number for item in found] == [*range(9), None]
    assert found[4].what == f"{clip} frame 4"
    assert {item.fps for item in found[:9]} == {12.5}
    assert [item.pixels.shape for item in found] == [(48, 64, 3)] * 9 + [(12, 20, 3)]
    levels = [float(item.pixels.mean()) for item in found[:9]]
    np.testing.assert_allclose(levels, np.arange(9) * 10, atol=5)


@pytest.mark.parametrize(
    ("share", "message"),
    [(0.0, "the file is empty"), (0.5, "bytes that are no video FFmpeg can read, or only a part of one"), (None, "no such video")],
)
def test_a_video_that_cant_be_opened(tmp_path: Path, share: float | None, message: str) -> None:
    path, other = tmp_path / "clip.mp4", write_image(tmp_path / "z.png", 3)
    if share is not None:
        data = write_video(path, 9).read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
    assert count_frames(sources(path, other)) == 2
    found = fault(path, other)
    assert found.source.path == path
    assert message in str(found.error)


def test_a_video_that_ends_early(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", 9, code="MJPG")
    clip.write_bytes(b"00dc".join(clip.read_bytes().split(b"00dc")[:6]))
    *found, last = read_ahead(sources(clip), 1, 4)
    assert len(found) == 4, "what can be read is passed on"
    assert all(isinstance(item, Frame) for item in found)
    assert isinstance(last, Fault)
    assert f"{clip}: {len(found)} frames can be read, but its header says 9; fetch it again" in str(last.error)


def test_a_huge_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_PIXELS", 3000)
    assert "has 64x48 pixels by its header, expected at most 3,000" in str(fault(write_video(tmp_path / "clip.mp4", 2)).error)


def test_a_video_that_is_left_early_is_closed(tmp_path: Path) -> None:
    reading = read_ahead(sources(write_video(tmp_path / "clip.mp4", 9)), 1, 4)
    assert isinstance(next(reading), Frame)
    reading.close()


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    (found,) = read_ahead([Source(tmp_path / "a\0b.png", "a", "a")], 1, 1)
    assert isinstance(found, Fault)
    assert "can't be the path of an image" in str(found.error)
