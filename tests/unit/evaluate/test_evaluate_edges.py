"""Tests of roiseg.evaluate.evaluate on splits that have next to nothing: each still gives figures, results and a page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from data_factory import CATEGORIES, compressed, image_record, person_record, rectangle
from store_factory import hand_made
from torch import Tensor, nn

from roiseg.cache.params import ReaderParams
from roiseg.coco import People, to_coco
from roiseg.evaluate.cases import PER_CELL
from roiseg.evaluate.detections import COLUMNS
from roiseg.evaluate.evaluate import EvaluatePaths, Trained, evaluate
from roiseg.evaluate.params import EvaluateParams
from roiseg.evaluate.table import RoiTable
from roiseg.files import write_json
from roiseg.nn.outputs import HeadOutput
from roiseg.previews import write_previews
from roiseg.train.checkpoint import BEST

IMAGE_HW = (32, 64)
PERSON = person_record(1, 7, rectangle(10, 5, 20, 20))
SMALL = person_record(2, 7, rectangle(40, 5, 3, 3))
BOX = (0, 7, 10 / 64, 5 / 32, 30 / 64, 25 / 32, 0.8)
"""Of `PERSON`, as a detector's."""


class Constant(nn.Module):
    """Says the same class of every cell, on a grid of 8 x 16."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, features: dict[str, Tensor], boxes: Tensor) -> HeadOutput:
        logits = torch.zeros(len(boxes), 3, 8, 16)
        logits[:, self.label] = 30
        return HeadOutput(logits, {})


def run(
    folder: Path, people: Sequence[dict[str, Any]], label: int, boxes: Sequence[tuple[float, ...]] = (), **dataset: object
) -> dict[str, float]:
    """Evaluate on one image; what was written is read as whoever opens it would."""
    annotated = People([image_record(7, IMAGE_HW)], list(people), CATEGORIES[1])
    write_json(folder / "annotations.json", to_coco(annotated))
    picture = folder / "images" / str(annotated.images[0]["file_name"])
    picture.parent.mkdir()
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 256, (*IMAGE_HW, 3)).astype(np.uint8))
    write_previews(folder / "previews.parquet", annotated, picture.parent)
    pd.DataFrame([*boxes], columns=list(COLUMNS)).astype({"row": "int64", "image_id": "int64"}).to_parquet(folder / "boxes.parquet")
    out = folder / "out"
    names = {"figures": "figures.json", "results": "results.json", "detector_results": "detector.json", "report": "report.html"}
    paths = EvaluatePaths(
        annotations=folder / "annotations.json",
        detections=folder / "boxes.parquet",
        pictures=picture.parent,
        previews=folder / "previews.parquet",
        plots=out / "plots",
        curves=out / "curves",
        table=out / "table.parquet",
        **{key: out / name for key, name in names.items()},
    )
    values = {"checkpoint": BEST, "images_per_batch": 2, "detections": "boxes.parquet", "boundary_ap": False}
    figures = evaluate(
        Trained(Constant(label), "tiny", BEST),
        hand_made(folder, people, dataset),
        EvaluateParams.parse(values, "evaluate"),
        ReaderParams(decode_threads=1, load_threads=1, ahead=2, concurrent_runs=1, checksums=True),
        paths,
        device=torch.device("cpu"),
    )
    assert json.loads(paths.figures.read_text()) == {name: round(value, 6) for name, value in figures.items()}
    assert len(json.loads(paths.results.read_text())) == figures["rois"] == len(RoiTable.read(paths.table))
    assert {path.name for path in paths.curves.iterdir()} == {"pr.csv", "iou_histogram.csv", "calibration.csv", "breakdown.csv"}
    page = paths.report.read_text()
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert page.count('id="annotation-') == min(figures["rois"], PER_CELL)
    assert not [path for path in out.rglob("*") if path.suffix in (".partial", ".tmp")]
    return figures


def detector_results(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "out" / "detector.json").read_text())
    return found


def test_a_split_without_any_roi_and_without_boxes(tmp_path: Path) -> None:
    """Nobody is large enough for an ROI, yet there is somebody to find."""
    figures = run(tmp_path, [SMALL], 1)
    assert (figures["rois"], figures["images"], figures["oracle_box_ap"]) == (0, 0, 0)
    assert not {"miou_fg_roi", "target_ece", "ellipse_miou_fg_roi", "detector_box_ap", "oracle_box_ap_large"} & set(figures)
    assert detector_results(tmp_path) == []
    assert "There are no ROIs, so there is nothing to draw." in (tmp_path / "out" / "report.html").read_text()


def test_boxes_where_nobody_has_an_roi_count_as_wrong(tmp_path: Path) -> None:
    figures = run(tmp_path, [SMALL], 1, [BOX])
    assert (figures["rois"], figures["detector_boxes"], figures["detector_box_ap"]) == (0, 1, 0)
    assert [item["score"] for item in detector_results(tmp_path)] == [0.8]


def test_one_roi_of_annotation_zero_given_as_runs(tmp_path: Path) -> None:
    """Answered rightly: every interval has no width, and pycocotools' own 1 isn't quite 1."""
    mask = np.zeros(IMAGE_HW, dtype=bool)
    mask[5:25, 10:30] = True
    figures = run(tmp_path, [{**PERSON, "id": 0, "segmentation": compressed(mask)}], 1, [BOX])
    assert (figures["images"], figures["rois"], figures["rois_nontarget"]) == (1, 1, 0)
    for name in ("miou_fg_roi", "iou_target_roi", "miou_fg_roi_low", "miou_fg_roi_high", "precision_target"):
        assert figures[name] == 1, name
    for name in ("oracle_box_ap", "oracle_box_ap_low", "oracle_box_ap_high", "detector_box_ap", "whole_box_oracle_box_ap"):
        assert figures[name] == pytest.approx(1), name
    assert "iou_nontarget_roi" not in figures, "nobody else is there, and nobody else was predicted"
    assert [item["annotation_id"] for item in json.loads((tmp_path / "out" / "results.json").read_text())] == [0]


@pytest.mark.slow
def test_one_roi_that_is_larger_than_its_person(tmp_path: Path) -> None:
    """All target, in an ROI that is padded by half of the box and beyond the image above."""
    figures = run(tmp_path, [PERSON], 1, [BOX], roi_padding=0.5)
    assert figures["iou_target_roi"] == pytest.approx(20 * 20 / (40 * 32), abs=0.06)
    assert figures["whole_box_iou_target_roi"] == pytest.approx(1, abs=0.2)
    assert figures["detector_box_ap"] == figures["oracle_box_ap"] == 0


@pytest.mark.parametrize("label", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_one_roi_without_any_target_pixel(label: int, tmp_path: Path) -> None:
    """The annotated person has a result, though an empty one; a detected box without a mask has none."""
    figures = run(tmp_path, [PERSON], label, [BOX])
    assert (figures["iou_target_roi"], figures["detection_rate_50"], figures["separation_pixels"]) == (0, 0, 0)
    assert (figures["oracle_box_ap"], figures["detector_box_ap"]) == (0, 0)
    assert figures["whole_box_detector_box_ap"] == pytest.approx(1)
    assert "precision_target" not in figures
    assert detector_results(tmp_path) == []


@pytest.mark.slow
def test_more_people_in_an_image_than_a_head_takes_at_once(tmp_path: Path) -> None:
    """COCO counts a hundred results of an image, so the rest can't be found."""
    people = [person_record(number, 7, rectangle(*divmod(number, 20), 10, 10)) for number in range(200)]
    figures = run(tmp_path, people, 1)
    assert figures["rois"] == figures["rois_target"] == 200
    assert figures["oracle_box_ar"] == 0.5
