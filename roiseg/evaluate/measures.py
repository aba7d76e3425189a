"""From a head's answer to the rows of `RoiTable`, and the masks in the image that COCO results are made of.

Symbols: R ROIs, r of one image, (h, w) cells of the mask, (H, W) image size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from roiseg.classes import TARGET
from roiseg.dataset import RoiDataset
from roiseg.errors import PredictionError
from roiseg.evaluate.boundary import crop_boundaries, image_boundary
from roiseg.evaluate.confusion import roi_confusions
from roiseg.evaluate.infer import Prediction
from roiseg.evaluate.separation import separation
from roiseg.evaluate.table import RoiTable
from roiseg.geometry import Floats, clip_boxes
from roiseg.index import ImagePeople
from roiseg.placed import Pasted, cut_out, paste_target
from roiseg.types import HW

BORDER_PX = 1.0
"""A box that comes this near to the border of the image counts as truncated."""

IDS_TOLD = 10
"""Ids that a message names."""


@dataclass(frozen=True)
class ImageMeasures:
    """What is measured at the size of an image.

    Attributes:
        image_hw: (H, W).
        predicted: r masks in the image.
        boundary: (r, 2) int64, see `RoiTable.boundary_image`.
        separation: (r, 2) int64, see `RoiTable.separation`.
    """

    image_hw: HW
    predicted: Sequence[Pasted]
    boundary: NDArray[np.int64]
    separation: NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """An image's ROIs.

    Attributes:
        table: their r rows.
        image: their masks in the image, in the order of the rows.
    """

    table: RoiTable
    image: ImageMeasures


def image_measures(
    people: ImagePeople, numbers: NDArray[np.int64], rois_image: Floats, probabilities: NDArray[np.float32]
) -> ImageMeasures:
    """Bring the masks of an image to its size and compare them with the annotated ones.

    Args:
        people: everybody in the image.
        numbers: (r,) positions of the people that the ROIs are about, each once.
        rois_image: (r, 4) xyxy, image frame.
        probabilities: (r, 3, h, w), softmaxed.
    """
    hw = people.image_hw
    corners = np.array([[0.0, 0.0, hw[1], hw[0]]])
    outlines = [people.segmentations[number] for number in numbers.tolist()]
    annotated = [cut_out(item.rasterise(item.resize.boxes_to_unit(corners)[0], hw)) for item in outlines]
    predicted = [paste_target(values, roi, hw) for values, roi in zip(probabilities, rois_image, strict=True)]
    boundary = [image_boundary(found.placed, truth, hw) for found, truth in zip(predicted, annotated, strict=True)]
    return ImageMeasures(
        hw,
        predicted,
        np.array(boundary, dtype=np.int64).reshape(-1, 2),
        separation(annotated, predicted, people.annotation_ids[numbers], hw),
    )


def truncated(boxes_image: Floats, image_hw: HW) -> NDArray[np.bool_]:
    """Whether boxes (r, 4) xyxy, image frame, come within `BORDER_PX` of the border of an image (H, W)."""
    far = np.array([image_hw[1], image_hw[0]]) - BORDER_PX
    return np.asarray((boxes_image[:, :2] <= BORDER_PX).any(axis=1) | (boxes_image[:, 2:] >= far).any(axis=1))


def measure(prediction: Prediction, dataset: RoiDataset) -> Iterator[Measured]:
    """The rows and masks of a batch, image by image, in the order of its ROIs.

    Args:
        prediction: answers for people as annotated, each once.
        dataset: that the batch is from.

    Raises:
        PredictionError: a logit isn't a finite number.
    """
    check_logits(prediction, dataset)
    batch, classes = prediction.batch, prediction.classes
    labels, probabilities = batch.targets.labels.numpy(), prediction.logits.softmax(dim=1).numpy()
    boxes = batch.boxes.double().numpy()
    for place, row in enumerate(batch.rows):
        chosen = boxes[:, 0] == place
        people, resize, numbers = dataset.index.people(row), dataset.index.resize(row), batch.numbers[chosen]
        image = image_measures(people, numbers, resize.boxes_to_image(boxes[chosen, 1:]), probabilities[chosen])
        # What the unit frame leaves of a whole number is its last digits.
        boxes_image = clip_boxes(resize.boxes_to_image(people.boxes[numbers]).round(6), people.image_hw)
        table = RoiTable(
            image_ids=np.full(len(numbers), people.image_id, dtype=np.int64),
            annotation_ids=people.annotation_ids[numbers],
            boxes_image=boxes_image,
            areas=people.areas[numbers],
            truncated=truncated(boxes_image, people.image_hw),
            confusions=roi_confusions(classes[chosen], labels[chosen]),
            boundary_crop=crop_boundaries(classes[chosen] == TARGET, labels[chosen] == TARGET),
            boundary_image=image.boundary,
            separation=image.separation,
            scores=np.array([item.score for item in image.predicted], dtype=np.float64),
        )
        yield Measured(table, image)


def check_logits(prediction: Prediction, dataset: RoiDataset) -> None:
    """See that a head's answers are numbers, those about boxes that aren't annotated too.

    Raises:
        PredictionError: some aren't.
    """
    batch = prediction.batch
    for boxes, logits in ((batch.boxes, prediction.logits), (prediction.further, prediction.further_logits)):
        broken = ~torch.isfinite(logits).flatten(1).all(dim=1).numpy()
        if not broken.any():
            continue
        images = boxes[:, 0].numpy().astype(np.int64)
        first = images[broken.argmax()]
        people = dataset.index.people(batch.rows[first])
        own = broken & (images == first)
        who = (
            f"annotations {_told(people.annotation_ids[batch.numbers[own]].tolist())}"
            if boxes is batch.boxes
            else f"detected boxes {_told(np.flatnonzero(own[images == first]).tolist())}"
        )
        rois, where = f"{int(broken.sum())} such ROIs of {len(broken)}", f"{len(np.unique(images[broken]))} images"
        raise PredictionError(
            f"image {people.image_id}, {who}: the head's logits are NaN or infinite, expected finite numbers; this batch has "
            f"{rois}, in {where}. The weights have diverged (set evaluate.checkpoint to an earlier one, or train with a lower "
            "train.lr) or the features are damaged (see `roiseg cache verify`)"
        )


def _told(ids: Sequence[int]) -> str:
    """The first ids of many."""
    more = f" and {len(ids) - IDS_TOLD} more" if len(ids) > IDS_TOLD else ""
    return ", ".join(str(number) for number in ids[:IDS_TOLD]) + more
