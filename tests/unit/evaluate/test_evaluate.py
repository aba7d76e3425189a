"""Tests of roiseg.evaluate: the way back to the image, running a head, and the whole stage on a tiny split."""

import csv
import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from head_factory import fresh_head
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from store_factory import MODEL, Project, shared_project
from torch import Tensor, nn

from roiseg.batches import Loading
from roiseg.coco import load_prepared
from roiseg.dataset import RoiDataset
from roiseg.errors import PredictionError
from roiseg.evaluate import evaluation, infer
from roiseg.evaluate.charts import CONFUSIONS
from roiseg.evaluate.coco_truth import Json, Truth
from roiseg.evaluate.detections import load_detections
from roiseg.evaluate.evaluate import EvaluatePaths, Trained, evaluate
from roiseg.evaluate.infer import Prediction, Score, predictions, run_head
from roiseg.evaluate.measures import ImageMeasures, Measured, measure
from roiseg.evaluate.params import EvaluateParams
from roiseg.evaluate.pictures import draw_validation, load_fixed, target_mask
from roiseg.evaluate.sheets import LINE_PX
from roiseg.evaluate.table import RoiTable
from roiseg.heads import parse_model
from roiseg.nn.outputs import HeadOutput
from roiseg.previews import PREVIEWS_FILE
from roiseg.train.checkpoint import BEST

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def head_of(project: Project) -> nn.Module:
    return fresh_head(parse_model(MODEL), project.open("val").store.specs)


class Knowing(nn.Module):
    """A head that answers with given labels, in order, as surely as it can."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.labels, self.place = labels, 0

    def forward(self, features: dict[str, Tensor], boxes: Tensor) -> HeadOutput:
        part = self.labels[(self.place + torch.arange(len(boxes))) % len(self.labels)]
        self.place += len(boxes)
        return HeadOutput(torch.nn.functional.one_hot(part, 3).movedim(-1, 1).float() * 50, {})


def knowing(project: Project) -> Knowing:
    """Answers as annotated, for all of val; then over again, whatever is asked."""
    dataset = project.open("val")
    labels = [torch.from_numpy(dataset.whole_sample(row).labels.astype(np.int64)) for row in dataset.rows.tolist()]
    return Knowing(torch.cat(labels))


# --- one mask ---


@pytest.mark.parametrize("image_hw", [(12, 20), (20, 12)])
def test_target_mask_is_the_argmax_at_cell_centres(image_hw: tuple[int, int]) -> None:
    """Where a pixel is a cell, its centre is the cell's centre, and nothing is interpolated."""
    probabilities = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)).mul(3).softmax(dim=0)
    mask, score = target_mask(probabilities, np.array([2.0, 4.0, 10.0, 9.0]), image_hw)
    expected = np.zeros(image_hw, dtype=bool)
    won = (probabilities.argmax(dim=0) == 1).numpy()
    expected[4:9, 2:10] = won
    np.testing.assert_array_equal(mask, expected)
    assert score == pytest.approx(float((probabilities[1] * (1 - probabilities[2])).numpy()[won].mean()))


def test_target_mask_of_a_larger_box_keeps_the_argmax_at_cell_centres() -> None:
    probabilities = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1)).mul(3).softmax(dim=0)
    mask, _ = target_mask(probabilities, np.array([3.0, 6.0, 3.0 + 6 * 5, 6.0 + 4 * 7]), (40, 40))
    centres = mask[6 + 3 : 6 + 28 : 7, 3 + 2 : 3 + 30 : 5]
    np.testing.assert_array_equal(centres, (probabilities.argmax(dim=0) == 1).numpy())
    assert not mask[:6].any()
    assert not mask[34:].any()
    assert not mask[:, :3].any()
    assert not mask[:, 33:].any()


@pytest.mark.parametrize("label", [0, 2])
def test_target_mask_without_target(label: int) -> None:
    probabilities = torch.zeros(3, 2, 3)
    probabilities[label] = 1
    mask, score = target_mask(probabilities, np.array([1.0, 1.0, 7.0, 5.0]), (8, 9))
    assert not mask.any()
    assert score == 0


def test_target_mask_of_a_box_beyond_the_image() -> None:
    probabilities = torch.zeros(3, 4, 4)
    probabilities[1] = 1
    mask, score = target_mask(probabilities, np.array([-4.0, -4.0, 4.0, 4.0]), (6, 9))
    assert mask.sum() == 16
    assert mask[:4, :4].all()
    assert score == 1


# --- running ---


def test_predictions_dont_depend_on_batches(project: Project) -> None:
    head, dataset = head_of(project), project.open("val")

    def logits(images: int) -> Tensor:
        found = predictions(head, dataset, CPU, Loading(images, 1, 1))
        return torch.cat([prediction.logits for prediction in found])

    one, three = logits(1), logits(3)
    assert one.shape == (int(dataset.index.rois_per_image.sum()), 3, 12, 10)
    assert not one.requires_grad
    torch.testing.assert_close(one, three, atol=1e-5, rtol=1e-5)


