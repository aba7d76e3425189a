"""Tests of roiseg.evaluate.measures: rows of a batch, measures at the size of the image, and answers that aren't numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from head_factory import fresh_head
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from slow_figures import slow_boundary, slow_separation
from store_factory import MODEL, Project, shared_project

from roiseg.batches import Loading
from roiseg.classes import Bools
from roiseg.errors import PredictionError
from roiseg.evaluate.confusion import roi_confusions
from roiseg.evaluate.infer import Prediction, predictions
from roiseg.evaluate.measures import ImageMeasures, image_measures, measure, truncated
from roiseg.evaluate.metrics import roi_figures
from roiseg.evaluate.pictures import target_mask
from roiseg.evaluate.table import RoiTable, TableBuilder
from roiseg.geometry import Resize, ResizeMode
from roiseg.heads import parse_model
from roiseg.index import ImagePeople
from roiseg.masks import Segmentation, encode_mask
from roiseg.paste import paste
from roiseg.types import HW

CPU = torch.device("cpu")


# --- one image ---


def crowd(outlines: list[Segmentation], image_hw: HW) -> ImagePeople:
    count = len(outlines)
    return ImagePeople(
        row=0,
        image_id=7,
        image_hw=image_hw,
        annotation_ids=np.arange(count, dtype=np.int64)[::-1] + 10,
        boxes=np.tile([[0.1, 0.1, 0.9, 0.9]], (count, 1)),
        areas=np.full(count, 100.0),
        has_roi=np.ones(count, dtype=bool),
        segmentations=outlines,
    )


def scene(rng: np.random.Generator, people: int, image_hw: HW, mode: ResizeMode) -> ImagePeople:
    """Triangles, squares and stains, which may leave the image or have no pixel."""
    resize = Resize(image_hw, (64, 96), mode)
    outlines = []
    for _ in range(people):
        if rng.random() < 0.3:
            stain = np.asarray(
                paste(rng.normal(size=(4, 5)).astype(np.float32), np.array([0.0, 0.0, *image_hw[::-1]]), image_hw)[1] > 0.5
            )
            outlines.append(Segmentation(None, encode_mask(stain), resize))
            continue
        middle, size = rng.random(2) * image_hw[::-1], rng.uniform(1, 15)
        points = middle + rng.uniform(-size, size, (int(rng.integers(3, 6)), 2))
        outlines.append(Segmentation.from_coco([points.ravel().tolist()], resize))
    return crowd(outlines, image_hw)


def answers(rng: np.random.Generator, count: int, image_hw: HW) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """ROIs (r, 4), some beyond the image, and probabilities (r, 3, 6, 5)."""
    low = rng.uniform(-0.2, 0.8, (count, 2)) * image_hw[::-1]
    boxes = np.concatenate([low, low + rng.uniform(1, 25, (count, 2))], axis=1)
    logits = rng.normal(size=(count, 3, 6, 5)) * 2
    logits[:, 1] += 1
    return boxes, np.asarray(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), dtype=np.float32)


def annotated_whole(people: ImagePeople, numbers: NDArray[np.int64]) -> Bools:
    frame = np.array([[0.0, 0.0, people.image_hw[1], people.image_hw[0]]])
    outlines = [people.segmentations[number] for number in numbers.tolist()]
    return np.reshape(
        [item.rasterise(item.resize.boxes_to_unit(frame)[0], people.image_hw) for item in outlines], (-1, *people.image_hw)
    )


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10**9),
    count=st.integers(0, 4),
    image_hw=st.sampled_from([(17, 26), (31, 20)]),
    mode=st.sampled_from(["stretch", "letterbox"]),
)
def test_measures_are_those_of_whole_masks(seed: int, count: int, image_hw: HW, mode: ResizeMode) -> None:
    rng = np.random.default_rng(seed)
    people = scene(rng, count + 2, image_hw, mode)
    numbers = rng.permutation(count + 2)[:count]
    boxes, probabilities = answers(rng, count, image_hw)
    found = image_measures(people, numbers, boxes, probabilities)

    truth = annotated_whole(people, numbers)
    masks = [target_mask(torch.from_numpy(values), box, image_hw) for values, box in zip(probabilities, boxes, strict=True)]
    target = np.zeros((count, *image_hw), dtype=np.float32)
    for number, (values, box) in enumerate(zip(probabilities, boxes, strict=True)):
        window, inside = paste(values[1], box, image_hw)
        target[number][window] = inside
    predicted = np.reshape([mask for mask, _ in masks], (-1, *image_hw))
    assert [item.placed.whole(image_hw).tolist() for item in found.predicted] == predicted.tolist()
    assert [item.score for item in found.predicted] == [score for _, score in masks]
    assert found.boundary.tolist() == [list(slow_boundary(*pair)) for pair in zip(predicted, truth, strict=True)]
    ids = people.annotation_ids[numbers].tolist()
    assert found.separation.tolist() == [list(pair) for pair in slow_separation(truth, predicted, target, ids)]


def two_people(image_hw: HW = (30, 40)) -> tuple[ImagePeople, NDArray[np.float64]]:
    """Two people of 8 x 10 pixels side by side, whose pixels are the cells of their ROIs."""
    resize = Resize(image_hw, (64, 96), "stretch")
    boxes = np.array([[4.0, 6.0, 12.0, 16.0], [12.0, 6.0, 20.0, 16.0]])
    outlines = [Segmentation.from_coco([[x0, y0, x1, y0, x1, y1, x0, y1]], resize) for x0, y0, x1, y1 in boxes.tolist()]
    return crowd(outlines, image_hw), boxes


def certain_of(target: Bools) -> NDArray[np.float32]:
    return np.stack([~target, target, np.zeros_like(target)], axis=1).astype(np.float32)


def measured(target: Bools) -> ImageMeasures:
    people, boxes = two_people()
    return image_measures(people, np.array([0, 1]), boxes, certain_of(target))


def test_a_perfect_answer() -> None:
    """Bands of one pixel (2 % of the diagonal of 50) of 8 x 10 pixels have 32."""
    found = measured(np.ones((2, 10, 8), dtype=bool))
    assert found.boundary.tolist() == [[32, 32], [32, 32]]
    assert found.separation.tolist() == [[80, 80], [80, 80]]
    assert [item.score for item in found.predicted] == [1, 1]


def test_an_answer_a_column_off() -> None:
    """The first person without the last column, the second whole: bands share 7 + 7 + 8 pixels, and the new side is in one only."""
    target = np.ones((2, 10, 8), dtype=bool)
    target[0, :, 7] = False
    found = measured(target)
    assert found.boundary.tolist() == [[22, 40], [32, 32]]
    assert found.separation.tolist() == [[70, 80], [80, 80]]


def test_no_answer() -> None:
    found = measured(np.zeros((2, 10, 8), dtype=bool))
    assert found.boundary.tolist() == [[0, 32], [0, 32]]
    assert found.separation.tolist() == [[0, 80], [0, 80]]
    assert [item.score for item in found.predicted] == [0, 0]


def test_an_image_without_rois() -> None:
    people, boxes = two_people()
    found = image_measures(people, np.zeros(0, dtype=np.int64), boxes[:0], np.zeros((0, 3, 4, 5), dtype=np.float32))
    assert found.boundary.shape == found.separation.shape == (0, 2)


def test_the_border_is_a_pixel_wide() -> None:
    inner = [1.1, 1.1, 48.9, 28.9]
    boxes = np.array([inner] + [inner] * 4)
    boxes[1, 0], boxes[2, 1], boxes[3, 2], boxes[4, 3] = 1.0, 0.0, 49.0, 30.0
    assert truncated(boxes, (30, 50)).tolist() == [False, True, True, True, True]


# --- batches ---


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


@pytest.fixture(scope="module")
def answered(project: Project) -> list[Prediction]:
    dataset = project.open("val")
    head = fresh_head(parse_model(MODEL), dataset.store.specs)
    # Features lie in buffers that go round, and nobody reads them here.
    return list(predictions(head, dataset, CPU, Loading(3, 1, 1)))


def table_of_all(found: list[Prediction], project: Project) -> RoiTable:
    builder = TableBuilder()
    for prediction in found:
        for item in measure(prediction, project.open("val")):
            builder.add(item.table)
    return builder.table()


def test_rows_are_in_the_order_of_the_index(project: Project, answered: list[Prediction]) -> None:
    dataset, table = project.open("val"), table_of_all(answered, project)
    np.testing.assert_array_equal(table.annotation_ids, dataset.index.roi_annotation_ids)
    np.testing.assert_array_equal(table.image_ids, np.repeat(dataset.index.image_ids, dataset.index.rois_per_image))
    known = {item["id"]: item for item in project.people("val").annotations}
    for number, name in enumerate(table.annotation_ids.tolist()):
        x, y, width, height = known[name]["bbox"]
        np.testing.assert_allclose(table.boxes_image[number], [x, y, x + width, y + height], atol=1e-4)
        assert table.areas[number] == known[name]["area"]
    classes = np.concatenate([item.classes for item in answered])
    labels = np.concatenate([item.batch.targets.labels.numpy() for item in answered])
    np.testing.assert_array_equal(table.confusions, roi_confusions(classes, labels))


def test_masks_belong_to_their_rows(project: Project, answered: list[Prediction]) -> None:
    """A head that answers as annotated has a mask over most of each person."""
    prediction = answered[0]
    labels = prediction.batch.targets.labels
    knowing = replace(prediction, logits=torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float() * 50)
    known = {item["id"]: item for item in project.people("val").annotations}
    found = list(measure(knowing, project.open("val")))
    assert len(found) == len(prediction.batch.rows)
    for item in found:
        figures = roi_figures(item.table)
        assert (figures["miou_fg_roi"], figures["boundary_iou_crop"]) == (1, 1)
        for name, pasted in zip(item.table.annotation_ids.tolist(), item.image.predicted, strict=True):
            hw = item.image.image_hw
            truth = encode_mask(
                Segmentation.from_coco(known[name]["segmentation"], Resize(hw, hw, "stretch")).rasterise(
                    np.array([0.0, 0, 1, 1]), hw
                )
            )
            assert coco_mask.iou([encode_mask(pasted.placed.whole(hw))], [truth], [0])[0, 0] > 0.5


def test_batches_make_no_difference(project: Project, answered: list[Prediction]) -> None:
    dataset, expected = project.open("val"), table_of_all(answered, project)
    head = fresh_head(parse_model(MODEL), dataset.store.specs)
    found = table_of_all(list(predictions(head, dataset, CPU, Loading(1, 1, 1))), project)
    assert roi_figures(found) == pytest.approx(roi_figures(expected), abs=1e-3)
    np.testing.assert_array_equal(found.annotation_ids, expected.annotation_ids)


def test_the_builder_keeps_the_order_of_many_parts(project: Project, answered: list[Prediction]) -> None:
    table = table_of_all(answered, project)
    builder = TableBuilder()
    numbers = np.random.default_rng(0).integers(0, len(table), 600)
    for number in numbers.tolist():
        builder.add(table.part(np.array([number])))
    np.testing.assert_array_equal(builder.table().annotation_ids, table.annotation_ids[numbers])
    assert len(TableBuilder().table()) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_answers_that_arent_numbers(project: Project, answered: list[Prediction], value: float) -> None:
    prediction, dataset = answered[0], project.open("val")
    images = prediction.batch.boxes[:, 0]
    first = int((images == 1).nonzero()[0])
    logits = prediction.logits.clone()
    logits[first, 2, 3, 4] = logits[-1, 0, 0, 0] = value
    row = prediction.batch.rows[1]
    name = int(dataset.index.people(row).annotation_ids[prediction.batch.numbers[first]])
    message = (
        rf"image {int(dataset.index.image_ids[row])}, annotations {name}: the head's logits are NaN or infinite, expected finite "
        rf"numbers; this batch has 2 such ROIs of {len(images)}, in 2 images\. The weights have diverged .*evaluate\.checkpoint.*"
        r"`roiseg cache verify`"
    )
    with pytest.raises(PredictionError, match=message):
        next(measure(replace(prediction, logits=logits), dataset))


def test_many_answers_that_arent_numbers(project: Project, answered: list[Prediction]) -> None:
    prediction, dataset = answered[0], project.open("val")
    batch = prediction.batch
    crowd_of = replace(batch, numbers=np.zeros(12, dtype=np.int64), boxes=torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]]).repeat(12, 1))
    with pytest.raises(PredictionError, match=r"annotations (\d+, ){9}\d+ and 2 more: .* 12 such ROIs of 12, in 1 images"):
        next(measure(replace(prediction, batch=crowd_of, logits=torch.full((12, 3, 2, 2), torch.nan)), dataset))


def test_answers_about_detected_boxes_that_arent_numbers(project: Project, answered: list[Prediction]) -> None:
    dataset = project.open("val")
    further = torch.tensor([[0.0, 0.1, 0.1, 0.5, 0.5], [1.0, 0.1, 0.1, 0.5, 0.5], [1.0, 0.2, 0.2, 0.7, 0.8]])
    logits = torch.zeros(3, 3, 2, 2)
    prediction = replace(answered[0], further=further, further_logits=logits)
    assert list(measure(prediction, dataset))
    logits[2, 0, 0, 1] = torch.inf
    image_id = int(dataset.index.image_ids[prediction.batch.rows[1]])
    with pytest.raises(
        PredictionError, match=rf"image {image_id}, detected boxes 1: the head's logits .* 1 such ROIs of 3, in 1 images"
    ):
        next(measure(prediction, dataset))
