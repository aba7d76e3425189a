"""Tests of what roiseg.coco says of an annotation that can't be used."""

from pathlib import Path

import numpy as np
import pytest
from data_factory import (
    Json,
    compressed,
    ellipse,
    person_record,
    polygon_mask,
    rectangle,
    uncompressed,
    write_people,
)

from roiseg.coco import (
    DROP_REASONS,
    MAX_SHOWN,
    annotation_fault,
    load_people,
    segmentation_fault,
)
from roiseg.errors import AnnotationError

IMAGE_HW = (48, 64)
MASK = polygon_mask(ellipse((30, 24), (10, 16)), IMAGE_HW)
GOOD = person_record(1, 5)


LINE = [1.0, 1.0, 9.0, 9.0]
ANNOTATION_FAULTS = {
    "no box": ({"bbox": None}, "no_box", r"its bbox is None, expected \[x, y, width, height\]"),
    "three numbers": ({"bbox": [1, 2, 3]}, "no_box", r"its bbox is \[1, 2, 3\], expected"),
    "text in the box": ({"bbox": [1, 2, "3", 4]}, "no_box", r"its bbox is \[1, 2, '3', 4\], expected"),
    "no width": ({"bbox": [3, 4, 0, 5]}, "zero_area_box", r"its bbox \[3, 4, 0, 5\] has no area, expected a width"),
    "negative height": ({"bbox": [3, 4, 5, -5]}, "zero_area_box", r"its bbox \[3, 4, 5, -5\] has no area"),
    "not a number": ({"bbox": [3, 4, float("nan"), 5]}, "zero_area_box", r"its bbox \[3, 4, nan, 5\] has no area"),
    "right of the image": (
        {"bbox": [60, 4, 6, 5]},
        "box_outside_image",
        r"its bbox \[60, 4, 6, 5\] leaves the image of 64x48 by 2 pixels",
    ),
    "above the image": ({"bbox": [3, -1.5, 5, 9]}, "box_outside_image", r"leaves the image of 64x48 by 1\.5 pixels"),
    "below the image": ({"bbox": [3, 40, 5, 12]}, "box_outside_image", r"leaves the image of 64x48 by 4 pixels"),
    "in the frame of another image": ({"bbox": [300, 400, 5, 5]}, "box_outside_image", r"by 357 pixels"),
    "no segmentation": ({"segmentation": None}, "bad_segmentation", "has no segmentation, expected polygons or an RLE"),
    "no polygons": ({"segmentation": []}, "bad_segmentation", "has no segmentation, expected polygons or an RLE"),
    "two points": ({"segmentation": [LINE[:4]]}, "bad_segmentation", r"a polygon has 2 points, expected at least 3"),
    "half a point": ({"segmentation": [[*LINE, 3.0, 4.0, 5.0]]}, "bad_segmentation", r"a polygon has 3\.5 points"),
    "one bad of two": ({"segmentation": [rectangle(1, 1, 5, 5), []]}, "bad_segmentation", r"a polygon has 0 points"),
    "no list": ({"segmentation": [5]}, "bad_segmentation", r"a polygon has 0 points"),
    "text in a polygon": (
        {"segmentation": [[*LINE, "a", 2.0]]},
        "bad_segmentation",
        r"a polygon holds something that isn't a number, expected x, y",
    ),
    "pairs": (
        {"segmentation": [[[1, 2], [3, 4], [5, 6]] * 2]},
        "bad_segmentation",
        r"holds something that isn't a number",
    ),
    "infinite point": (
        {"segmentation": [[*LINE, float("inf"), 2.0]]},
        "bad_segmentation",
        r"holds a number that isn't finite",
    ),
    "RLE of another size": (
        {"segmentation": compressed(MASK.T)},
        "bad_segmentation",
        r"its RLE has size \[64, 48\], expected \[48, 64\] and counts",
    ),
    "RLE without counts": ({"segmentation": {"size": [48, 64]}}, "bad_segmentation", r"its RLE has size .*and counts"),
    "RLE list too short": (
        {"segmentation": {"size": [48, 64], "counts": [10, 20]}},
        "bad_segmentation",
        r"its RLE counts cover 30 pixels, expected 3072",
    ),
    "RLE list below zero": (
        {"segmentation": {"size": [48, 64], "counts": [-1, 3073]}},
        "bad_segmentation",
        r"its RLE counts can't be read, expected run lengths of 0 and more",
    ),
    "RLE text empty": (
        {"segmentation": {"size": [48, 64], "counts": ""}},
        "bad_segmentation",
        r"its RLE counts cover 0 pixels, expected 3072",
    ),
    "RLE text of a smaller image": (
        {"segmentation": {"size": [48, 64], "counts": compressed(np.ones((6, 8), dtype=bool))["counts"]}},
        "bad_segmentation",
        r"its RLE counts cover 48 pixels, expected 3072",
    ),
    "RLE text cut off": (
        {"segmentation": {"size": [48, 64], "counts": compressed(MASK)["counts"][:-1]}},
        "bad_segmentation",
        r"its RLE counts (can't be read|cover \d+ pixels)",
    ),
    "RLE text of other letters": (
        {"segmentation": {"size": [48, 64], "counts": "!\x7f"}},
        "bad_segmentation",
        r"its RLE counts can't be read",
    ),
}


