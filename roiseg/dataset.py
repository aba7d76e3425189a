"""Images with people, their cached features, and freshly rasterised ROI targets. Nothing but the index is held.

Symbols: R ROIs, r of one image, (h, w) cells of the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from roiseg.cache.source import FeatureSource
from roiseg.geometry import Floats, roi_boxes
from roiseg.index import ImagePeople, Index
from roiseg.masks import label_distances, roi_labels
from roiseg.params import Section
from roiseg.types import HW, MIRRORED, PLAIN, View


class DatasetParams(Section):
    """Section `dataset`."""

    roi_padding: float = Field(ge=0, le=2)


@dataclass(frozen=True)
class Targets:
    """What a loss compares R ROIs with.

    Attributes:
        labels: (R, h, w) int64 of 0, 1, 2.
        boundary: (R, h, w) float32, mask pixels to the nearest border between labels.
        target: (R, h, w) float32, mask pixels to the nearest target pixel.
        non_target: (R, h, w) float32, mask pixels to the nearest pixel of another person.
    """

    labels: Tensor
    boundary: Tensor
    target: Tensor
    non_target: Tensor

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        moved = (item.to(device, non_blocking=True) for item in (self.labels, self.boundary, self.target, self.non_target))
        return type(self)(*moved)


@dataclass(frozen=True)
class ImageSample:
    """Some ROIs of one image, in numpy.

    Attributes:
        row: row in the index and the store.
        numbers: (r,) positions of the people in the image, see `ImagePeople`.
        boxes: (r, 4) xyxy, unit frame: the ROIs.
        labels: (r, h, w) uint8.
        distances: (3, r, h, w) float32: boundary, target, non-target.
        view: which way round the image is seen; boxes, labels and distances are those of that view.
    """

    row: int
    numbers: NDArray[np.int64]
    boxes: Floats
    labels: NDArray[np.uint8]
    distances: NDArray[np.float32]
    view: View = PLAIN

    def mirrored(self) -> "ImageSample":
        """The same ROIs in the mirrored image."""
        boxes = np.stack([1 - self.boxes[:, 2], self.boxes[:, 1], 1 - self.boxes[:, 0], self.boxes[:, 3]], axis=1)
        return ImageSample(self.row, self.numbers, boxes, self.labels[..., ::-1], self.distances[..., ::-1], MIRRORED)


class RoiDataset:
    """Images with at least one ROI, their cached features, and targets rasterised for the very boxes that are asked for."""

    def __init__(self, index: Index, store: FeatureSource, params: DatasetParams, layers: Sequence[str], mask_hw: HW) -> None:
        """Join an index and a store.

        Args:
            index: tables of the split.
            store: features of the same images in the same order.
            params: section `dataset`.
            layers: layers that the head reads.
            mask_hw: (h, w).

        Raises:
            StoreMismatchError: the store lacks a layer, or holds other images.
        """
        store.check_rows(index.image_ids, "the index")
        store.check_layers(layers)
        self.index, self.store, self.params = index, store, params
        self.layers, self.mask_hw = tuple(layers), mask_hw
        self.rows = np.flatnonzero(index.rois_per_image > 0).astype(np.int64)

    def read_by(self, layers: Sequence[str], mask_hw: HW) -> "RoiDataset":
        """The same images for another head.

        Args:
            layers: layers that it reads.
            mask_hw: (h, w).

        Raises:
            StoreMismatchError: the store lacks a layer.
        """
        return RoiDataset(self.index, self.store, self.params, layers, mask_hw)

    def whole_sample(self, row: int) -> ImageSample:
        """All ROIs of an image as they are annotated."""
        people = self.index.people(row)
        return self.rasterised(people, people.roi_numbers, roi_boxes(people.boxes[people.roi_numbers], self.params.roi_padding))

    def rasterised(self, people: ImagePeople, numbers: NDArray[np.int64], rois: Floats) -> ImageSample:
        """ROIs with the targets that belong to just these boxes.

        Args:
            people: everybody in the image.
            numbers: (r,) positions of the people that the ROIs are about; the same person may have several.
            rois: (r, 4) xyxy, unit frame.
        """
        labels = np.zeros((len(numbers), *self.mask_hw), dtype=np.uint8)
        distances = np.zeros((3, len(numbers), *self.mask_hw), dtype=np.float32)
        for position, (number, roi) in enumerate(zip(numbers.tolist(), rois, strict=True)):
            labels[position] = roi_labels(roi, people.segmentations[number], people.others_in(roi, number), self.mask_hw)
            found = label_distances(labels[position])
            distances[:, position] = found.boundary, found.target, found.non_target
        return ImageSample(people.row, numbers, rois, labels, distances)