def test_many_rois_are_split(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    head, dataset = head_of(project), project.open("val")
    prediction = next(predictions(head, dataset, CPU, Loading(4, 1, 1)))
    seen = []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[1])))
    monkeypatch.setattr(infer, "MAX_ROIS", 3)
    with torch.no_grad():
        features = {name: values.float() for name, values in prediction.batch.features.items()}
        logits = run_head(head, features, prediction.batch.boxes)
        assert run_head(head, features, prediction.batch.boxes[:0]).shape == (0, 3, 12, 10)
    handle.remove()
    assert max(seen) == 3
    assert sum(seen) == len(prediction.batch.boxes)
    torch.testing.assert_close(logits, prediction.logits, atol=1e-5, rtol=1e-5)


def test_classes_with_and_without_two(project: Project) -> None:
    dataset = project.open("val")
    prediction = next(predictions(head_of(project), dataset, CPU, Loading(4, 1, 1)))
    np.testing.assert_array_equal(prediction.classes, prediction.logits.numpy().argmax(axis=1))
    assert prediction.classes_without_two.max() == 1
    agree = prediction.classes != 2
    np.testing.assert_array_equal(prediction.classes[agree], prediction.classes_without_two[agree])
    score = Score.empty()
    score.add(prediction)
    assert score.metrics.confusions[:, :, 2].sum() > 0
    assert score.without_two.confusions[:, :, 2].sum() == 0


# --- pictures ---


def test_load_fixed_finds_the_rows(project: Project) -> None:
    dataset = project.open("val")
    fixed = load_fixed(project.index / "val" / "pictures", dataset)
    names = dataset.index.images["file_name"].tolist()
    assert len(fixed) == 2
    for picture in fixed:
        np.testing.assert_array_equal(picture.pixels, np.asarray(cv2.imread(str(project.image("val", names[picture.row])))))


def test_draw_validation_of_a_perfect_head(project: Project) -> None:
    dataset = project.open("val")
    fixed = load_fixed(project.index / "val" / "pictures", dataset)
    labels = torch.cat([torch.from_numpy(dataset.whole_sample(item.row).labels.astype(np.int64)) for item in fixed])
    found = draw_validation(Knowing(labels), dataset, fixed, CPU, "epoch 1", "two_row")
    top, bottom = np.split(found.astype(int), 2)
    nothing = draw_validation(Knowing(torch.zeros_like(labels)), dataset, fixed, CPU, "epoch 1", "two_row")
    empty = np.split(nothing.astype(int), 2)[1]
    difference, ground = (np.abs(part - top)[LINE_PX:].mean() for part in (bottom, empty))
    assert difference < 0.6 * ground, "predicted masks lie where the annotated ones do"
    np.testing.assert_array_equal(np.split(nothing, 2)[0], np.split(found, 2)[0])


# --- the stage ---

OUTS = {"figures.json", "results.json", "detector.json", "table.parquet", "report.html"}


def paths_of(project: Project, out: Path, detections: Path | None = None) -> EvaluatePaths:
    return EvaluatePaths(
        annotations=project.annotations("val"),
        detections=detections or project.detections("val"),
        pictures=project.index / "val" / "pictures",
        previews=project.index / "val" / PREVIEWS_FILE,
        figures=out / "figures.json",
        plots=out / "plots",
        curves=out / "curves",
        results=out / "results.json",
        detector_results=out / "detector.json",
        table=out / "table.parquet",
        report=out / "report.html",
    )


def run(project: Project, head: nn.Module, paths: EvaluatePaths, images_per_batch: int = 2, **changes: object) -> dict[str, float]:
    values = {"checkpoint": BEST, "images_per_batch": images_per_batch, "detections": "boxes.parquet", "boundary_ap": False}
    return evaluate(
        Trained(head, "default", f"{BEST}, epoch 3"),
        project.open("val"),
        EvaluateParams.parse(values | changes, "evaluate"),
        project.sections().reader,
        paths,
        device=CPU,
    )


def test_a_perfect_head_scores_one_in_all_that_the_mask_grid_decides(project: Project, tmp_path: Path) -> None:
    figures = run(project, knowing(project), paths_of(project, tmp_path))
    for name in ("miou_fg_roi", "miou_3class", "pixel_accuracy", "boundary_iou_crop", "detection_rate_70", "f1_nontarget"):
        assert figures[name] == 1, name
    assert (figures["miou_fg_roi_low"], figures["miou_fg_roi_high"]) == (1, 1)
    assert figures["never_class_2_miou_fg_roi"] < 1
    assert figures["ellipse_iou_target_roi"] < 1
    assert figures["oracle_box_ap50"] > 0.7, "masks of 12 x 10 cells, brought back to the image; small people aren't looked for"
    assert figures["oracle_box_ap"] > figures["whole_box_oracle_box_ap"]
    assert (figures["images"], figures["rois"]) == (4, project.open("val").index.rois_per_image.sum())


