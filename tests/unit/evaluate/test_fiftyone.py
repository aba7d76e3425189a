"""Tests of docs/fiftyone.md: its snippets, run on small files; FiftyOne and supervision themselves are stood in for."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
from data_factory import PERSON_ID
from dvc_project import ROOT
from pycocotools import mask as coco_mask
from results_factory import drawn, random_people, write_pair

from roiseg.coco import People
from roiseg.evaluate.results import mask_result, new_results

SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "fiftyone.md").read_text(), re.DOTALL)


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> People:
    """Files where the snippets look for them, and nobody seen in the last result."""
    monkeypatch.chdir(tmp_path)
    people = random_people(np.random.default_rng(0), [(60, 90), (80, 40), (50, 50)])
    masks = [drawn(people, item) for item in people.annotations]
    masks[-1][:] = False
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    write_pair(tmp_path, people, [])[0].rename("data/annotations/instances_val_person_only_no_crowd.json")
    with new_results(Path("data/predictions/default.json")) as write:
        for item, mask in zip(people.annotations, masks, strict=True):
            write(mask_result(item["image_id"], PERSON_ID, 0.5, mask, item["id"]))
    folder = tmp_path / "data" / "sample" / "images" / "val"
    folder.mkdir(parents=True)
    for image in people.images:
        cv2.imwrite(str(folder / image["file_name"]), np.zeros((image["height"], image["width"], 3), dtype=np.uint8))
    return people


def test_fiftyone_gets_boxes_of_the_masks(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    fiftyone, labels = MagicMock(), MagicMock()
    fiftyone.utils.coco = labels
    for name, value in (("fiftyone", fiftyone), ("fiftyone.utils", fiftyone.utils), ("fiftyone.utils.coco", labels)):
        monkeypatch.setitem(sys.modules, name, value)
    exec(SNIPPETS[0], {})  # noqa: S102 - our own page
    asked = fiftyone.Dataset.from_dir.call_args.kwargs
    assert Path(asked["data_path"], people.images[0]["file_name"]).is_file()
    assert json.loads(Path(asked["labels_path"]).read_text())["annotations"]
    _, field, results, categories = labels.add_coco_labels.call_args.args
    assert field == "default"
    assert categories == [people.category]
    assert [item["annotation_id"] for item in results] == [item["id"] for item in people.annotations[:-1]]
    for item in results:
        x, y, width, height = item["bbox"]
        mask = coco_mask.decode(item["segmentation"])
        assert mask.sum() == mask[int(y) : int(y + height), int(x) : int(x + width)].sum() > 0


def test_supervision_gets_the_people_of_an_image(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    stand_in = SimpleNamespace(
        mask_to_xyxy=lambda masks: np.zeros((len(masks), 4)),
        Detections=lambda **kwargs: given.update(kwargs),
        MaskAnnotator=lambda: SimpleNamespace(annotate=lambda scene, detections: scene),
    )
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    exec(SNIPPETS[1], {})  # noqa: S102 - our own page
    image = people.images[0]
    mine = [drawn(people, item) for item in people.annotations if item["image_id"] == image["id"]]
    np.testing.assert_array_equal(given["mask"], mine)
    assert given["confidence"].tolist() == [0.5] * len(mine)
    assert given["class_id"].tolist() == [PERSON_ID] * len(mine)
    assert np.asarray(cv2.imread("people.png")).shape == (image["height"], image["width"], 3)
