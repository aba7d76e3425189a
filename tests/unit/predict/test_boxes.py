"""Tests of roiseg.predict.boxes: typed boxes, CSV, COCO annotations and results, and which of them belong to a picture."""

import json
from pathlib import Path

import numpy as np
import pytest

from roiseg.errors import BoxError, RoisegError
from roiseg.predict.boxes import BoxTable, choose_boxes, read_boxes
from roiseg.predict.given import BoxFormat, BoxFrame, pixel_boxes
from roiseg.predict.sources import Source, find_sources


def source(path: str) -> Source:
    (found,) = find_sources([path])
    return found


PICTURE, CLIP = source("shots/picture.png"), source("shots/clip.mp4")


def image_boxes(table: BoxTable, found: Source = PICTURE, number: int | None = None) -> list[list[float]]:
    """Boxes of an image of 40 rows and 200 columns, brought to its pixels."""
    found_boxes = table.of(found, number).boxes
    boxes: list[list[float]] = pixel_boxes(found_boxes, (40, 200), table.box_format, table.frame, "here").tolist()
    return boxes


# --- typed ---


@pytest.mark.parametrize(
    ("text", "box_format", "frame"),
    [
        ("10,20,110,40; 30,4,90,20;", None, None),
        ("60,30,100,20;60,12,60,16", "cxcywh", "pixels"),
        (".05,.5,.55,1;.15,.1,.45,.5", "xyxy", "unit"),
        (" 0.3,0.75,0.5,0.5 ;0.3,0.3,0.3,0.4", "cxcywh", "unit"),
    ],
)
def test_formats_and_frames_mean_the_same(text: str, box_format: BoxFormat | None, frame: BoxFrame | None) -> None:
    table = read_boxes(text, box_format, frame)
    np.testing.assert_allclose(image_boxes(table), [[10, 20, 110, 40], [30, 4, 90, 20]])
    assert table.of(PICTURE, None).scores.tolist() == [1, 1]
    np.testing.assert_allclose(image_boxes(table, CLIP, 7), image_boxes(table)), "the same in every frame"


@pytest.mark.parametrize(
    "text", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2;3,4", "1 2 3 4", "1,2,3,4;5", "1,2,nan,4", "1,2,inf,4", ","]
)
def test_malformed_text(text: str) -> None:
    with pytest.raises(BoxError, match=r"--boxes '.*', expected 'x0,y0,x1,y1;\.\.\.' or a \.json or \.csv file: .* isn't a box"):
        read_boxes(text, None, None)


def test_typed_boxes_for_several_images() -> None:
    table = read_boxes("1,2,3,4", None, None)
    table.check([PICTURE])
    with pytest.raises(
        BoxError, match=r"--boxes '1,2,3,4': typed boxes go with one image or video, got 2; give a CSV or COCO JSON"
    ):
        table.check([PICTURE, CLIP])


def test_the_detectors_boxes() -> None:
    assert choose_boxes("detector", None, None) is None
    assert choose_boxes("1,2,3,4", "cxcywh", "unit") == read_boxes("1,2,3,4", "cxcywh", "unit")
    for box_format, frame in (("xyxy", None), (None, "pixels")):
        with pytest.raises(BoxError, match="the detector's boxes have their own format; leave --format and --frame out"):
            choose_boxes("detector", box_format, frame)  # type: ignore[arg-type]


# --- CSV ---


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_csv_of_images(tmp_path: Path) -> None:
    text = "score, file_name, x0, y0, x1, y1\n0.5,picture.png,1,2,3,4\n,picture.png,5,6,7,8\n1,other.png,1,1,2,2\n"
    table = read_boxes(write(tmp_path / "b.csv", text), None, None)
    asked = table.of(PICTURE, None)
    assert asked.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert asked.scores.tolist() == [0.5, 1.0]


def test_csv_of_centres_in_shares(tmp_path: Path) -> None:
    table = read_boxes(write(tmp_path / "b.CSV", "file_name,cx,cy,w,h\npicture.png,.5,.5,1,.5\n"), "cxcywh", "unit")
    assert image_boxes(table) == [[0, 10, 200, 30]]


