"""Tests of roiseg.evaluate.coco_eval: chunk by chunk it says what one COCOeval over the files says, and resampled what it would."""

import copy
import csv
import io
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from data_factory import CATEGORIES, PERSON_ID, ellipse, image_record, make_coco, person_record
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from results_factory import Json, drawn, random_people, random_results, reference, write_pair

from roiseg.coco import People, load_people
from roiseg.errors import ResultsError
from roiseg.evaluate.coco_eval import CURVES, MaskAp
from roiseg.evaluate.coco_truth import Truth
from roiseg.evaluate.precision_recall import IOUS
from roiseg.evaluate.results import mask_result

SIZES = [(150, 240), (40, 64), (120, 90), (60, 60), (200, 130), (48, 96)]


def added(people: People, results: list[Json], chunk: int = 100, step: int = 1) -> MaskAp:
    """Results brought in chunks of images, in row order or (`step` -1) from the end."""
    found = MaskAp(Truth(people))
    ids = [int(item["id"]) for item in people.images][::step]
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        found.add(part, [item for item in results if item["image_id"] in part])
    return found


def perfect(people: People, score: float = 0.9) -> list[Json]:
    return [mask_result(item["image_id"], PERSON_ID, score, drawn(people, item)) for item in people.annotations]


def two_people() -> People:
    """One image, one small and one large person."""
    small, large = ellipse((20, 20), (5, 8)), ellipse((140, 100), (60, 70))
    return People([image_record(5, (200, 220))], [person_record(1, 5, small), person_record(2, 5, large)], CATEGORIES[1])


# --- against pycocotools ---


