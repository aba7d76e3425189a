"""Tests of roiseg.index: columns, types, siblings, drop reasons, outlines, and the same bytes every time."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_factory import (
    CATEGORIES,
    Json,
    compressed,
    ellipse,
    image_record,
    make_coco,
    person_record,
    polygon_mask,
    rectangle,
    uncompressed,
)

from roiseg.classes import NON_TARGET, TARGET
from roiseg.coco import People, load_people, people_per_image
from roiseg.errors import AnnotationError
from roiseg.files import write_parquet
from roiseg.geometry import ResizeMode, box_iou
from roiseg.index import GROUPS_HELD, PEOPLE_COLUMNS, TOO_SMALL, Index, _Outlines, build_tables
from roiseg.masks import roi_labels
from roiseg.types import HW

NETWORK_HW = (64, 96)
MODES: tuple[ResizeMode, ...] = ("stretch", "letterbox")


def people_of(images: list[Json], annotations: list[Json]) -> People:
    return People(images, annotations, CATEGORIES[1])


def save(folder: Path, tables: tuple[pd.DataFrame, pd.DataFrame]) -> Path:
    write_parquet(folder / "images.parquet", tables[0])
    write_parquet(folder / "people.parquet", tables[1])
    return folder


def boxes_of(table: pd.DataFrame) -> list[list[float]]:
    return [[float(value) for value in row] for row in table[["x0", "y0", "x1", "y1"]].to_numpy()]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> People:
    return load_people(make_coco(tmp_path_factory.mktemp("coco"), images=7, seed=3, people=(1, 5)), "person", "error")


# --- tables ---


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("stretch", [[0.25, 0.25, 0.5, 0.75], [0, 0, 1, 1]]),
        ("letterbox", [[0.375, 0.25, 0.5, 0.75], [0.25, 0, 0.75, 1]]),
    ],
)
def test_tables_written_out(mode: ResizeMode, expected: list[list[float]]) -> None:
    """An image of 100x200 in 64x256: letterbox fills 128 of 256 columns, from 64 on."""
    first = person_record(3, 5, rectangle(50, 25, 50, 50))
    second = person_record(4, 5, rectangle(-1, 0, 201, 100.5))
    images, people = build_tables(people_of([image_record(5, (100, 200), "a/b.jpg")], [first, second]), (64, 256), mode, 16)
    assert images.to_dict("records") == [{"row": 0, "image_id": 5, "file_name": "a/b.jpg", "height": 100, "width": 200}]
    np.testing.assert_allclose(boxes_of(people), expected, rtol=0, atol=1e-12)
    assert people["annotation_id"].tolist() == [3, 4]
    assert people["area"].tolist() == [2500, second["area"]]
    assert [near.tolist() for near in people["siblings"]] == [[4], [3]]
    assert people["drop_reason"].isna().all()


SCHEMA = {
    "row": "int64",
    "image_id": "int64",
    "annotation_id": "int64",
    "x0": "double",
    "y0": "double",
    "x1": "double",
    "y1": "double",
    "area": "double",
    "segmentation": "large_string",
    "siblings": "list<element: int64>",
    "drop_reason": "large_string",
}


@pytest.mark.parametrize("apart", [False, True], ids=["siblings", "nobody near"])
@pytest.mark.parametrize("min_box_px", [1.0, 1000.0], ids=["all have an ROI", "nobody has"])
def test_schema_does_not_depend_on_the_data(tmp_path: Path, apart: bool, min_box_px: float) -> None:
    annotations = [
        person_record(1, 5, rectangle(2, 2, 9, 9)),
        person_record(2, 5, rectangle(30 if apart else 4, 2, 9, 9)),
    ]
    images, people = build_tables(people_of([image_record(5)], annotations), NETWORK_HW, "stretch", min_box_px)
    folder = save(tmp_path, (images, people))
    schema = pq.read_schema(folder / "people.parquet")
    assert {name: str(schema.field(name).type) for name in schema.names} == SCHEMA
    assert tuple(people.columns) == PEOPLE_COLUMNS == tuple(SCHEMA)
    schema = pq.read_schema(folder / "images.parquet")
    assert [str(schema.field(name).type) for name in schema.names] == [
        "int64",
        "int64",
        "large_string",
        "int64",
        "int64",
    ]
    assert schema.names == ["row", "image_id", "file_name", "height", "width"]


@pytest.mark.parametrize("mode", MODES)
def test_tables_of_a_drawn_data_set(drawn: People, mode: ResizeMode) -> None:
    images, people = build_tables(drawn, NETWORK_HW, mode, 1.0)
    assert images["row"].tolist() == list(range(7))
    assert images["image_id"].tolist() == [item["id"] for item in drawn.images]
    assert people["annotation_id"].tolist() == [item["id"] for item in drawn.annotations]
    assert images["image_id"].to_numpy()[people["row"]].tolist() == people["image_id"].tolist()
    for x0, y0, x1, y1 in boxes_of(people):
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1


def test_siblings_match_reference(drawn: People) -> None:
    """Boxes of the image frame that share area, pair by pair."""
    _images, table = build_tables(drawn, NETWORK_HW, "letterbox", 1.0)
    found = {int(number): near.tolist() for number, near in zip(table["annotation_id"], table["siblings"], strict=True)}
    expected: dict[int, list[int]] = {}
    for group in people_per_image(drawn).values():
        for item in group:
            x, y, width, height = item["bbox"]
            near = []
            for other in group:
                left, top, across, down = other["bbox"]
                meets = x < left + across and left < x + width and y < top + down and top < y + height
                if meets and other["id"] != item["id"]:
                    near.append(other["id"])
            expected[item["id"]] = near
    assert found == expected
    assert any(expected.values())
    assert all(number in found[other] for number, near in found.items() for other in near)


def test_boxes_that_only_touch_are_no_siblings() -> None:
    annotations = [person_record(1, 5, rectangle(0, 0, 16, 16)), person_record(2, 5, rectangle(16, 0, 16, 16))]
    _images, people = build_tables(people_of([image_record(5)], annotations), NETWORK_HW, "stretch", 1)
    assert [near.tolist() for near in people["siblings"]] == [[], []]


@pytest.mark.parametrize(
    ("box", "small"),
    [
        ([10.0, 10.0, 16.0, 20.0], False),
        ([10.4, 10.9, 16.0, 16.0], False),
        ([10.0, 10.0, 15.9, 30.0], True),
        ([10.0, 10.0, 30.0, 15.9], True),
        ([-1.0, 10.0, 16.5, 20.0], True),
        ([48.5, 10.0, 16.0, 20.0], True),
    ],
    ids=[
        "just large enough",
        "whole sides at odd places",
        "narrow",
        "low",
        "narrow once clipped",
        "cut off on the right",
    ],
)
def test_drop_reason_follows_the_box_within_the_image(box: list[float], small: bool) -> None:
    item = person_record(1, 5, bbox=box)
    _images, people = build_tables(people_of([image_record(5)], [item]), NETWORK_HW, "stretch", 16)
    assert people["drop_reason"].isna().tolist() == [not small]
    assert people["drop_reason"].dropna().tolist() == [TOO_SMALL] * small


def test_box_that_clips_to_nothing_gets_no_roi() -> None:
    """COCO's rounding may leave a box a pixel outside; a smallest size of 1 must not let a flat one through."""
    item = person_record(1, 5, bbox=[64.0, 10.0, 1.0, 20.0])
    _images, people = build_tables(people_of([image_record(5)], [item]), NETWORK_HW, "stretch", 1.0)
    assert people["drop_reason"].tolist() == [TOO_SMALL]