def test_csv_of_a_video(tmp_path: Path) -> None:
    text = "\ufefffile_name,frame,x0,y0,x1,y1\nclip.mp4,0,1,2,3,4\nclip.mp4,12,5,6,7,8\nclip.mp4,12,1,1,2,2\npicture.png,,1,1,9,9\n"
    table = read_boxes(write(tmp_path / "b.csv", text), None, None)
    assert image_boxes(table, CLIP, 0) == [[1, 2, 3, 4]]
    assert image_boxes(table, CLIP, 12) == [[5, 6, 7, 8], [1, 1, 2, 2]]
    assert image_boxes(table, CLIP, 5) == []
    assert image_boxes(table) == [[1, 1, 9, 9]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            r"b\.csv: no column file_name, x0, y0, x1, y1 in its first line None; expected file_name,x0,y0,x1,y1 \(--format xyxy\)",
        ),
        ("file_name,cx,cy,w,h\n", r"no column x0, y0, x1, y1 in its first line \['file_name', 'cx', 'cy', 'w', 'h'\]"),
        ("file_name,x0,y0,x1,y1\na.png,1,2,3,4\na.png,1,2,3\n", r"b\.csv line 3: \['1', '2', '3', None\] isn't a box"),
        ("file_name,x0,y0,x1,y1,score\na.png,1,2,3,4,high\n", r"b\.csv line 2: score is 'high', expected a number from 0 to 1"),
        ("file_name,x0,y0,x1,y1,score\na.png,1,2,3,4,87\n", r"score is '87'"),
        (
            "file_name,x0,y0,x1,y1,frame\na.mp4,1,2,3,4,-1\n",
            r"b\.csv line 2: frame is '-1', expected the number of a frame, from 0",
        ),
    ],
)
def test_csv_that_doesnt_help(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BoxError, match=message):
        read_boxes(write(tmp_path / "b.csv", text), None, None)


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes("file_name,x0,y0,x1,y1\nbäume.png,1,2,3,4\n".encode("latin-1"))
    with pytest.raises(BoxError, match=r"b\.csv: not a CSV in UTF-8 .*; save it as one"):
        read_boxes(str(tmp_path / "b.csv"), None, None)


# --- COCO ---

COCO = {
    "images": [{"id": 4, "file_name": "other.png"}, {"id": 9, "file_name": "picture.png"}, {"id": 11, "file_name": "empty.png"}],
    "categories": [{"id": 3, "name": "person"}, {"id": 4, "name": "dog"}],
    "annotations": [
        {"image_id": 9, "category_id": 3, "bbox": [1, 2, 10, 20]},
        {"image_id": 9, "category_id": 4, "bbox": [0, 0, 5, 5]},
        {"image_id": 9, "category_id": 3, "bbox": [3, 3, 4, 4], "iscrowd": 1},
        {"image_id": 9, "category_id": 3, "bbox": [5, 6, 7, 8], "iscrowd": 0},
    ],
}


def test_coco_annotations(tmp_path: Path) -> None:
    table = read_boxes(write(tmp_path / "b.json", json.dumps(COCO)), None, None)
    assert image_boxes(table) == [[1, 2, 11, 22], [5, 6, 12, 14]]
    assert image_boxes(table, source("empty.png")) == [], "listed, and nobody in it"
    assert (table.image_id(PICTURE, 1), table.image_id(source("empty.png"), 2), table.category_id) == (9, 11, 3)


def test_a_file_without_people_gives_all_boxes(tmp_path: Path) -> None:
    bare = {"images": COCO["images"], "annotations": [{"image_id": 9, "bbox": [1, 2, 10, 20]}]}
    table = read_boxes(write(tmp_path / "b.json", json.dumps(bare)), None, None)
    assert image_boxes(table) == [[1, 2, 11, 22]]
    assert table.category_id == 1


def test_coco_results(tmp_path: Path) -> None:
    results = [{"file_name": "picture.png", "bbox": [1, 2, 3, 4], "score": 0.25}, {"image_id": 139, "bbox": [0, 0, 5, 5]}]
    table = read_boxes(write(tmp_path / "b.json", f"\n {json.dumps(results)}"), None, None)
    assert image_boxes(table) == [[1, 2, 4, 6]]
    assert table.of(PICTURE, None).scores.tolist() == [0.25]
    assert image_boxes(table, source("val/000000000139.jpg")) == [[0, 0, 5, 5]], "COCO names files by their ids"
    assert table.image_id(PICTURE, 7) == 7, "not all have an id"


