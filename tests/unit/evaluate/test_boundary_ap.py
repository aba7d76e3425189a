"""Tests of roiseg.evaluate.boundary_ap: against a slow outline of its own, and against faster-coco-eval over whole files."""

import sys
from pathlib import Path

import numpy as np
import pytest
from data_factory import CATEGORIES, PERSON_ID, ellipse, image_record, person_record
from faster_coco_eval import COCOeval_faster
from faster_coco_eval.core import COCO
from results_factory import Bools, drawn, random_people, random_results, reference, write_pair

from roiseg.coco import People
from roiseg.errors import PackageError
from roiseg.evaluate.boundary_ap import boundary_protocol
from roiseg.evaluate.coco_eval import MaskAp
from roiseg.evaluate.coco_truth import Truth
from roiseg.evaluate.results import mask_result

SIZES = [(150, 240), (40, 64), (120, 90), (60, 60)]


def added(people: People, results: list[dict[str, object]], *, boundary: bool, chunk: int = 1) -> dict[str, float]:
    found = MaskAp(Truth(people), boundary_protocol()) if boundary else MaskAp(Truth(people))
    ids = [int(item["id"]) for item in people.images]
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        found.add(part, [item for item in results if item["image_id"] in part])
    return found.figures("")


def faster(annotations: Path, results: Path, kind: str) -> dict[str, float]:
    """faster-coco-eval over two files."""
    truth = COCO(str(annotations))
    evaluation = COCOeval_faster(truth, truth.loadRes(str(results)), kind, print_function=lambda *_: None)
    evaluation.run()
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_1", "ar_10", "ar", "ar_small", "ar_medium", "ar_large")
    return {name: float(value) for name, value in zip(names, evaluation.stats, strict=False) if value >= 0}


@pytest.mark.parametrize("seed", range(4))
def test_both_protocols_agree_with_faster_coco_eval(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    people = random_people(rng, SIZES)
    results = random_results(rng, people)
    paths = write_pair(tmp_path, people, results)
    mask = added(people, results, boundary=False)
    assert mask == pytest.approx(faster(*paths, "segm"), abs=1e-6)
    assert mask == pytest.approx(reference(*paths), abs=1e-6)
    outline = added(people, results, boundary=True)
    assert outline == pytest.approx(faster(*paths, "boundary"), abs=1e-6)
    assert outline == added(people, results, boundary=True, chunk=3)
    assert outline["ap"] < mask["ap"]


def slow_outline(mask: Bools) -> Bools:
    """Pixels of a mask that are within reach of a pixel outside it or outside the image, king's moves."""
    height, width = mask.shape
    reach = max(round(0.02 * float(np.hypot(height, width))), 1)
    found = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        top, left = y - reach, x - reach
        inside = top >= 0 and left >= 0 and y + reach < height and x + reach < width
        found[y, x] = not inside or not mask[top : y + reach + 1, left : x + reach + 1].all()
    return found


def iou(first: Bools, second: Bools) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize("hw", [(100, 160), (48, 30)])
@pytest.mark.parametrize("shift", [0, 1, 2, 4])
def test_iou_is_the_smaller_of_mask_and_outline(hw: tuple[int, int], shift: int) -> None:
    """AP50 to AP95 of a single person say between which thresholds the IoU lies."""
    outline = ellipse((hw[1] * 0.4, hw[0] * 0.3), (hw[1] * 0.35, hw[0] * 0.4))
    people = People([image_record(5, hw)], [person_record(1, 5, outline)], CATEGORIES[1])
    mask = drawn(people, people.annotations[0])
    moved = np.roll(mask, shift, axis=1)
    expected = min(iou(mask, moved), iou(slow_outline(mask), slow_outline(moved)))
    found = added(people, [mask_result(5, PERSON_ID, 0.5, moved)], boundary=True)
    assert found["ap"] == pytest.approx(sum(expected >= 0.5 + 0.05 * step for step in range(10)) / 10, abs=1e-9)
    if shift:
        assert expected < iou(mask, moved)


def test_asked_for_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    message = (
        r"evaluate\.boundary_ap is true, but 'faster_coco_eval' isn't installed; run `uv sync --extra boundary` "
        r"\(or `pip install faster-coco-eval`\), or set evaluate\.boundary_ap to false"
    )
    with pytest.raises(PackageError, match=message):
        boundary_protocol()
