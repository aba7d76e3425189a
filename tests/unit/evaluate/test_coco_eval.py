"""Tests of roiseg.evaluate.coco_eval: perfect and imperfect masks, absent sizes, and inputs that stay as they were."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_factory import make_coco
from pycocotools import mask as coco_mask

from roiseg.coco import People, load_people
from roiseg.evaluate.coco_eval import oracle_box_ap
from roiseg.geometry import Resize
from roiseg.masks import Segmentation, encode_mask


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return load_people(make_coco(tmp_path_factory.mktemp("coco"), 4, seed=6, people=(1, 4), rle_share=0.5), "person", "error")


def results_of(people: People, shrink: float = 0.0) -> list[dict[str, Any]]:
    """The annotations as results; the left `shrink` of each image is cut off."""
    sizes = {item["id"]: (int(item["height"]), int(item["width"])) for item in people.images}
    results = []
    for item in people.annotations:
        hw = sizes[item["image_id"]]
        outline = Segmentation.from_coco(item["segmentation"], Resize(hw, hw, "stretch"))
        mask = outline.rasterise(np.array([0.0, 0.0, 1.0, 1.0]), hw)
        mask[:, : int(hw[1] * shrink)] = False
        if mask.any():
            results.append({"image_id": item["image_id"], "category_id": 1, "score": 0.9, "segmentation": encode_mask(mask)})
    return results


def test_perfect_masks(people: People) -> None:
    found = oracle_box_ap(people, results_of(people))
    assert found["oracle_box_ap"] == pytest.approx(1, abs=0.01)
    assert found["oracle_box_ap50"] == pytest.approx(1, abs=1e-6)
    assert set(found) <= {f"oracle_box_{name}" for name in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")}
    assert "oracle_box_ap_large" not in found, "pictures of 96 pixels have nobody large"


def test_imperfect_masks(people: People) -> None:
    cut = oracle_box_ap(people, results_of(people, 0.4))
    assert 0 < cut["oracle_box_ap"] < 0.9
    assert cut["oracle_box_ap"] <= cut["oracle_box_ap50"]
    half = oracle_box_ap(people, results_of(people)[::2])
    assert 0.2 < half["oracle_box_ap"] < 0.8


def test_no_results(people: People) -> None:
    assert oracle_box_ap(people, []) == {"oracle_box_ap": 0.0, "oracle_box_ap50": 0.0, "oracle_box_ap75": 0.0}


def test_inputs_stay_as_they_were(people: People) -> None:
    results = results_of(people)
    kept = copy.deepcopy((people.images, people.annotations, people.category, results))
    oracle_box_ap(people, results)
    assert (people.images, people.annotations, people.category, results) == kept
    assert any(
        isinstance(item["segmentation"], dict) and isinstance(item["segmentation"]["counts"], list) for item in people.annotations
    )


def test_prints_nothing(people: People, capsys: pytest.CaptureFixture[str]) -> None:
    oracle_box_ap(people, results_of(people))
    assert capsys.readouterr().out == ""


def test_results_are_plain_json(people: People, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results_of(people)))
    assert coco_mask.area(json.loads(path.read_text())[0]["segmentation"]) > 0