def test_ids_of_results_are_kept(tmp_path: Path) -> None:
    table = read_boxes(write(tmp_path / "b.json", json.dumps([{"image_id": 139, "bbox": [0, 0, 1, 1]}])), None, None)
    assert table.image_id(source("000000000139.jpg"), 1) == 139


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', r"b\.json: not valid JSON in UTF-8"),
        ("7", r"b\.json: no lists 'images' and 'annotations', expected COCO annotations, or a list of COCO results"),
        ('{"images": []}', r"no lists 'images' and 'annotations'"),
        ('{"images": [{"id": 1}], "annotations": []}', r"\{'id': 1\} has no 'file_name' that is a number or text"),
        ('{"images": [], "annotations": [{"id": 5, "image_id": 2}]}', r"annotation 5 is of image 2, which isn't among its images"),
        (
            '{"images": [{"id": [1], "file_name": "a"}], "annotations": []}',
            r"has no 'id' that is a number or text, expected a COCO",
        ),
        ('{"images": [], "annotations": [3]}', r"b\.json: 3 has no 'image_id' that is a number or text, expected a COCO record"),
        ('{"images": [], "annotations": [], "categories": [3]}', r"b\.json: 3 has no 'name' that is a number or text"),
        ('[{"bbox": [1, 2, 3, 4]}]', r"result 0 has no file_name and no image_id"),
        ('[{"image_id": 1}]', r"result 0: \[None\] isn't a box; expected four finite numbers"),
        ('[{"image_id": 1, "bbox": [1, 2, 3]}]', r"result 0: \[1, 2, 3\] isn't a box"),
        ('[{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 7}]', r"result 0: score is 7, expected a number from 0 to 1"),
        ('[{"image_id": 1, "bbox"', r"not valid JSON behind result 0"),
    ],
)
def test_json_that_doesnt_help(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(RoisegError, match=message):
        read_boxes(write(tmp_path / "b.json", content), None, None)


@pytest.mark.parametrize("name", ["gone.json", "gone.csv"])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(BoxError, match=rf"--boxes .*{name}: no such file; correct the path"):
        read_boxes(str(tmp_path / name), None, None)


@pytest.mark.parametrize(("box_format", "frame"), [("xyxy", None), (None, "unit"), (None, "pixels")])
def test_json_has_its_own_format(tmp_path: Path, box_format: BoxFormat | None, frame: BoxFrame | None) -> None:
    with pytest.raises(BoxError, match=r"always left, top, width, height in pixels; leave --format and --frame out"):
        read_boxes(write(tmp_path / "b.json", json.dumps(COCO)), box_format, frame)


# --- whose ---


def table_of(tmp_path: Path, *file_names: str) -> BoxTable:
    lines = "".join(f"{name},{place},0,99,9\n" for place, name in enumerate(file_names))
    return read_boxes(write(tmp_path / "b.csv", f"file_name,x0,y0,x1,y1\n{lines}"), None, None)


def test_the_longest_end_of_the_path_counts(tmp_path: Path) -> None:
    table = table_of(tmp_path, "1.jpg", "one/1.jpg")
    one, two = source("x/one/1.jpg"), source("x/two/1.jpg")
    table.check([one, two])
    assert [image_boxes(table, item)[0][0] for item in (one, two)] == [1, 0]


def test_a_whole_path(tmp_path: Path) -> None:
    (one, two), name = (source(f"{folder}/1.jpg") for folder in ("one", "two")), str(source("one/1.jpg").path)
    table = table_of(tmp_path, name)
    assert Path(name).is_absolute()
    assert (table.name_of(one), table.name_of(two)) == (name, None)


def test_a_name_that_fits_two(tmp_path: Path) -> None:
    with pytest.raises(
        BoxError, match=r"the boxes of '1\.jpg' fit .*one/1\.jpg and .*two/1\.jpg; expected one image for each name"
    ):
        table_of(tmp_path, "1.jpg").check([source("one/1.jpg"), source("two/1.jpg")])


def test_an_image_without_boxes(tmp_path: Path) -> None:
    table = table_of(tmp_path, "other.png")
    table.check([PICTURE])
    with pytest.raises(BoxError, match=r"shots/picture\.png: --boxes .*b\.csv has no boxes for it, only for 'other\.png'; add it"):
        table.of(PICTURE, None)


def test_videos_need_frames_and_images_none(tmp_path: Path) -> None:
    with pytest.raises(BoxError, match=r"clip\.mp4: a video, but its rows have no frame number in .*a CSV with a column 'frame'"):
        table_of(tmp_path, "clip.mp4").of(CLIP, 0)
    text = "file_name,frame,x0,y0,x1,y1\npicture.png,3,1,2,3,4\n"
    with pytest.raises(BoxError, match=r"picture\.png: an image, but its rows have frame numbers"):
        read_boxes(write(tmp_path / "b.csv", text), None, None).of(PICTURE, None)
