"""Tests of roiseg.evaluate.detections: both sources give the same boxes, and each fault is told with its file and remedy."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from data_factory import CATEGORIES, PERSON_ID, image_record, person_record, rectangle
from results_factory import Json

from roiseg.coco import People
from roiseg.errors import ResultsError
from roiseg.evaluate.detections import Detections, read_detections_of, results_detections, stored_detections
from roiseg.files import write_parquet
from roiseg.geometry import Floats, ResizeMode
from roiseg.index import Index, build_tables

NETWORK_HW = (64, 96)
SIZES = {4: (40, 80), 9: (100, 50), 12: (48, 64)}


def index_in(folder: Path, mode: ResizeMode = "stretch") -> Index:
    """Three images, one person each."""
    images = [image_record(image_id, hw) for image_id, hw in SIZES.items()]
    people = [person_record(10 + image_id, image_id, rectangle(5, 5, 20, 30)) for image_id in SIZES]
    tables = build_tables(People(images, people, CATEGORIES[1]), NETWORK_HW, mode, 8.0)
    for name, table in zip(("images", "people"), tables, strict=True):
        write_parquet(folder / f"{name}.parquet", table)
    return Index(folder, NETWORK_HW, mode)


@pytest.fixture(params=["stretch", "letterbox"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Index:
    return index_in(tmp_path, request.param)


def detection(image_id: object, bbox: object = (5.0, 6.0, 20.0, 30.0), score: object = 0.5, category_id: int = PERSON_ID) -> Json:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


def write_results(folder: Path, *results: object) -> Path:
    path = folder / "detections.json"
    path.write_text(json.dumps(results))
    return path


def write_stored(folder: Path, index: Index, rows: list[tuple[int, Floats, float]]) -> Path:
    """Rows of (row, xyxy in the image, score) as extract writes them."""
    table = pd.DataFrame(
        [
            (row, index.image_ids[row], *index.resize(row).boxes_to_unit(np.array([box], dtype=np.float64))[0], score)
            for row, box, score in rows
        ],
        columns=["row", "image_id", "x0", "y0", "x1", "y1", "score"],
    ).astype({"row": np.int64, "image_id": np.int64})
    write_parquet(folder / "detections.parquet", table)
    return folder / "detections.parquet"


def in_image(index: Index, found: Detections, row: int) -> Floats:
    return index.resize(row).boxes_to_image(found.of(row)[0])


# --- what is read ---


def test_both_sources_give_the_same_boxes(index: Index, tmp_path: Path) -> None:
    boxes = [(0, (1.0, 2.0, 30.0, 39.0), 0.25), (0, (0.0, 0.0, 80.0, 40.0), 0.75), (2, (3.5, 4.5, 10.0, 20.0), 0.5)]
    stored = stored_detections(write_stored(tmp_path, index, [(row, np.array(box), score) for row, box, score in boxes]), index)
    ids = index.image_ids.tolist()
    results = [
        detection(ids[row], [box[0], box[1], box[2] - box[0], box[3] - box[1]], score) for row, box, score in reversed(boxes)
    ]
    found = results_detections(write_results(tmp_path, *results), index, PERSON_ID)
    for one in (stored, found):
        assert len(one) == one.counts["boxes"] == 3
        assert one.rows.tolist() == [0, 2]
        assert one.of(0)[1].tolist() == [0.75, 0.25], "best first"
        np.testing.assert_allclose(in_image(index, one, 0), [boxes[1][1], boxes[0][1]], atol=1e-9)
        np.testing.assert_allclose(in_image(index, one, 2), [boxes[2][1]], atol=1e-9)
        assert one.of(1)[0].shape == (0, 4)


def test_the_param_chooses_the_source(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    stored = write_stored(tmp_path, index, [(0, np.array([1.0, 2.0, 30.0, 39.0]), 0.25)])
    results = write_results(tmp_path, detection(12), detection(9))
    assert read_detections_of(None, stored, index, PERSON_ID).rows.tolist() == [0]
    assert read_detections_of(str(results), stored, index, PERSON_ID).rows.tolist() == [1, 2]


def test_boxes_are_clipped_to_the_image(index: Index, tmp_path: Path) -> None:
    found = results_detections(write_results(tmp_path, detection(4, [-10, 20, 50, 90])), index, PERSON_ID)
    np.testing.assert_allclose(in_image(index, found, 0), [[0, 20, 40, 40]], atol=1e-9)


def test_small_boxes_and_other_categories_are_counted(index: Index, tmp_path: Path) -> None:
    results = [
        detection(4, [3, 3, 1, 1]),
        detection(4, [3, 3, 0.9, 20]),
        detection(4, [3, 3, 20, 0.9]),
        detection(4, [3, 3, 0, 0]),
        detection(4, [3, 3, -5, 5]),
        detection(4, [79.5, 3, 20, 20]),
        detection(4, [200, 3, 20, 20]),
        detection(999, "no box", None, category_id=18),
    ]
    found = results_detections(write_results(tmp_path, *results), index, PERSON_ID)
    assert found.counts == {"boxes": 1, "boxes_too_small": 6, "boxes_beyond_100": 0, "boxes_of_other_categories": 1}
    np.testing.assert_allclose(in_image(index, found, 0), [[3, 3, 4, 4]], atol=1e-9)


def test_a_hundred_best_of_each_image(index: Index, tmp_path: Path) -> None:
    scores = np.random.default_rng(0).permutation(250) / 250
    results = [detection(4 if number % 2 else 9, score=float(score)) for number, score in enumerate(scores)]
    found = results_detections(write_results(tmp_path, *results), index, PERSON_ID)
    assert (len(found), found.counts["boxes_beyond_100"]) == (200, 50)
    for row, odd in ((0, 1), (1, 0)):
        expected = sorted((float(score) for number, score in enumerate(scores) if number % 2 == odd), reverse=True)[:100]
        assert found.of(row)[1].tolist() == expected


@pytest.mark.parametrize("source", ["results", "stored"])
def test_no_boxes(tmp_path: Path, source: str) -> None:
    index = index_in(tmp_path)
    stored = write_stored(tmp_path, index, [])
    found = stored_detections(stored, index) if source == "stored" else results_detections(write_results(tmp_path), index, 1)
    assert len(found) == 0
    assert found.rows.tolist() == []
    assert found.of(2)[0].shape == (0, 4)


# --- refusals ---


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (detection(4, [1, 2, 3]), "result 1, image 4: its bbox is [1, 2, 3], expected 4 finite numbers: left, top, width, height"),
        (detection(4, None), "result 1, image 4: its bbox is None, expected 4 finite numbers"),
        (detection(4, [1, 2, float("nan"), 4]), "result 1, image 4: its bbox is [1, 2, nan, 4], expected 4 finite numbers"),
        (detection(4, [1, 2, "3", 4]), "result 1, image 4: its bbox is [1, 2, '3', 4], expected 4 finite numbers"),
        (detection(4, score=float("nan")), "result 1, image 4: its score is nan, expected a finite number; write the detector's"),
        (detection(4, score=None), "result 1, image 4: its score is None, expected a finite number"),
        (detection(5), "1 results are for 1 images that aren't in the index, such as image 5; give results for the annotations"),
        (detection("4"), "1 results are for 1 images that aren't in the index, such as image '4'"),
        ([4], "entry 1 is [4], expected a record with image_id and score"),
    ],
)
def test_results_that_cant_be_used(tmp_path: Path, result: object, message: str) -> None:
    path = write_results(tmp_path, detection(9), result)
    with pytest.raises(ResultsError, match=re.escape(f"{path}: {message}")):
        results_detections(path, index_in(tmp_path), PERSON_ID)


def test_unknown_images_are_counted(tmp_path: Path) -> None:
    path = write_results(tmp_path, detection(6), detection(5), detection(6), detection(4))
    with pytest.raises(ResultsError, match="3 results are for 2 images that aren't in the index, such as image 6;"):
        results_detections(path, index_in(tmp_path), PERSON_ID)


def test_only_other_categories(tmp_path: Path) -> None:
    path = write_results(tmp_path, detection(4, category_id=0), detection(9, category_id=0))
    with pytest.raises(
        ResultsError, match="all 2 results are of other categories than 1, that of the annotated people; write the category_id"
    ):
        results_detections(path, index_in(tmp_path), PERSON_ID)


def test_no_files(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    with pytest.raises(ResultsError, match=r"none\.json: no such results file; write one, or run `dvc pull"):
        read_detections_of(str(tmp_path / "none.json"), tmp_path / "none.parquet", index, PERSON_ID)
    with pytest.raises(ResultsError, match=r"none\.parquet: no detections there; run `dvc repro extract`, or `dvc pull"):
        read_detections_of(None, tmp_path / "none.parquet", index, PERSON_ID)


BOX = np.array([1.0, 2.0, 30.0, 39.0])


def test_stored_boxes_of_other_images(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    path = write_stored(tmp_path, index, [(0, BOX, 0.25), (1, BOX, 0.5), (2, BOX, 0.5)])
    for column, value, row in (("image_id", 77, 1), ("row", 3, 3), ("row", -1, -1)):
        table = pd.read_parquet(path)
        table.loc[1, column] = value
        write_parquet(tmp_path / "other.parquet", table)
        image_id = 77 if column == "image_id" else 9
        with pytest.raises(
            ResultsError,
            match=f"1 of 3 boxes are of other images than the index, such as image {image_id} in row {row}; run `dvc",
        ):
            stored_detections(tmp_path / "other.parquet", index)


def test_stored_boxes_that_cant_be_used(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    path = write_stored(tmp_path, index, [(0, BOX, 0.25), (1, BOX, float("nan"))])
    with pytest.raises(
        ResultsError, match=r"1 of 2 boxes hold a number that isn't finite, such as one of image 9; run `dvc repro extract`"
    ):
        stored_detections(path, index)
    (tmp_path / "torn.parquet").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ResultsError, match=r"torn\.parquet: can't be read as Parquet \(.*\); run `dvc repro extract`"):
        stored_detections(tmp_path / "torn.parquet", index)
    write_parquet(path, pd.read_parquet(path).drop(columns="score"))
    with pytest.raises(
        ResultsError, match=r"has no column 'score', expected row, image_id, x0, y0, x1, y1, score; run `dvc repro extract`"
    ):
        stored_detections(path, index)