def test_all_reports_are_written(project: Project, tmp_path: Path) -> None:
    figures = run(project, head_of(project), paths_of(project, tmp_path))
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written == {name: round(float(value), 6) for name, value in figures.items()}
    assert all(isinstance(value, int | float) for value in written.values())
    assert {path.name for path in tmp_path.iterdir()} == OUTS | {"plots", "curves"}
    pictures = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert pictures == {"worst", "best", "validation_two_row", "validation_four_panel", *CONFUSIONS}
    assert {path.name for path in (tmp_path / "curves").iterdir()} == {
        "pr.csv",
        "iou_histogram.csv",
        "calibration.csv",
        "breakdown.csv",
    }
    with (tmp_path / "curves" / "breakdown.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] == "size" and row["figure"] == "iou_target_roi"]
    table = RoiTable.read(tmp_path / "table.parquet")
    assert sum(int(row["rois"]) for row in rows) == len(table) == figures["rois"]
    page = (tmp_path / "report.html").read_text()
    assert f"{BEST}, epoch 3" in page
    assert all(f"annotation-{number}" in page for number in table.annotation_ids.tolist())


def test_predictions_are_coco_results_that_pycocotools_reads_back(project: Project, tmp_path: Path) -> None:
    """Each names its image and annotation, and holds the mask that the figures are of."""
    figures = run(project, knowing(project), paths_of(project, tmp_path))
    results = json.loads((tmp_path / "results.json").read_text())
    people = project.people("val")
    known = {item["id"]: item["image_id"] for item in people.annotations}
    assert [known[result["annotation_id"]] for result in results] == [result["image_id"] for result in results]
    truth = COCO(str(project.annotations("val")))
    found = truth.loadRes(str(tmp_path / "results.json"))
    assert len(found.anns) == figures["rois"] == len({result["annotation_id"] for result in results})
    table = RoiTable.read(tmp_path / "table.parquet")
    assert table.annotation_ids.tolist() == [result["annotation_id"] for result in results]
    assert table.scores == pytest.approx([result["score"] for result in results], abs=1e-6)
    for number, result in enumerate(results, start=1):
        mask, annotated = found.annToMask(found.anns[number]), truth.annToMask(truth.anns[result["annotation_id"]])
        assert (mask & annotated).sum() > 0.5 * annotated.sum()
    evaluation = COCOeval(truth, found, "segm")
    for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
        step()
    assert figures["oracle_box_ap"] == pytest.approx(float(evaluation.stats[0]), abs=1e-12)


def test_the_same_bytes_whatever_the_batches(project: Project, tmp_path: Path) -> None:
    for name, images in (("first", 2), ("second", 2), ("third", 4)):
        run(project, head_of(project), paths_of(project, tmp_path / name), images)
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file()]
    assert len(files) > 12
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file
    first, third = (json.loads((tmp_path / name / "figures.json").read_text()) for name in ("first", "third"))
    assert third == pytest.approx(first, abs=1e-3)


