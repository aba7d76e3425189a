"""Tests of roiseg.evaluate.detector_masks: detected boxes go the way of annotated ones, and every image counts."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from data_factory import PERSON_ID
from head_factory import fresh_head
from store_factory import Project, shared_project
from torch import Tensor, nn

from roiseg.batches import Loading
from roiseg.dataset import RoiDataset
from roiseg.evaluate.coco_truth import Truth
from roiseg.evaluate.detections import Detections
from roiseg.evaluate.detector_masks import detected_results, detected_rois
from roiseg.evaluate.infer import Prediction, predictions
from roiseg.evaluate.pictures import target_mask
from roiseg.evaluate.results import check_results, mask_result
from roiseg.geometry import Floats
from roiseg.nn.outputs import HeadOutput

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def detections(boxes: list[Floats]) -> Detections:
    """These boxes (k, 4) of each row, with scores from 0.5 down."""
    starts = np.cumsum([0, *(len(item) for item in boxes)])
    together = np.concatenate(boxes)
    return Detections(starts, together, 0.5 - np.arange(len(together)) / 100, {})


def annotated(dataset: RoiDataset) -> Detections:
    """The boxes of all people with an ROI, as if a detector had found just them."""
    people = [dataset.index.people(row) for row in range(len(dataset.index))]
    return detections([item.boxes[item.roi_numbers] for item in people])


def run(head: nn.Module, dataset: RoiDataset, found: Detections, images: int = 2) -> list[Prediction]:
    """As the stage does it: one reading of each batch."""
    further = detected_rois(found, dataset.params.roi_padding)
    return list(predictions(head, dataset, CPU, Loading(images, 1, 1), further))


@pytest.mark.parametrize("padding", [0.0, 0.3])
def test_annotated_boxes_give_what_their_rois_give(project: Project, padding: float) -> None:
    dataset = project.open("val", roi_padding=padding)
    head = fresh_head(project.sections().model, dataset.store.specs)
    for part in run(head, dataset, annotated(dataset)):
        torch.testing.assert_close(part.further, part.batch.boxes)
        torch.testing.assert_close(part.further_logits, part.logits, atol=1e-6, rtol=1e-6)


class Patchy(nn.Module):
    """Any label anywhere; nothing in the first box."""

    def forward(self, _: Mapping[str, Tensor], boxes: Tensor) -> HeadOutput:
        logits = 3 * torch.randn(len(boxes), 3, 4, 5, generator=torch.Generator().manual_seed(len(boxes)))
        logits[:1, 1] = -9
        return HeadOutput(logits, {})


def test_results_are_masks_of_the_image_and_score_box_times_mask(project: Project) -> None:
    dataset = project.open("val")
    found = annotated(dataset)
    results, expected, scores = [], [], iter(found.scores.tolist())
    for part in run(Patchy(), dataset, found):
        results += list(detected_results(part, dataset, found, PERSON_ID))
        for place, (image, *roi) in enumerate(part.further.double().tolist()):
            row = part.batch.rows[int(image)]
            resize = dataset.index.resize(row)
            roi_image = resize.boxes_to_image(np.array([roi]))[0]
            mask, confidence = target_mask(part.further_logits[place].softmax(dim=0), roi_image, resize.image_hw)
            score = next(scores)
            if mask.any():
                expected.append(mask_result(int(dataset.index.image_ids[row]), PERSON_ID, score * confidence, mask))
    assert results == expected
    assert 5 < len(results) < len(found), "empty masks are left out"
    assert all(0 < item["score"] < 0.5 for item in results)
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
    found = annotated(dataset)
    for label, wanted in ((0, 0), (1, len(found))):
        parts = run(Sure(label), dataset, found)
        assert sum(len(list(detected_results(part, dataset, found, PERSON_ID))) for part in parts) == wanted


def test_images_with_boxes_and_no_roi_count(project: Project) -> None:
    """A box where everybody is too small for an ROI is right or wrong like any other."""
    dataset = project.open("val")
    box = np.array([[0.1, 0.1, 0.6, 0.9]])
    found = detections([box if row in (0, 2) else box[:0] for row in range(len(dataset.index))])
    dataset.rows = np.array([1, 2], dtype=np.int64)
    results = [item for part in run(Sure(1), dataset, found, 1) for item in detected_results(part, dataset, found, PERSON_ID)]
    ids = dataset.index.image_ids.tolist()
    assert [item["image_id"] for item in results] == [ids[0], ids[2]]