@pytest.mark.parametrize(("changes", "reason", "message"), ANNOTATION_FAULTS.values(), ids=ANNOTATION_FAULTS)
def test_annotation_fault_is_named_or_counted(tmp_path: Path, changes: Json, reason: str, message: str) -> None:
    bad = person_record(2, 5, **changes)
    path = write_people(tmp_path, GOOD, bad)
    header = r"a\.json: 1 person annotations can't be used:\n  annotation 2 of image 5: "
    expected = rf"(?s){header}.*{message}.*bad_annotations: drop"
    with pytest.raises(AnnotationError, match=expected):
        load_people(path, "person", "error")
    people = load_people(path, "person", "drop")
    assert [item["id"] for item in people.annotations] == [1]
    assert {name: people.counts[f"people_{name}"] for name in DROP_REASONS} == {name: int(name == reason) for name in DROP_REASONS}
    assert (people.counts["people"], people.counts["people_kept"]) == (2, 1)


GOOD_SEGMENTATIONS = {
    "polygon": [ellipse((30, 24), (10, 16))],
    "triangle": [[1, 2, 3, 4, 5, 0]],
    "two polygons": [rectangle(1, 1, 5, 5), rectangle(20, 20, 5, 9)],
    "polygon that leaves the image": [rectangle(-5, -5, 90, 90)],
    "compressed RLE": compressed(MASK),
    "uncompressed RLE": uncompressed(MASK),
}


@pytest.mark.parametrize("value", GOOD_SEGMENTATIONS.values(), ids=GOOD_SEGMENTATIONS)
def test_good_segmentation_has_no_fault(value: object) -> None:
    assert segmentation_fault(value, IMAGE_HW) is None


@pytest.mark.parametrize("box", [[0, 0, 64, 48], [-1.0, 0, 20, 20], [50.5, 30, 14.4, 18.9], [3, 4, 0.5, 0.5]], ids=str)
def test_box_may_leave_the_image_by_a_pixel(box: list[float]) -> None:
    assert annotation_fault(GOOD | {"bbox": box}, IMAGE_HW) is None


def test_many_faults_are_all_counted_and_some_are_shown(tmp_path: Path) -> None:
    bad = [person_record(number, 5, bbox=[1, 1, 0, number]) for number in range(2, 14)]
    with pytest.raises(AnnotationError, match=r"12 person annotations can't be used") as caught:
        load_people(write_people(tmp_path, GOOD, *bad), "person", "error")
    assert str(caught.value).count("has no area") == MAX_SHOWN