def test_masks_of_one_image_are_in_memory_at_a_time(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of the next one while it is made, however many images share a batch."""
    dataset, most = project.open("val"), []
    kept: list[weakref.ref[ImageMeasures]] = []

    def watched(prediction: Prediction, dataset: RoiDataset) -> Iterator[Measured]:
        for measured in measure(prediction, dataset):
            kept.append(weakref.ref(measured.image))
            most.append(sum(item() is not None for item in kept))
            yield measured

    monkeypatch.setattr(evaluation, "measure", watched)
    truth = Truth(load_prepared(project.annotations("val")))
    nothing = load_detections(project.detections("val"), dataset.index, truth.category_id)
    found = evaluation.Evaluation(dataset, truth, nothing, detector=False, boundary_ap=False)
    results: list[Json] = []
    for prediction in predictions(head_of(project), dataset, CPU, Loading(4, 1, 1), rows=found.rows, further=found.further):
        found.add(prediction, results.append, results.append)
    assert len(most) == 4
    assert max(most) <= 2
    assert len(results) == len(found.table)


# --- detected boxes ---


class Elliptic(nn.Module):
    """Sees an ellipse in each ROI, the surer the wider the box is."""

    def forward(self, features: dict[str, Tensor], boxes: Tensor) -> HeadOutput:
        y, x = ((torch.arange(count) + 0.5) / count * 2 - 1 for count in (12, 10))
        target = (1 - (y**2)[:, None] - (x**2)[None]) * (1 + 3 * (boxes[:, 3] - boxes[:, 1]))[:, None, None]
        return HeadOutput(torch.stack([torch.zeros_like(target), target, target - 1], dim=1), {})


def detected(project: Project, path: Path) -> Path:
    """The annotated boxes as a detector's, and one where nobody is."""
    index = project.open("val").index
    rows = []
    for row in range(len(index)):
        people = index.people(row)
        rows += [(row, people.image_id, *box, 0.9) for box in people.boxes[people.roi_numbers].tolist()]
    rows.append((0, index.people(0).image_id, 0.0, 0.0, 0.2, 0.2, 0.4))
    pd.DataFrame(rows, columns=["row", "image_id", "x0", "y0", "x1", "y1", "score"]).to_parquet(path)
    return path


def test_annotated_boxes_as_detected_ones_score_alike(project: Project, tmp_path: Path) -> None:
    """The score of the box is the same for all but the one where nobody is, which comes last."""
    head = Elliptic()
    figures = run(project, head, paths_of(project, tmp_path / "a", detected(project, tmp_path / "boxes.parquet")))
    assert figures["detector_boxes"] == figures["rois"] + 1
    assert figures["detector_box_ap"] == pytest.approx(figures["oracle_box_ap"], abs=1e-9)
    assert figures["detector_box_ap"] > 0.3
    assert figures["whole_box_detector_box_ap"] == pytest.approx(figures["whole_box_oracle_box_ap"], abs=0.02)
    results = json.loads((tmp_path / "a" / "detector.json").read_text())
    oracle = {item["segmentation"]["counts"]: item["score"] for item in json.loads((tmp_path / "a" / "results.json").read_text())}
    known = [item for item in results if item["segmentation"]["counts"] in oracle]
    assert len(known) == figures["rois"] == len(results) - 1
    assert all(item["score"] == pytest.approx(0.9 * oracle[item["segmentation"]["counts"]], abs=2e-6) for item in known)
    assert "annotation_id" not in results[0]
    without = run(project, head, paths_of(project, tmp_path / "b"))
    assert not [name for name in without if name.startswith("detector_box_")], "this detector gives no boxes"
    assert json.loads((tmp_path / "b" / "detector.json").read_text()) == []
    assert {name: value for name, value in figures.items() if "detector" not in name} == pytest.approx(
        {name: value for name, value in without.items() if "detector" not in name}
    )


def test_a_detector_that_found_nobody_has_an_ap_of_zero(project: Project, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text("[]")
    figures = run(project, Elliptic(), paths_of(project, tmp_path / "a", boxes))
    assert (figures["detector_boxes"], figures["detector_box_ap"], figures["detector_box_ar"]) == (0, 0, 0)


def test_boundary_ap_where_it_is_wanted(project: Project, tmp_path: Path) -> None:
    figures = run(project, knowing(project), paths_of(project, tmp_path / "a"), boundary_ap=True)
    assert 0 < figures["oracle_box_boundary_ap"] <= figures["oracle_box_ap"]
    boxes = detected(project, tmp_path / "boxes.parquet")
    figures = run(project, Elliptic(), paths_of(project, tmp_path / "b", boxes), boundary_ap=True)
    assert figures["oracle_box_boundary_ap"] > 0
    assert figures["detector_box_boundary_ap"] == pytest.approx(figures["oracle_box_boundary_ap"], abs=1e-9)


# --- what can't be evaluated ---


class Broken(nn.Module):
    """Says NaN of some ROI."""

    def forward(self, features: dict[str, Tensor], boxes: Tensor) -> HeadOutput:
        logits = torch.zeros(len(boxes), 3, 12, 10)
        logits[-1:, 1, 3, 4] = torch.nan
        return HeadOutput(logits, {})


def test_nan_names_image_and_annotation_and_leaves_what_was_there(project: Project, tmp_path: Path) -> None:
    paths = paths_of(project, tmp_path)
    paths.results.write_text("[]")
    with pytest.raises(PredictionError, match=r"image \d+, annotations \d+: the head's logits are NaN or infinite"):
        run(project, Broken(), paths)
    assert paths.results.read_text() == "[]"
    assert {path.name for path in tmp_path.iterdir()} == {"results.json"}


def test_no_previews_no_cases(project: Project, tmp_path: Path) -> None:
    run(project, head_of(project), replace(paths_of(project, tmp_path), previews=None, pictures=None))
    pictures = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert not pictures & {"worst", "best", "validation_two_row"}
    assert pictures <= set(CONFUSIONS)
    assert (tmp_path / "report.html").is_file()


def test_prediction_is_of_its_batch(project: Project) -> None:
    dataset = project.open("val")
    found = list(predictions(knowing(project), dataset, CPU, Loading(2, 1, 1)))
    assert all(isinstance(item, Prediction) for item in found)
    assert all((item.classes == item.batch.targets.labels.numpy()).all() for item in found)
