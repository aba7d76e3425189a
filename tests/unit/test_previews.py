"""Tests of roiseg.previews: sizes, order, row groups, the same bytes every time, and files that can't be used."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_factory import CATEGORIES, image_record, person_record
from PIL import Image

from roiseg import previews as module
from roiseg.coco import People
from roiseg.errors import ImageReadError, MissingImageError
from roiseg.previews import LONGER_SIDE_PX, Previews, preview_hw, write_previews
from roiseg.types import HW


def split(folder: Path, sizes_hw: Mapping[int, HW]) -> People:
    """Images of one grey level each, ten times their place."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [image_record(image_id, hw) for image_id, hw in sizes_hw.items()]
    for place, (item, hw) in enumerate(zip(images, sizes_hw.values(), strict=True)):
        cv2.imwrite(str(folder / item["file_name"]), np.full((*hw, 3), 10 * place, dtype=np.uint8))
    return People(images, [person_record(item["id"], item["id"]) for item in images], CATEGORIES[1])


@pytest.mark.parametrize(
    ("image_hw", "expected"),
    [((480, 640), (384, 512)), ((640, 480), (512, 384)), ((512, 100), (512, 100)), ((60, 80), (60, 80)), ((2, 4000), (1, 512))],
)
def test_longer_side_is_at_most_512_and_nothing_grows(image_hw: HW, expected: HW) -> None:
    assert LONGER_SIDE_PX == 512
    assert preview_hw(image_hw) == expected


def test_pictures_come_back_by_id(tmp_path: Path) -> None:
    people = split(tmp_path / "images", {7: (600, 300), 3: (20, 30), 12: (513, 1026)})
    write_previews(tmp_path / "a.parquet", people, tmp_path / "images")
    found = Previews(tmp_path / "a.parquet")
    assert len(found) == 3
    for place, (image_id, hw) in enumerate({7: (512, 256), 3: (20, 30), 12: (256, 512)}.items()):
        picture = found.picture(image_id)
        assert picture.shape == (*hw, 3)
        np.testing.assert_allclose(picture, 10 * place, atol=1)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column("image_id").to_pylist() == [7, 3, 12]
    assert table.column("file_name").to_pylist() == [item["file_name"] for item in people.images]
    assert table.column("height").to_pylist() == [512, 20, 256]
    assert table.column("width").to_pylist() == [256, 30, 512]


def test_only_the_group_that_is_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMAGES_PER_GROUP", 2)
    write_previews(tmp_path / "a.parquet", split(tmp_path / "images", dict.fromkeys(range(5), (20, 30))), tmp_path / "images")
    metadata = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [2, 2, 1]
    read: list[int] = []
    original = pq.ParquetFile.read_row_group

    def spied(file: pq.ParquetFile, number: int, **arguments: object) -> pa.Table:
        read.append(number)
        return original(file, number, **arguments)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spied)
    found = Previews(tmp_path / "a.parquet")
    for image_id in (4, 2, 3, 1):
        np.testing.assert_allclose(found.picture(image_id), 10 * image_id, atol=1)
    assert read == [2, 1, 0], "3 lies in the group of 2, which is still there"


def test_same_bytes_each_time(tmp_path: Path) -> None:
    people = split(tmp_path / "images", {7: (60, 30), 3: (700, 30)})
    for name in ("a", "b"):
        write_previews(tmp_path / f"{name}.parquet", people, tmp_path / "images")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_no_images(tmp_path: Path) -> None:
    write_previews(tmp_path / "a.parquet", People([], [], CATEGORIES[1]), tmp_path)
    assert len(Previews(tmp_path / "a.parquet")) == 0


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_images(tmp_path: Path, mode: str) -> None:
    image = image_record(5, (30, 40), "a.jpg")
    Image.new(mode, (40, 30)).save(tmp_path / "a.jpg")
    write_previews(tmp_path / "a.parquet", People([image], [], CATEGORIES[1]), tmp_path)
    assert Previews(tmp_path / "a.parquet").picture(5).shape == (30, 40, 3)


def test_rotation_in_exif_is_left_alone(tmp_path: Path) -> None:
    """As extraction does: annotations are of the stored pixels."""
    picture = Image.new("RGB", (40, 30))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    write_previews(tmp_path / "a.parquet", People([image_record(5, (30, 40), "a.jpg")], [], CATEGORIES[1]), tmp_path)
    assert Previews(tmp_path / "a.parquet").picture(5).shape == (30, 40, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "the file is empty"), (b"text", "4 bytes that are no image"), (None, "48x48 pixels, but its annotation says 64x48")],
)
def test_image_that_cannot_be_used(tmp_path: Path, data: bytes | None, message: str) -> None:
    if data is None:
        cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 48, 3), dtype=np.uint8))
    else:
        (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageReadError, match=rf"a\.png: .*{message}"):
        write_previews(tmp_path / "a.parquet", People([image_record(5, (48, 64), "a.png")], [], CATEGORIES[1]), tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["a.png"], "nothing half-written stays"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingImageError, match=r"a\.parquet: no previews of the validation images there; run `dvc repro prepare`"):
        Previews(tmp_path / "a.parquet")


def test_image_without_preview(tmp_path: Path) -> None:
    write_previews(tmp_path / "a.parquet", split(tmp_path / "images", {7: (20, 30)}), tmp_path / "images")
    with pytest.raises(MissingImageError, match=r"a\.parquet: no preview of image 8 among 1, .*; run `dvc repro prepare`"):
        Previews(tmp_path / "a.parquet").picture(8)


def test_file_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"text")
    with pytest.raises(ImageReadError, match=r"a\.parquet: not a table of previews \(.*\); run `dvc repro prepare`"):
        Previews(tmp_path / "a.parquet")
    pq.write_table(pa.table({"row": [1]}), tmp_path / "b.parquet")
    with pytest.raises(ImageReadError, match=r"b\.parquet: not a table of previews \(columns row\); run `dvc repro prepare`"):
        Previews(tmp_path / "b.parquet")
