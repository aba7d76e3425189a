"""Tests of roiseg.extractor.inputs: rows to batches."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from onnx_factory import INPUT_HW, extractor_params

from roiseg.errors import ImageReadError, MissingImageError
from roiseg.extractor import inputs
from roiseg.extractor.inputs import ImageFile, batches, hash_images, image_files


@pytest.fixture
def files(tmp_path: Path) -> list[ImageFile]:
    """Seven images of the network's size, each of one grey that is ten times its row."""
    for row in range(7):
        cv2.imwrite(str(tmp_path / f"{row}.png"), np.full((*INPUT_HW, 3), row * 10, dtype=np.uint8))
    return [ImageFile(row, 100 - row, tmp_path / f"{row}.png", INPUT_HW) for row in range(7)]


def test_image_files_follow_the_index(tmp_path: Path) -> None:
    table = pd.DataFrame({"row": [0, 1], "image_id": [8, 3], "file_name": ["a/x.jpg", "y.png"], "height": [4, 5], "width": [6, 7]})
    assert image_files(table, tmp_path) == [
        ImageFile(0, 8, tmp_path / "a/x.jpg", (4, 6)),
        ImageFile(1, 3, tmp_path / "y.png", (5, 7)),
    ]


@pytest.mark.parametrize("size", [1, 3, 7, 10])
@pytest.mark.parametrize("threads", [1, 4])
def test_batches_are_in_order_and_all_of_one_size(files: list[ImageFile], size: int, threads: int) -> None:
    rows = []
    for part, values in batches(files, extractor_params(batch_size=size), threads):
        assert values.shape == (size, 3, *INPUT_HW)
        assert values.dtype == np.uint8
        greys = [item.row * 10 for item in part]
        assert values[:, 0, 0, 0].tolist() == greys + greys[:1] * (size - len(part))
        rows += [item.row for item in part]
    assert rows == list(range(7))


def test_no_images() -> None:
    assert list(batches([], extractor_params(), 2)) == []


def test_decoding_ahead_is_bounded(files: list[ImageFile], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counting(path: Path) -> bytes:
        read.append(path.name)
        return path.read_bytes()

    monkeypatch.setattr(inputs, "read_bytes", counting)
    monkeypatch.setattr(inputs, "AHEAD_BATCHES", 2)
    source = batches(files, extractor_params(batch_size=2), 1)
    next(source)
    assert len(read) <= 4
    source.close()  # type: ignore[attr-defined]
    assert len(read) <= 4


def test_a_broken_image_ends_it_behind_the_good_batches(files: list[ImageFile]) -> None:
    files[4].path.write_bytes(b"")
    source = batches(files, extractor_params(batch_size=2), 2)
    assert [item.row for item in next(source)[0]] == [0, 1]
    assert [item.row for item in next(source)[0]] == [2, 3]
    with pytest.raises(ImageReadError, match=r"4\.png: the file is empty"):
        next(source)


def test_an_image_of_another_size(files: list[ImageFile]) -> None:
    wrong = ImageFile(0, 1, files[0].path, (64, 32))
    with pytest.raises(ImageReadError, match=r"0\.png: the image has 64x32 pixels, but its annotation says 32x64"):
        next(batches([wrong], extractor_params(), 1))


def test_hash_of_images_is_of_ids_and_bytes_in_order(files: list[ImageFile]) -> None:
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.image_id.to_bytes(8, "little") + hashlib.sha256(file.path.read_bytes()).digest())
    assert hash_images(files, 3) == whole.hexdigest()
    assert hash_images(files[::-1], 3) != whole.hexdigest()
    files[3].path.write_bytes(files[3].path.read_bytes() + b"\0")
    assert hash_images(files, 1) != whole.hexdigest()


def test_hash_of_a_missing_image(files: list[ImageFile]) -> None:
    files[6].path.unlink()
    with pytest.raises(MissingImageError, match=r"6\.png: no such image"):
        hash_images(files, 2)
