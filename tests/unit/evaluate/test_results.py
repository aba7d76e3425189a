"""Tests of roiseg.evaluate.results: any COCO tool reads what is written, whole or not at all, and faults are told apart."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from data_factory import PERSON_ID
from pycocotools.coco import COCO
from results_factory import Json, drawn, random_people, random_results, write_pair

from roiseg.coco import People
from roiseg.errors import ResultsError
from roiseg.evaluate import results as module
from roiseg.evaluate.coco_eval import MaskAp
from roiseg.evaluate.coco_truth import Truth
from roiseg.evaluate.results import check_results, mask_result, new_results, read_results


@pytest.fixture
def people() -> People:
    return random_people(np.random.default_rng(0), [(60, 90), (80, 40), (50, 50)])


def write(path: Path, results: list[Json]) -> Path:
    with new_results(path) as add:
        for result in results:
            add(result)
    return path


# --- writing ---


def test_pycocotools_reads_masks_and_scores_back(people: People, tmp_path: Path) -> None:
    masks = [drawn(people, item) for item in people.annotations]
    results = [
        mask_result(item["image_id"], PERSON_ID, 1 / (3 + number), mask, item["id"])
        for number, (item, mask) in enumerate(zip(people.annotations, masks, strict=True))
    ]
    written = write(tmp_path / "deep" / "results.json", results)
    truth = COCO(str(write_pair(tmp_path, people, [])[0]))
    found = truth.loadRes(str(written))
    assert len(found.anns) == len(masks) > 3
    for number, record in found.anns.items():
        np.testing.assert_array_equal(found.annToMask(record).astype(bool), masks[number - 1])
        assert record["score"] == round(1 / (2 + number), 6)
        assert record["annotation_id"] == people.annotations[number - 1]["id"]
        assert record["area"] == masks[number - 1].sum(), "the mask's, not its box's"


@pytest.mark.parametrize("count", [0, 1, 5])
def test_written_is_read(people: People, tmp_path: Path, count: int) -> None:
    results = random_results(np.random.default_rng(1), people)[:count]
    path = write(tmp_path / "results.json", results)
    assert json.loads(path.read_text()) == list(read_results(path)) == results
    assert path.read_bytes() == write(tmp_path / "again.json", results).read_bytes()
    assert path.read_text().endswith("]\n")


def test_a_block_that_fails_leaves_the_old_file(people: People, tmp_path: Path) -> None:
    results = random_results(np.random.default_rng(1), people)
    path = write(tmp_path / "results.json", results[:1])

    def fail() -> None:
        with new_results(path) as add:
            add(results[1])
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert list(read_results(path)) == results[:1]
    assert [item.name for item in tmp_path.iterdir()] == ["results.json"]


def test_a_score_that_isnt_a_number_is_not_written(people: People, tmp_path: Path) -> None:
    result = {**random_results(np.random.default_rng(1), people)[0], "score": float("nan")}
    with pytest.raises(ValueError, match="Out of range float values"):
        write(tmp_path / "results.json", [result])
    assert not list(tmp_path.iterdir())


# --- reading ---


@pytest.mark.parametrize("block", [1, 7, 100])
@pytest.mark.parametrize("indent", [None, 1])
def test_results_of_any_spelling_come_in_any_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, indent: int | None
) -> None:
    results = [{"image_id": 5, "score": 0.25, "name": "ß ] , {", "bbox": [1, 2.5, 3, 4]}, {}, {"image_id": 6}]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results, indent=indent, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(module, "BLOCK", block)
    assert list(read_results(path)) == results
    path.write_text(" [ ] ")
    assert list(read_results(path)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with '', expected '[', a list of COCO results"),
        ('{"images": []}', "begins with '{', expected '[', a list of COCO results (annotations begin with '{'); give the file"),
        ('[{"image_id": 5}', "not valid JSON behind result 1 (expected ',' or ']'); is the file whole? write it again"),
        ('[{"image_id": 5},', "not valid JSON behind result 1 ("),
        ('[{"image_id": 5} {"image_id": 6}]', "not valid JSON behind result 1 (expected ',' or ']')"),
        ('[{"image_id": 5, "score": }]', "not valid JSON behind result 0 (Expecting value"),
        ("[,]", "not valid JSON behind result 0 ("),
        ("[[1, 2]]", "entry 0 is [1, 2], expected a record with image_id and score; write COCO results"),
    ],
)
def test_files_that_hold_no_results(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=re.escape(f"{path}: {message}")):
        list(read_results(path))


def test_broken_files_are_given_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not read to the end, which may be far."""
    monkeypatch.setattr(module, "BLOCK", 10)
    monkeypatch.setattr(module, "LONGEST", 50)
    path = tmp_path / "results.json"
    path.write_text('[{"a" ' + '{"b": 1}, ' * 100)
    with pytest.raises(ResultsError, match="not valid JSON behind result 0"):
        list(read_results(path))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"none\.json: no such results file; write one, or run `dvc pull"):
        list(read_results(tmp_path / "none.json"))


# --- checking ---


def test_good_results_are_counted(people: People) -> None:
    results = random_results(np.random.default_rng(1), people)
    assert check_results(Truth(people), iter(results)) == len(results)


def test_all_faults_are_told_at_once(people: People) -> None:
    good = random_results(np.random.default_rng(1), people)[0]
    image_id, size = good["image_id"], good["segmentation"]["size"]
    results = [
        good,
        {**good, "image_id": 998},
        {**good, "image_id": 999},
        {**good, "score": float("inf")},
        {**good, "category_id": 2},
        {**good, "segmentation": {"size": [1, 2], "counts": "2"}},
        {**good, "segmentation": {"size": size, "counts": "2"}},
    ]
    with pytest.raises(ResultsError) as caught:
        check_results(Truth(people), results, [1, 2])
    lines = str(caught.value).splitlines()
    assert lines[0] == "results can't be scored:"
    assert "2 of 7 results are for unknown images; the first: image 998 isn't among the 3 annotated ones; give the" in lines[1]
    assert f"1 of 7 results have no score; the first: image {image_id}: score inf, expected a finite number" in lines[2]
    assert f"1 of 7 results have another category; the first: image {image_id}: category 2, expected 1" in lines[3]
    assert (
        f"1 of 7 results have masks of another size than their image; the first: image {image_id}: a mask of size [1, 2]"
        in lines[4]
    )
    assert f"1 of 7 results can't be decoded; the first: image {image_id}: its RLE counts cover 2 pixels, expected" in lines[5]
    assert "2 of 2 annotated people with an ROI have no result, such as annotation 1, 2; expected one each, so run `dvc" in lines[6]


def test_everybody_asked_for_has_a_result(people: People) -> None:
    results = [mask_result(item["image_id"], PERSON_ID, 0.5, drawn(people, item), item["id"]) for item in people.annotations]
    wanted = Truth(people).annotation_ids
    assert check_results(Truth(people), results, wanted) == len(wanted)
    with pytest.raises(
        ResultsError, match=rf"1 of {len(wanted)} annotated people with an ROI have no result, such as annotation {wanted[1]};"
    ):
        check_results(Truth(people), [item for item in results if item["annotation_id"] != wanted[1]], wanted)


def test_what_is_checked_can_be_scored(people: People, tmp_path: Path) -> None:
    results = random_results(np.random.default_rng(2), people)
    path = write(tmp_path / "results.json", results)
    truth = Truth(people)
    found = MaskAp(truth)
    found.add(truth.image_ids.tolist(), list(read_results(path)))
    direct = MaskAp(truth)
    direct.add(truth.image_ids.tolist(), results)
    assert found.figures("") == direct.figures("")
