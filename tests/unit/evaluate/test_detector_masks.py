"""Tests of roiseg.evaluate.detector_masks: detected boxes go the way of annotated ones, and every image counts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from data_factory import PERSON_ID
from head_factory import fresh_head
from pycocotools import mask as coco_mask
from store_factory import Project, shared_project
from torch import Tensor, nn

from roiseg.batches import Loading, dequantise, loaded_batches
from roiseg.dataset import RoiDataset
from roiseg.evaluate.coco_eval import MaskAp
from roiseg.evaluate.coco_truth import Truth
from roiseg.evaluate.detections import Detections
from roiseg.evaluate.detector_masks import DetectedMasks, detected_masks, rows_to_read
from roiseg.evaluate.infer import predictions
from roiseg.evaluate.pictures import target_mask
from roiseg.evaluate.results import check_results, mask_result, new_results, read_results
from roiseg.geometry import Floats
from roiseg.nn.outputs import HeadOutput

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def detections(boxes: list[Floats], score: float = 0.5) -> Detections:
    """These boxes (k, 4) of each row."""
    starts = np.cumsum([0, *(len(item) for item in boxes)])
    together = np.concatenate(boxes)
    return Detections(starts, together, np.full(len(together), score), {})


def annotated(dataset: RoiDataset) -> Detections:
    """The boxes of all people with an ROI, as if a detector had found just them."""
    people = [dataset.index.people(row) for row in range(len(dataset.index))]
    return detections([item.boxes[item.roi_numbers] for item in people])


def run(head: nn.Module, dataset: RoiDataset, found: Detections, images: int = 2) -> list[DetectedMasks]:
    """As the stage does it: one reading of each batch."""
    rows = rows_to_read(dataset, found).tolist()
    scales = {name: torch.from_numpy(values) for name, values in dataset.store.scales.items()}
    parts = []
    for batch in loaded_batches(dataset, Loading(images, 1, 1), rows, dataset.whole_sample):
        features = dequantise(batch.features, scales, CPU)
        parts.append(detected_masks(head, features, batch.rows, found, dataset.params.roi_padding))
    return parts


@pytest.mark.parametrize("padding", [0.0, 0.3])
def test_annotated_boxes_give_what_their_rois_give(project: Project, padding: float) -> None:
    dataset = project.open("val", roi_padding=padding)
    head = fresh_head(project.sections().model, dataset.store.specs)
    expected = list(predictions(head, dataset, CPU, Loading(2, 1, 1)))
    found = run(head, dataset, annotated(dataset))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.logits, other.logits, atol=1e-6, rtol=1e-6)
        np.testing.assert_allclose(one.rois, other.batch.boxes[:, 1:].numpy(), atol=1e-6)
        assert list(one.rows) == list(other.batch.rows)
        assert one.images.tolist() == other.batch.boxes[:, 0].tolist()


class Patchy(nn.Module):
    """Any label anywhere; nothing in the first box."""

    def forward(self, _: Mapping[str, Tensor], boxes: Tensor) -> HeadOutput:
        logits = 3 * torch.randn(len(boxes), 3, 4, 5, generator=torch.Generator().manual_seed(len(boxes)))
        logits[:1, 1] = -9
        return HeadOutput(logits, {})


def test_results_are_masks_of_the_image_and_score_box_times_mask(project: Project) -> None:
    dataset = project.open("val")
    results, expected = [], []
    for part in run(Patchy(), dataset, annotated(dataset)):
        results += list(part.results(dataset, PERSON_ID))
        for place, image in enumerate(part.images.tolist()):
            row = part.rows[image]
            resize = dataset.index.resize(row)
            roi = resize.boxes_to_image(part.rois[place : place + 1])[0]
            mask, confidence = target_mask(part.logits[place].softmax(dim=0), roi, resize.image_hw)
            if mask.any():
                expected.append(mask_result(int(dataset.index.image_ids[row]), PERSON_ID, 0.5 * confidence, mask))
    assert results == expected
    assert len(results) > 5
    assert all(0 < item["score"] < 0.5 for item in results)
    assert all(coco_mask.area(item["segmentation"]) > 0 for item in results), "empty masks are left out"
    assert check_results(Truth(project.people("val")), results) == len(results)


class Sure(nn.Module):
    """One label everywhere."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, _: Mapping[str, Tensor], boxes: Tensor) -> HeadOutput:
        logits = torch.zeros(len(boxes), 3, 4, 5)
        logits[:, self.label] = 20
        return HeadOutput(logits, {})


def test_boxes_without_a_target_pixel_have_no_result(project: Project) -> None:
    dataset = project.open("val")
    for label, wanted in ((0, 0), (1, len(annotated(dataset)))):
        parts = run(Sure(label), dataset, annotated(dataset))
        assert sum(len(list(part.results(dataset, PERSON_ID))) for part in parts) == wanted


def test_images_with_boxes_and_no_roi_are_read_and_count(project: Project, tmp_path: Path) -> None:
    """A box in an image whose people are all too small can be wrong, and an image without boxes misses its people."""
    dataset = project.open("val")
    box = np.array([[0.1, 0.1, 0.6, 0.9]])
    found = detections([box if row in (0, 2) else box[:0] for row in range(len(dataset.index))], 0.9)
    dataset.rows = np.array([1, 2], dtype=np.int64)
    assert rows_to_read(dataset, found).tolist() == [0, 1, 2]
    parts = run(Sure(1), dataset, found, 1)
    assert [len(part.images) for part in parts] == [1, 0, 1]
    assert parts[1].logits.shape == (0, 3, 4, 5)
    results = [item for part in parts for item in part.results(dataset, PERSON_ID)]
    ids = dataset.index.image_ids.tolist()
    assert [item["image_id"] for item in results] == [ids[0], ids[2]]
    with new_results(tmp_path / "results.json") as write:
        for item in results:
            write(item)
    ap = MaskAp(Truth(project.people("val")))
    for row in (0, 1, 2):
        ap.add([ids[row]], [item for item in read_results(tmp_path / "results.json") if item["image_id"] == ids[row]])
    assert ap.figures("")["ar"] <= 2 / len(project.people("val").annotations)
