"""Tests of roiseg.objects: which boxes become rows, and what is asked for later."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from roiseg.errors import AnnotationError
from roiseg.files import write_parquet
from roiseg.objects import Objects, build_objects

IMAGES = pd.DataFrame({"row": [0, 1, 2], "image_id": [7, 8, 9], "height": [100, 100, 100], "width": [200, 200, 200]})


def annotation(number: int, box: object, image_id: object = 7, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"id": number, "image_id": image_id, "category_id": 3, "bbox": box, **more}


def test_boxes_of_all_categories_in_the_images_of_the_index() -> None:
    data = {
        "annotations": [
            annotation(5, [10, 20, 30, 40], image_id=9),
            annotation(4, [190.5, 50, 10, 50.5], category_id=80),
            annotation(1, [0, 0, 5, 5], image_id=6),
            annotation(2, [0, 0, 50, 50], iscrowd=1),
            annotation(3, [1, 2, 3, 4]),
        ]
    }
    table, counts = build_objects(data, IMAGES)
    assert table["annotation_id"].tolist() == [3, 4, 5]
    assert table["row"].tolist() == [0, 0, 2]
    assert table["category_id"].tolist() == [3, 80, 3]
    assert table[["x0", "y0", "x1", "y1"]].to_numpy().tolist() == [[1, 2, 4, 6], [190.5, 50, 200, 100], [10, 20, 40, 60]]
    assert counts == {"objects_kept": 3, "objects_crowd": 1, "objects_bad_box": 0}


@pytest.mark.parametrize(
    "item",
    [
        annotation(1, None),
        annotation(1, [1, 2, 3]),
        annotation(1, [1, 2, "3", 4]),
        annotation(1, [1, 2, 0, 4]),
        annotation(1, [1, 2, float("nan"), 4]),
        annotation(1, [1, 2, float("inf"), 4]),
        annotation(1, [1, 2, 10**400, 4]),
        annotation(1, [150, 2, 60, 4]),
        annotation(1, [-3, 2, 10, 4]),
        annotation(2**63, [1, 2, 3, 4]),
        annotation(1, [1, 2, 3, 4], category_id="cat"),
    ],
)
def test_boxes_that_cannot_be_used_are_counted(item: dict[str, Any]) -> None:
    table, counts = build_objects({"annotations": [item, annotation(9, [1, 2, 3, 4])]}, IMAGES)
    assert table["annotation_id"].tolist() == [9]
    assert (counts["objects_kept"], counts["objects_bad_box"]) == (1, 1)


@pytest.mark.parametrize("image_id", [None, [7], "7", 7.5])
def test_an_image_that_is_not_in_the_index_is_left_aside(image_id: object) -> None:
    table, counts = build_objects({"annotations": [annotation(1, [1, 2, 3, 4], image_id=image_id)]}, IMAGES)
    assert len(table) == counts["objects_kept"] == counts["objects_bad_box"] == 0


def test_small_boxes_and_images_without_any(tmp_path: Path) -> None:
    data = {"annotations": [annotation(1, [0, 0, 8, 8]), annotation(2, [0, 0, 7.9, 50]), annotation(3, [5, 5, 9, 9], image_id=9)]}
    path = tmp_path / "val.parquet"
    write_parquet(path, build_objects(data, IMAGES)[0])
    objects = Objects(path, 8)
    assert (len(objects), objects.rows.tolist()) == (2, [0, 2])
    assert objects.of(0).annotation_ids.tolist() == [1]
    assert objects.of(2).boxes_image.tolist() == [[5, 5, 14, 14]]
    assert [len(objects.of(row).annotation_ids) for row in (1, 3)] == [0, 0]
    with pytest.raises(
        AnnotationError, match=r"none of its 3 boxes is at least 60 pixels wide and high \(snapper.data.min_box_px\)"
    ):
        Objects(path, 60)
    with pytest.raises(AnnotationError, match="no table of objects there; run `dvc repro prepare`"):
        Objects(tmp_path / "train.parquet", 8)


def test_a_table_without_a_box(tmp_path: Path) -> None:
    path = tmp_path / "val.parquet"
    write_parquet(path, build_objects({"annotations": []}, IMAGES)[0])
    with pytest.raises(AnnotationError, match="none of its 0 boxes"):
        Objects(path, 8)
