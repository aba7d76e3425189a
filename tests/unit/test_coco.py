"""Tests of roiseg.coco: every fault is named, every filter counts, every subset is the same again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from data_factory import (
    CATEGORIES,
    DOG_ID,
    PERSON_ID,
    Json,
    coco,
    ellipse,
    image_record,
    make_coco,
    person_record,
    polygon_mask,
    uncompressed,
    write_coco,
    write_people,
)
from pycocotools.coco import COCO

from roiseg.coco import (
    DataParams,
    People,
    Subset,
    choose_subset,
    load_people,
    load_prepared,
    people_per_image,
    prepared_name,
    read_json,
    to_coco,
)
from roiseg.errors import AnnotationError, ParamsError

IMAGE_HW = (48, 64)
MASK = polygon_mask(ellipse((30, 24), (10, 16)), IMAGE_HW)
GOOD = person_record(1, 5)


# --- reading ---


def test_read_json_keeps_everything(tmp_path: Path) -> None:
    data = coco([image_record(5)], [GOOD]) | {"info": {"year": 2017}}
    assert read_json(write_coco(tmp_path / "a.json", data)) == data


BROKEN_FILES = {
    "cut off": ('{"images": [', r"a\.json: not valid JSON .*is the download whole\?"),
    "empty": ("", r"a\.json: not valid JSON"),
    "not text": ("\udcff\udcfe", r"a\.json: not valid JSON"),
    "a list": ("[]", r"a\.json: no list 'images', expected a COCO instances file"),
    "captions": ('{"images": [], "annotations": []}', r"a\.json: no list 'categories'"),
    "annotations by id": ('{"images": [], "annotations": {}, "categories": []}', r"a\.json: no list 'annotations'"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_read_json_of_a_broken_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(AnnotationError, match=message):
        read_json(path)


def test_read_json_of_no_file(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"b\.json: no such annotation file; set data\.\*\.annotations"):
        read_json(tmp_path / "b.json")


# --- faults of the file ---

IMAGES = [image_record(5), image_record(6)]
FILE_FAULTS = {
    "image id twice": (
        coco([*IMAGES, image_record(5)], [GOOD]),
        r"image id 5 is there more than once \(1 such ids\); .*remove or renumber",
    ),
    "annotation ids twice": (
        coco(IMAGES, [person_record(number, 5) for number in (3, 4, 3, 4, 9)]),
        r"annotation id 3, 4 is there more than once \(2 such ids\)",
    ),
    "image without id": (
        coco([{"file_name": "a.png", "height": 4, "width": 4}], [GOOD]),
        r"image number 0 of its list has no integer 'id', expected a record",
    ),
    "annotation that is no record": (coco(IMAGES, [GOOD, 7]), r"annotation number 1 of its list has no integer"),  # type: ignore[list-item]
    "near category": (
        coco(IMAGES, [GOOD], [{"id": 1, "name": "persons"}, {"id": 2, "name": "dog"}]),
        r"no category 'person' \(data\.category\); did you mean 'persons'\?",
    ),
    "other categories": (
        coco(IMAGES, [GOOD], [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]),
        r"no category 'person' \(data\.category\); known: cat, dog",
    ),
    "no categories": (coco(IMAGES, [GOOD], []), r"no category 'person' .*nothing is known here"),
    "nobody": (
        coco(IMAGES, [person_record(1, 5, category_id=DOG_ID)]),
        r"category 'person' has no annotations; expected people",
    ),
    "unlisted image": (
        coco(IMAGES, [GOOD, person_record(2, 77)]),
        r"annotation 2 names image 77, which isn't among the file's images",
    ),
    "no height": (
        coco([{"id": 5, "file_name": "a.png", "width": 64}], [GOOD]),
        r"image 5 has height None and width 64, expected pixels above 0",
    ),
    "width of zero": (coco([image_record(5, (48, 0))], [GOOD]), r"image 5 has height 48 and width 0"),
    "height as text": (coco([image_record(5) | {"height": "48"}], [GOOD]), r"image 5 has height '48' and width 64"),
    "no file name": (coco([image_record(5) | {"file_name": None}], [GOOD]), r"image 5 has no file_name"),
    "absolute file name": (
        coco([image_record(5) | {"file_name": "/mnt/a.png"}], [GOOD]),
        r"image 5 has file_name '/mnt/a\.png', expected a path inside the folder .*make it relative",
    ),
    "file name that climbs": (coco([image_record(5) | {"file_name": "x/../../a.png"}], [GOOD]), r"file_name 'x/\.\./\.\./a\.png'"),
    "absolute file name of Windows": (coco([image_record(5) | {"file_name": "C:\\a.png"}], [GOOD]), r"expected a path inside"),
}


@pytest.mark.parametrize("mode", ["error", "drop"])
@pytest.mark.parametrize(("data", "message"), FILE_FAULTS.values(), ids=FILE_FAULTS)
def test_fault_of_the_file_is_refused_whatever_the_mode(
    tmp_path: Path, data: Json, message: str, mode: Literal["error", "drop"]
) -> None:
    path = write_coco(tmp_path / "a.json", data)
    with pytest.raises(AnnotationError, match=rf"a\.json: .*{message}"):
        load_people(path, "person", mode)


# --- people ---


def crowd(annotation_id: int, image_id: int, category_id: int = PERSON_ID) -> Json:
    return person_record(annotation_id, image_id, category_id=category_id, iscrowd=1, segmentation=uncompressed(MASK))


def test_load_people_counts_what_it_drops(tmp_path: Path) -> None:
    images = tuple(image_record(number) for number in (9, 2, 30, 4, 51))
    annotations = (
        person_record(40, 9),
        person_record(8, 9),
        person_record(7, 2),
        crowd(6, 2),
        person_record(5, 30, bbox=[1, 1, 0, 3]),
        person_record(4, 4, category_id=DOG_ID),
        person_record(3, 9, bbox=[1, 1, 0, 3]),
        person_record(2, 51, segmentation=[[1, 2]]),
        person_record(1, 51),
        crowd(50, 51, DOG_ID),
    )
    people = load_people(write_people(tmp_path, *annotations, images=images), "person", "drop")
    assert [item["id"] for item in people.images] == [9, 51]
    assert [item["id"] for item in people.annotations] == [8, 40, 1]
    assert people.category == {"id": PERSON_ID, "name": "person"}
    assert people.counts == {
        "images": 5,
        "images_without_people": 1,
        "images_with_crowd": 1,
        "images_without_usable_people": 1,
        "images_kept": 2,
        "people": 8,
        "people_in_crowd_images": 2,
        "people_no_box": 0,
        "people_zero_area_box": 2,
        "people_box_outside_image": 0,
        "people_bad_segmentation": 1,
        "people_kept": 3,
    }


def test_fault_in_a_crowd_image_is_no_fault(tmp_path: Path) -> None:
    images = (image_record(5), image_record(6))
    bad = person_record(2, 6, bbox=None)
    people = load_people(write_people(tmp_path, GOOD, bad, crowd(3, 6), images=images), "person", "error")
    assert people.counts["people_in_crowd_images"] == 2
    assert people.counts["people_no_box"] == 0


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (
            (GOOD, crowd(2, 5)),
            r"none of the 2 annotations of 'person' is left: 2 are in images with a crowd, 0 can't be used",
        ),
        (
            (GOOD | {"bbox": [1, 1, 0, 1]},),
            r"none of the 1 .* 1 can't be used \(\{'zero_area_box': 1\}\); expected people",
        ),
    ],
    ids=["crowds only", "faults only"],
)
def test_nobody_left_is_refused(tmp_path: Path, annotations: tuple[Json, ...], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        load_people(write_people(tmp_path, *annotations), "person", "drop")


def test_counts_of_a_drawn_data_set_add_up(tmp_path: Path) -> None:
    people = load_people(make_coco(tmp_path, images=7, crowds=2, empties=3), "person", "error")
    counts = people.counts
    assert (counts["images"], counts["images_kept"], counts["images_with_crowd"]) == (12, 7, 2)
    assert counts["images_without_people"] == 3
    assert counts["people_kept"] == counts["people"] - counts["people_in_crowd_images"] == len(people.annotations)
    ids = [item["id"] for item in people.images]
    assert ids == sorted(ids)
    order = [(item["image_id"], item["id"]) for item in people.annotations]
    assert order == sorted(order)


def test_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    path = make_coco(tmp_path, images=5)
    data = json.loads(path.read_text())
    turned = coco(data["images"][::-1], data["annotations"][::-1], data["categories"][::-1])
    assert load_people(path, "person", "error") == load_people(write_coco(tmp_path / "b.json", turned), "person", "error")


def test_another_category_can_be_the_people(tmp_path: Path) -> None:
    people = load_people(make_coco(tmp_path, images=2, empties=3), "dog", "error")
    assert len(people.images) == 3
    assert people.category["id"] == DOG_ID


def test_people_per_image(tmp_path: Path) -> None:
    people = load_people(make_coco(tmp_path, images=5), "person", "error")
    groups = people_per_image(people)
    assert list(groups) == [item["id"] for item in people.images]
    assert sum(map(len, groups.values())) == len(people.annotations)
    for image_id, group in groups.items():
        assert group == [item for item in people.annotations if item["image_id"] == image_id]


# --- files of their own ---


def test_prepared_file_there_and_back(tmp_path: Path) -> None:
    path = make_coco(tmp_path, images=4, crowds=1, empties=1)
    data = json.loads(path.read_text()) | {"info": {"year": 2017}, "licenses": [], "junk": 1}
    people = load_people(write_coco(path, data), "person", "error")
    out = write_coco(tmp_path / "out.json", to_coco(people))
    assert set(json.loads(out.read_text())) == {"info", "licenses", "images", "annotations", "categories"}
    read = load_prepared(out)
    assert (read.images, read.annotations, read.category) == (people.images, people.annotations, people.category)
    again = load_people(out, "person", "error")
    assert (again.images, again.annotations) == (people.images, people.annotations)


def test_prepared_file_is_read_by_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = load_people(make_coco(tmp_path, images=4, rle_share=0.5), "person", "error")
    reference = COCO(str(write_coco(tmp_path / "out.json", to_coco(people))))
    capsys.readouterr()
    assert sorted(reference.getImgIds(catIds=[PERSON_ID])) == [item["id"] for item in people.images]
    for item in people.annotations:
        assert reference.annToMask(item).sum() == pytest.approx(item["area"], rel=0.1)


def test_prepared_file_without_a_category_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"a\.json: no category, expected the one that `dvc repro prepare` writes"):
        load_prepared(write_coco(tmp_path / "a.json", coco([], [], [])))


@pytest.mark.parametrize(
    ("subset", "name"),
    [
        ("full", "instances_val2017_person_only_no_crowd.json"),
        ("500", "instances_val2017_person_only_no_crowd_500.json"),
        ("100", "instances_val2017_person_only_no_crowd_100.json"),
    ],
)
def test_prepared_name(subset: Subset, name: str) -> None:
    assert prepared_name("some/where/instances_val2017.json", subset) == name


# --- subsets ---


def many(count: int) -> People:
    images = [image_record(3 * number + 1) for number in range(count)]
    people = [person_record(10 * number, 3 * number + 1) for number in range(count)]
    return People(images, people, CATEGORIES[1], {"info": {}}, {"people": count})


def ids_of(people: People) -> list[int]:
    return [item["id"] for item in people.images]


@pytest.mark.parametrize("size", [1, 7, 29])
def test_subset_is_seeded_ordered_and_of_its_size(size: int) -> None:
    people = many(30)
    first, again, other = (choose_subset(people, size, seed, ()) for seed in (3, 3, 4))
    assert first == again
    assert len(first.images) == size
    assert ids_of(first) == sorted(set(ids_of(first)))
    assert [item["image_id"] for item in first.annotations] == ids_of(first)
    assert (first.category, first.extra, first.counts) == (people.category, people.extra, people.counts)
    assert ids_of(first) != ids_of(other)


def test_subset_matches_its_pinned_draw() -> None:
    """Numbers of NumPy's PCG64; a change here changes everybody's subsets."""
    assert ids_of(choose_subset(many(12), 4, 0, ())) == [7, 13, 22, 28]


@pytest.mark.parametrize("seed", range(5))
def test_subset_contains_the_fixed_images(seed: int) -> None:
    fixed = (image_record(22)["file_name"], "absent.png", image_record(40)["file_name"])
    chosen = ids_of(choose_subset(many(30), 5, seed, fixed))
    assert {22, 40} <= set(chosen)
    assert len(chosen) == 5
    assert chosen == sorted(chosen)


def test_more_fixed_images_than_places() -> None:
    fixed = tuple(image_record(number)["file_name"] for number in (22, 40, 1))
    assert ids_of(choose_subset(many(30), 2, 0, fixed)) == [1, 22]


@pytest.mark.parametrize("size", [5, 6, 500])
def test_subset_of_few_images_is_all_of_them(size: int) -> None:
    people = many(5)
    assert choose_subset(people, size, 0, ()) == people


def test_every_image_is_drawn_about_as_often() -> None:
    counts = np.zeros(10)
    for seed in range(400):
        counts[[(image_id - 1) // 3 for image_id in ids_of(choose_subset(many(10), 3, seed, ()))]] += 1
    assert counts.min() > 80
    assert counts.max() < 160


# --- params ---


def data_values() -> dict[str, Any]:
    split = {"images": "i", "annotations": "a.json", "subset": "full"}
    values = {"category": "person", "min_box_px": 16, "bad_annotations": "error", "subset_seed": 0}
    return {"train": dict(split), "val": split | {"subset": "100"}, "fixed_images": ["a.jpg"], **values}


def test_data_params_are_read() -> None:
    params = DataParams.parse(data_values(), "data")
    assert params.split("train").subset == "full"
    assert params.split("val").subset == "100"
    assert params.fixed_images == ("a.jpg",)


def _set(values: dict[str, Any], key: str, value: object) -> None:
    values[key] = value


PARAM_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "subset as a number": (
        lambda values: _set(values["val"], "subset", 100),
        r"data\.val\.subset: value is 100; .*'full', '500' or '100'",
    ),
    "min_box_px below 1": (
        lambda values: _set(values, "min_box_px", 0.5),
        r"data\.min_box_px: value is 0\.5; .*equal to 1",
    ),
    "unknown mode": (
        lambda values: _set(values, "bad_annotations", "skip"),
        r"data\.bad_annotations: value is 'skip'; .*'error' or 'drop'",
    ),
    "empty path": (
        lambda values: _set(values["train"], "images", ""),
        r"data\.train\.images: value is ''; .*at least 1",
    ),
    "mistyped": (
        lambda values: _set(values["train"], "anotations", "x"),
        r"data\.train\.anotations: unknown key; did you mean 'annotations'\?",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), PARAM_FAULTS.values(), ids=PARAM_FAULTS)
def test_data_params_refuse(spoil: Callable[[dict[str, Any]], None], message: str) -> None:
    values = data_values()
    spoil(values)
    with pytest.raises(ParamsError, match=message):
        DataParams.parse(values, "data")