@pytest.mark.parametrize("seed", range(8))
def test_chunks_equal_one_coco_eval_over_the_files(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    people = random_people(rng, SIZES)
    results = random_results(rng, people, crowded=120 if seed == 0 else 0)
    expected = reference(*write_pair(tmp_path, people, results))
    assert {"ap", "ar_10", "ap_medium"} <= set(expected)
    for chunk, step in ((100, 1), (1, 1), (2, -1)):
        assert added(people, results, chunk, step).figures("") == expected


def test_more_than_a_hundred_results_are_cut_as_pycocotools_cuts_them(tmp_path: Path) -> None:
    people = two_people()
    missed = np.zeros((200, 220), dtype=bool)
    results = [mask_result(5, PERSON_ID, 0.5, missed) for _ in range(100)] + perfect(people, 0.4)
    assert added(people, results).figures("")["ar"] == 0
    results += [mask_result(5, PERSON_ID, 0.6, drawn(people, people.annotations[1]))]
    found = added(people, results).figures("")
    assert found == reference(*write_pair(tmp_path, people, results))
    assert found["ar"] == 0.5


def test_an_annotation_of_id_0_can_be_found() -> None:
    """pycocotools takes the match for none; numbers of annotations mean nothing here."""
    people = two_people()
    people.annotations[0]["id"] = 0
    assert added(people, perfect(people)).ap == pytest.approx(1, abs=1e-12)


def test_outlines_of_every_form(tmp_path: Path) -> None:
    people = load_people(make_coco(tmp_path, 4, seed=6, people=(1, 4), rle_share=0.5), "person", "error")
    assert any(isinstance(item["segmentation"], dict) for item in people.annotations)
    truth = COCO()
    truth.dataset = {"info": {}, "images": people.images, "annotations": people.annotations, "categories": [people.category]}
    truth.createIndex()
    results = [mask_result(item["image_id"], PERSON_ID, 1.0, truth.annToMask(item)) for item in people.annotations]
    found = added(people, results).figures("oracle_box_")
    assert [found[f"oracle_box_{name}"] for name in ("ap", "ar", "ap_small")] == pytest.approx([1, 1, 1], abs=1e-12)


# --- figures ---


def test_perfect_masks_score_1_and_sizes_that_nobody_has_are_left_out() -> None:
    people = two_people()
    found = added(people, perfect(people)).figures("oracle_box_")
    assert found.pop("oracle_box_ar_1") == 0.5, "two people and one result"
    names = ("ap", "ap50", "ap75", "ap_small", "ap_large", "ar_10", "ar", "ar_small", "ar_large")
    assert found == pytest.approx({f"oracle_box_{name}": 1 for name in names}, abs=1e-12)


def test_one_of_two_people() -> None:
    """Recall 0.5 at precision 1: 51 of 101 recalls are reached."""
    people = two_people()
    found = added(people, perfect(people)[:1]).figures("")
    assert found["ap"] == pytest.approx(51 / 101)
    assert (found["ap_small"], found["ap_large"], found["ar"]) == pytest.approx((1, 0, 0.5), abs=1e-12)


def test_no_results_are_zeros_where_somebody_is() -> None:
    people = two_people()
    for found in (MaskAp(Truth(people)), added(people, [])):
        figures = found.figures("detector_box_")
        assert set(figures.values()) == {0}
        assert set(figures) == {
            f"detector_box_{name}"
            for name in ("ap", "ap50", "ap75", "ap_small", "ap_large", "ar_1", "ar_10", "ar", "ar_small", "ar_large")
        }


def test_nobody_to_find() -> None:
    people = People([image_record(5)], [], CATEGORIES[1])
    found = added(people, [mask_result(5, PERSON_ID, 0.5, np.ones((48, 64), dtype=bool))])
    assert found.figures("") == {}
    assert found.curves() == []
    assert found.ap is None
    assert found.interval(0, 10) is None


def test_an_image_that_is_never_added_is_missed() -> None:
    rng = np.random.default_rng(1)
    people = random_people(rng, SIZES)
    results = random_results(rng, people)
    kept = [item for item in results if item["image_id"] == people.images[0]["id"]]
    only = MaskAp(Truth(people))
    only.add([people.images[0]["id"]], kept)
    assert only.figures("") == added(people, kept).figures("")


def test_figures_can_be_asked_for_between_chunks() -> None:
    rng = np.random.default_rng(2)
    people = random_people(rng, SIZES)
    results = random_results(rng, people)
    asked = MaskAp(Truth(people))
    for image in people.images:
        asked.add([image["id"]], [item for item in results if item["image_id"] == image["id"]])
        asked.figures("")
    assert asked.figures("") == added(people, results).figures("")


@pytest.mark.parametrize(
    ("areas", "left_out"), [(("all",), ("_small", "_medium", "_large")), (("large", "all"), ("_small", "_medium"))]
)
def test_areas_that_arent_wanted_are_left_out(areas: tuple[str, ...], left_out: tuple[str, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    people = random_people(rng, SIZES)
    results = random_results(rng, people)
    found = MaskAp(Truth(people), areas=areas)
    found.add([item["id"] for item in people.images], results)
    expected = reference(*write_pair(tmp_path, people, results))
    assert found.figures("") == {name: value for name, value in expected.items() if not name.endswith(left_out)}
    assert found.interval(0, 50) == added(people, results).interval(0, 50)


def test_what_stays_of_an_image_is_small() -> None:
    """No object for each image: those would take three times the room of what is known of their results."""
    count, together = 256, 64
    outline = ellipse((10, 10), (5, 8))
    people = People(
        [image_record(number, (20, 20)) for number in range(count)],
        [person_record(number, number, outline) for number in range(count)],
        CATEGORIES[1],
    )
    results, found = perfect(people), MaskAp(Truth(people))
    found.add(range(together), results[:together])
    tracemalloc.start()
    try:
        for start in range(together, count, together):
            found.add(range(start, start + together), results[start : start + together])
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held / (count - together) < 400
    assert found.ap == pytest.approx(1)


def test_inputs_stay_as_they_were_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    people = two_people()
    results = perfect(people)
    kept = copy.deepcopy((people, results))
    added(people, results).figures("")
    assert (people, results) == kept
    assert capsys.readouterr().out == ""


# --- curves ---


def test_curves_are_what_pycocotools_has(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    people = random_people(rng, SIZES)
    results = random_results(rng, people)
    rows = added(people, results, 2).curves()
    truth = COCO(str(write_pair(tmp_path, people, results)[0]))
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, 2]
    assert IOUS[CURVES["IoU 0.5"]].tolist() == [0.5]
    assert IOUS[CURVES["IoU 0.75"]] == pytest.approx([0.75])
    for name, expected in (("IoU 0.5", precision[0]), ("IoU 0.75", precision[5]), ("mean of IoUs", precision.mean(axis=0))):
        part = [row for row in rows if row["curve"] == name]
        assert [row["recall"] for row in part] == [round(step / 100, 2) for step in range(101)]
        assert [row["precision"] for row in part] == pytest.approx(expected.tolist(), abs=1e-6)
    table = io.StringIO()
    csv.DictWriter(table, ["curve", "recall", "precision"]).writerows(rows)
    assert len(table.getvalue().splitlines()) == 303


# --- interval ---


def test_interval_holds_the_ap_and_follows_its_seed() -> None:
    rng = np.random.default_rng(4)
    people = random_people(rng, SIZES * 4)
    found = added(people, random_results(rng, people))
    first = found.interval(0, 200)
    assert first is not None
    assert found.ap is not None
    assert 0 <= first[0] < found.ap < first[1] <= 1
    assert found.interval(0, 200) == first
    assert found.interval(1, 200) != first


def test_interval_of_one_image_is_its_ap() -> None:
    people = two_people()
    found = added(people, perfect(people)[:1])
    assert found.interval(0, 5) == (found.ap, found.ap)


def test_an_image_drawn_twice_counts_as_two_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draws 0 0 2 2 2 1, against the same images copied under ids of their own."""
    rng = np.random.default_rng(5)
    people = random_people(rng, SIZES)
    results = [dict(item, score=round(float(rng.random()), 6)) for item in random_results(rng, people)]
    draws = np.array([0, 0, 2, 2, 2, 1])

    class Fixed:
        def integers(self, _: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
            return draws[:size]

    images, annotations, copies = [], [], []
    for number, place in enumerate(draws.tolist()):
        image = people.images[place]
        images.append({**image, "id": number})
        annotations += [{**item, "image_id": number} for item in people.annotations if item["image_id"] == image["id"]]
        copies += [{**item, "image_id": number} for item in results if item["image_id"] == image["id"]]
    annotations = [{**item, "id": number} for number, item in enumerate(annotations)]
    expected = added(People(images, annotations, people.category), copies).ap
    found = added(people, results)
    monkeypatch.setattr(np.random, "default_rng", lambda _seed: Fixed())
    assert found.interval(0, 1) == pytest.approx((expected, expected), abs=1e-12)
    assert expected != found.ap


# --- refusals ---


def result_5(**changes: object) -> Json:
    return {**mask_result(5, PERSON_ID, 0.5, np.ones((200, 220), dtype=bool)), **changes}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (result_5(image_id=6), "image 6 isn't among the 1 annotated ones; give the annotations that the results were made for"),
        (result_5(image_id=[5]), "image [5] isn't among the 1"),
        (result_5(category_id=18), "image 5: category 18, expected 1, that of the annotated people; write that id"),
        (result_5(score=float("nan")), "image 5: score nan, expected a finite number; look at the head's training curves"),
        (result_5(score=None), "image 5: score None, expected a finite number"),
        (
            mask_result(5, PERSON_ID, 0.5, np.ones((220, 200), dtype=bool)),
            "image 5: a mask of size [220, 200], expected an RLE of [200, 220], the image's height and width",
        ),
        (result_5(segmentation=[[0, 0, 5, 0, 5, 5]]), "image 5: a mask of size None, expected an RLE of [200, 220]"),
    ],
)
def test_results_that_cant_be_scored_are_refused(result: Json, message: str) -> None:
    with pytest.raises(ResultsError, match=re.escape(message)):
        MaskAp(Truth(two_people())).add([5], [result])


def test_results_come_once_and_with_their_image() -> None:
    people = random_people(np.random.default_rng(6), SIZES)
    first, second = people.images[0], people.images[1]
    stray = mask_result(second["id"], PERSON_ID, 0.5, np.ones((second["height"], second["width"]), dtype=bool))
    found = MaskAp(Truth(people))
    with pytest.raises(
        ResultsError, match=rf"image {second['id']}: a result for it came with those of other images; add it with its own"
    ):
        found.add([first["id"]], [stray])
    found.add([first["id"]], [])
    with pytest.raises(
        ResultsError, match=rf"image {first['id']}: its results were added before; add all results of an image at once"
    ):
        found.add([first["id"]], [])