def test_missing_area_is_zero() -> None:
    item = {key: value for key, value in person_record(1, 5).items() if key != "area"}
    _images, people = build_tables(people_of([image_record(5)], [item]), NETWORK_HW, "stretch", 16)
    assert people["area"].tolist() == [0.0]


@pytest.mark.parametrize("mode", MODES)
def test_tables_have_the_same_bytes_every_time(tmp_path: Path, drawn: People, mode: ResizeMode) -> None:
    for name in ("one", "two"):
        save(tmp_path / name, build_tables(drawn, NETWORK_HW, mode, 12.0))
    for file in ("images.parquet", "people.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


# --- Index ---


@pytest.mark.parametrize("mode", MODES)
def test_index_there_and_back(tmp_path: Path, drawn: People, mode: ResizeMode) -> None:
    index = Index(save(tmp_path, build_tables(drawn, NETWORK_HW, mode, 14.0)), NETWORK_HW, mode)
    groups = people_per_image(drawn)
    assert len(index) == 7
    assert index.image_ids.tolist() == list(groups)
    assert index.image_ids.dtype == np.int64
    for row, (image, group) in enumerate(zip(drawn.images, groups.values(), strict=True)):
        found = index.people(row)
        assert (found.row, found.image_id, found.image_hw) == (row, image["id"], (image["height"], image["width"]))
        assert found.annotation_ids.tolist() == [item["id"] for item in group]
        assert found.has_roi.tolist() == [min(item["bbox"][2:]) >= 14 for item in group]
        assert found.areas.tolist() == [item["area"] for item in group]
        assert found.roi_numbers.tolist() == [number for number, has in enumerate(found.has_roi) if has]
        assert index.rois_per_image[row] == found.has_roi.sum()
        resize = index.resize(row)
        assert (resize.image_hw, resize.network_hw, resize.mode) == (found.image_hw, NETWORK_HW, mode)
        boxes_image = resize.boxes_to_image(found.boxes)
        expected = np.array([[x, y, x + width, y + height] for x, y, width, height in (item["bbox"] for item in group)])
        np.testing.assert_allclose(boxes_image, expected, rtol=0, atol=1e-9)
    chosen = [item["id"] for group in groups.values() for item in group if min(item["bbox"][2:]) >= 14]
    assert 0 < len(chosen) < len(drawn.annotations)
    assert index.roi_annotation_ids.tolist() == chosen


def test_outlines_come_from_their_row_groups(tmp_path: Path, drawn: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the file is cut, also within an image, and with fewer groups held than there are."""
    monkeypatch.setattr("roiseg.index.GROUPS_HELD", 1)
    tables = build_tables(drawn, NETWORK_HW, "stretch", 14.0)
    expected = tables[1]["segmentation"].tolist()
    for rows in (1, 2, 3, len(expected)):
        write_parquet(tmp_path / f"{rows}.parquet", tables[1], rows)
        outlines = _Outlines(tmp_path / f"{rows}.parquet")
        assert pq.read_metadata(tmp_path / f"{rows}.parquet").num_row_groups == -(-len(expected) // rows)
        pairs = [(start, stop) for start in range(len(expected) + 1) for stop in range(start, len(expected) + 1)]
        assert all(outlines.texts(start, stop) == expected[start:stop] for start, stop in reversed(pairs))


def test_index_holds_a_few_row_groups_only(tmp_path: Path, drawn: People) -> None:
    images, people = build_tables(drawn, NETWORK_HW, "stretch", 14.0)
    people["segmentation"] = people["segmentation"].str.pad(100_000, side="right")  # JSON may end in spaces
    write_parquet(tmp_path / "images.parquet", images)
    write_parquet(tmp_path / "people.parquet", people, 1)
    index = Index(tmp_path, NETWORK_HW, "stretch")
    before = pa.total_allocated_bytes()
    for row in range(len(index)):
        index.people(row)
    assert len(people) > 2 * GROUPS_HELD
    assert pa.total_allocated_bytes() - before < 1.5 * GROUPS_HELD * 100_000


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["polygon", "compressed", "uncompressed"])
@pytest.mark.parametrize("image_hw", [(90, 60), (50, 120)], ids=str)
def test_outline_survives_the_table(tmp_path: Path, mode: ResizeMode, form: str, image_hw: HW) -> None:
    """The ROI of all of the image, drawn at the image's size, is the mask that COCO would draw."""
    polygon = ellipse((image_hw[1] / 2, image_hw[0] / 2), (image_hw[1] / 3, image_hw[0] / 4), 40)
    mask = polygon_mask(polygon, image_hw)
    value = {"polygon": [polygon], "compressed": compressed(mask), "uncompressed": uncompressed(mask)}[form]
    people = people_of([image_record(5, image_hw)], [person_record(1, 5, polygon, segmentation=value)])
    index = Index(save(tmp_path, build_tables(people, NETWORK_HW, mode, 16)), NETWORK_HW, mode)
    everything = index.resize(0).boxes_to_unit(np.array([[0.0, 0.0, image_hw[1], image_hw[0]]]))[0]
    drawn_mask = index.people(0).segmentations[0].rasterise(everything, image_hw)
    wrong = int((drawn_mask != mask).sum())
    assert wrong == 0 if form != "polygon" else wrong <= 3


def test_people_under_the_size_limit_still_paint_class_2(tmp_path: Path) -> None:
    """Person 2 is 6 pixels wide: no ROI of its own, yet non-target in the ROI of person 1; person 3 is elsewhere."""
    annotations = [
        person_record(1, 5, rectangle(8, 8, 24, 32)),
        person_record(2, 5, rectangle(20, 16, 6, 8)),
        person_record(3, 5, rectangle(26, 10, 6, 8), segmentation=compressed(polygon_mask(rectangle(26, 10, 6, 8), (48, 64)))),
        person_record(4, 5, rectangle(44, 8, 16, 32)),
    ]
    annotations[0]["segmentation"] = [rectangle(8, 8, 10, 32)]
    people = people_of([image_record(5)], annotations)
    index = Index(save(tmp_path, build_tables(people, NETWORK_HW, "stretch", 16)), NETWORK_HW, "stretch")
    found = index.people(0)
    assert found.has_roi.tolist() == [True, False, False, True]
    assert index.rois_per_image.tolist() == [2]
    others = found.others_in(found.boxes[0], 0)
    assert others == [found.segmentations[1], found.segmentations[2]]
    labels = roi_labels(found.boxes[0], found.segmentations[0], others, (32, 24))
    assert (labels[8:16, 12:18] == NON_TARGET).all()
    assert (labels[2:10, 18:24] == NON_TARGET).all()
    assert (labels[:, :10] == TARGET).all()
    assert int((labels == NON_TARGET).sum()) == 96
    assert found.others_in(found.boxes[3], 3) == []


def test_others_in_follows_the_box_not_the_person(tmp_path: Path) -> None:
    """A jittered box may reach people whom the person's own box doesn't."""
    annotations = [person_record(1, 5, rectangle(2, 2, 16, 40)), person_record(2, 5, rectangle(24, 2, 16, 40))]
    people = people_of([image_record(5)], annotations)
    index = Index(save(tmp_path, build_tables(people, NETWORK_HW, "stretch", 8)), NETWORK_HW, "stretch")
    found = index.people(0)
    assert found.others_in(found.boxes[0], 0) == []
    wide = found.boxes[0] + np.array([0, 0, 10 / 64, 0])
    assert box_iou(wide[None], found.boxes)[0, 1] > 0
    assert found.others_in(wide, 0) == [found.segmentations[1]]


def test_index_of_no_folder(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"index/val: no index tables there .*run `dvc repro prepare`"):
        Index(tmp_path / "index" / "val", NETWORK_HW, "stretch")
