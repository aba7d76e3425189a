"""Tests of roiseg.evaluate.scored: results of any program, by the figures of `evaluate`, and what can't be scored."""

import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from store_factory import Project, shared_project

from roiseg.errors import ResultsError
from roiseg.evaluate.coco_truth import Json, Truth
from roiseg.evaluate.scored import Scored, score_results
from roiseg.masks import compressed_rle


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def some_results(project: Project, *, oracle: bool) -> list[Json]:
    """The annotated masks of everybody with an ROI, as sure as they are wide; every third is another person's."""
    truth = COCO(str(project.annotations("val")))
    ids = project.open("val").index.roi_annotation_ids.tolist()
    found = []
    for number, (own, other) in enumerate(zip(ids, [*ids[1:], ids[0]], strict=True)):
        person = truth.anns[own]
        same = truth.anns[other]["image_id"] == person["image_id"] and number % 3 == 0
        mask = truth.annToRLE(truth.anns[other] if same else person)
        found.append(
            {
                "image_id": person["image_id"],
                "category_id": person["category_id"],
                "score": round(person["bbox"][2] / 100, 6),
                "segmentation": compressed_rle(mask),
                **({"annotation_id": own} if oracle else {}),
            }
        )
    return found


def scored(project: Project, folder: Path, results: list[Json], *, boundary: bool = False) -> Scored:
    (folder / "results.json").write_text(json.dumps(results))
    index = project.open("val").index
    return score_results(folder / "results.json", Truth(project.people("val")), index, boundary=boundary)


@pytest.mark.parametrize("order", [1, -1])
def test_the_figures_are_those_of_pycocotools_on_the_same_files(project: Project, tmp_path: Path, order: int) -> None:
    found = scored(project, tmp_path, some_results(project, oracle=False)[::order])
    truth = COCO(str(project.annotations("val")))
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "segm")
    for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
        step()
    assert 0.2 < found.figures["ap"] < 0.99
    for name, place in (("ap", 0), ("ap50", 1), ("ap75", 2), ("ar_1", 6), ("ar", 8)):
        assert found.figures[name] == pytest.approx(float(evaluation.stats[place]), abs=1e-12), name
    assert found.figures["ap_low"] <= found.figures["ap"] <= found.figures["ap_high"]
    said = found.line()
    assert f"ap {found.figures['ap']:.3f} ({found.figures['ap_low']:.3f} to {found.figures['ap_high']:.3f}), ap50" in said
    assert f"{found.results} results, masks with scores" in said


def test_boundary_ap_is_no_more_than_ap(project: Project, tmp_path: Path) -> None:
    found = scored(project, tmp_path, some_results(project, oracle=False), boundary=True)
    assert 0 < found.figures["boundary_ap"] <= found.figures["ap"]


def test_results_from_annotated_boxes_are_called_so_and_must_be_whole(project: Project, tmp_path: Path) -> None:
    results = some_results(project, oracle=True)
    assert "oracle-box, not comparable" in scored(project, tmp_path, results).line()
    with pytest.raises(ResultsError, match=rf"1 of {len(results)} annotated people with an ROI have no result, such as annotation"):
        scored(project, tmp_path, results[1:])


def test_no_results_are_zeros(project: Project, tmp_path: Path) -> None:
    found = scored(project, tmp_path, [])
    assert (found.results, found.oracle, found.figures["ap"]) == (0, False, 0)


def test_unknown_images_are_refused(project: Project, tmp_path: Path) -> None:
    results = some_results(project, oracle=False)
    results[0]["image_id"] = 999_999
    with pytest.raises(ResultsError, match="image 999999 isn't among the 4 annotated ones"):
        scored(project, tmp_path, results)
