"""Tests of roiseg.evaluate: the way back to the image, running a head, and the whole stage on a tiny split."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from head_factory import fresh_head
from pycocotools.coco import COCO
from store_factory import MODEL, Project, shared_project
from torch import Tensor, nn

from roiseg.batches import Loading
from roiseg.evaluate import infer
from roiseg.evaluate.evaluate import EvaluateParams, EvaluatePaths, coco_results, evaluate
from roiseg.evaluate.infer import Prediction, Score, predictions, run_head
from roiseg.evaluate.pictures import draw_validation, load_fixed, target_mask
from roiseg.evaluate.sheets import LINE_PX
from roiseg.heads import parse_model
from roiseg.nn.outputs import HeadOutput
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
        part = self.labels[self.place : self.place + len(boxes)]
        self.place += len(boxes)
        return HeadOutput(torch.nn.functional.one_hot(part, 3).movedim(-1, 1).float() * 50, {})


def knowing(project: Project, repeats: int = 2) -> Knowing:
    """Answers as annotated, for all of val; then for the pictures, whatever comes."""
    dataset = project.open("val")
    labels = [torch.from_numpy(dataset.whole_sample(row).labels.astype(np.int64)) for row in dataset.rows.tolist()]
    return Knowing(torch.cat(labels * repeats))


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
    assert score == pytest.approx(float(probabilities[1].numpy()[won].mean()))


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


def test_coco_results_name_image_and_annotation(project: Project) -> None:
    dataset = project.open("val")
    found = predictions(knowing(project, 1), dataset, CPU, Loading(3, 1, 1))
    results = [result for prediction in found for result in coco_results(prediction, dataset)]
    people = project.people("val")
    known = {item["id"]: item["image_id"] for item in people.annotations}
    assert [known[result["annotation_id"]] for result in results] == [result["image_id"] for result in results]
    assert len({result["annotation_id"] for result in results}) == len(results) == dataset.index.rois_per_image.sum()
    sizes = {item["id"]: [item["height"], item["width"]] for item in people.images}
    assert all(result["segmentation"]["size"] == sizes[result["image_id"]] for result in results)
    assert all(0.9 < result["score"] <= 1 for result in results)


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


def paths_of(project: Project, out: Path) -> EvaluatePaths:
    return EvaluatePaths(
        project.annotations("val"), project.index / "val" / "pictures", out / "figures.json", out / "plots", out / "results.json"
    )


def run_stage(project: Project, out: Path, head: nn.Module, images_per_batch: int = 2) -> dict[str, float]:
    sections = project.sections()
    return evaluate(
        head,
        project.open("val"),
        EvaluateParams(checkpoint=BEST, images_per_batch=images_per_batch),
        sections.reader,
        paths_of(project, out),
    )


def test_evaluate_a_perfect_head(project: Project, tmp_path: Path) -> None:
    figures = run_stage(project, tmp_path, knowing(project))
    assert figures["miou_fg_roi"] == figures["miou_3class"] == figures["pixel_accuracy"] == 1
    assert figures["never_class_2_miou_fg_roi"] < 1
    assert figures["oracle_box_ap50"] > 0.7, "masks of 12 x 10 cells, brought back to the image; small people aren't looked for"
    assert (figures["images"], figures["rois"]) == (4, project.open("val").index.rois_per_image.sum())


def test_evaluate_writes_all_reports(project: Project, tmp_path: Path) -> None:
    figures = run_stage(project, tmp_path, head_of(project))
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written == {name: round(float(value), 6) for name, value in figures.items()}
    assert all(isinstance(value, int | float) for value in written.values())
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "confusion.png",
        "iou_by_size.csv",
        "iou_by_size.png",
        "validation.png",
    }
    with (tmp_path / "plots" / "iou_by_size.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["rois"]) for row in rows if row["class"] == "target") == figures["rois"]
    truth = COCO(str(project.annotations("val")))
    assert len(truth.loadRes(str(tmp_path / "results.json")).anns) == figures["rois"]


def test_evaluate_writes_the_same_bytes_whatever_the_batches(project: Project, tmp_path: Path) -> None:
    for name, images in (("first", 2), ("second", 2), ("third", 4)):
        run_stage(project, tmp_path / name, head_of(project), images)
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file()]
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file
    first, third = (json.loads((tmp_path / name / "figures.json").read_text()) for name in ("first", "third"))
    assert third == pytest.approx(first, abs=1e-3)


def test_prediction_is_of_its_batch(project: Project) -> None:
    dataset = project.open("val")
    found = list(predictions(knowing(project, 1), dataset, CPU, Loading(2, 1, 1)))
    assert all(isinstance(item, Prediction) for item in found)
    assert all((item.classes == item.batch.targets.labels.numpy()).all() for item in found)
