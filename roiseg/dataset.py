"""Images with people, their cached features, and freshly rasterised ROI targets. Nothing but the index is held.

Symbols: R ROIs, r of one image, (h, w) cells of the mask, (H, W) those of a grid over the whole network input.
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
from roiseg.geometry import Floats, cells_inside, roi_boxes
from roiseg.index import ImagePeople, Index
from roiseg.masks import frame_labels, label_distances, roi_labels
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
        frames: (2, R, H, W) uint8, see `ImageSample`; None where no term of the loss looks beyond the ROI.
    """

    labels: Tensor
    boundary: Tensor
    target: Tensor
    non_target: Tensor
    frames: Tensor | None = None

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        boundary, target, non_target = (
            item.to(device, non_blocking=True) for item in (self.boundary, self.target, self.non_target)
        )
        frames = None if self.frames is None else self.frames.to(device, non_blocking=True)
        return type(self)(self.labels.to(device, non_blocking=True), boundary, target, non_target, frames)


@dataclass(frozen=True)
class ImageSample:
    """Some ROIs of one image, in numpy.

    Attributes:
        row: row in the index and the store.
        numbers: (r,) positions of the people in the image, see `ImagePeople`.
        boxes: (r, 4) xyxy, unit frame: the ROIs.
        labels: (r, h, w) uint8.
        distances: (3, r, h, w) float32: boundary, target, non-target.
        view: which way round the image is seen; all others are those of that view.
        frames: (2, r, H, W) uint8 over the whole network input: labels, and 1 where the centre of a cell lies in the ROI, else 0;
            None where nobody asked for it.
    """

    row: int
    numbers: NDArray[np.int64]
    boxes: Floats
    labels: NDArray[np.uint8]
    distances: NDArray[np.float32]
    view: View = PLAIN
    frames: NDArray[np.uint8] | None = None

    def mirrored(self) -> "ImageSample":
        """The same ROIs in the mirrored image."""
        boxes = np.stack([1 - self.boxes[:, 2], self.boxes[:, 1], 1 - self.boxes[:, 0], self.boxes[:, 3]], axis=1)
        frames = None if self.frames is None else self.frames[..., ::-1]
        return ImageSample(self.row, self.numbers, boxes, self.labels[..., ::-1], self.distances[..., ::-1], MIRRORED, frames)


class RoiDataset:
    """Images with at least one ROI, their cached features, and targets rasterised for the very boxes that are asked for."""

    def __init__(
        self,
        index: Index,
        store: FeatureSource,
        params: DatasetParams,
        layers: Sequence[str],
        mask_hw: HW,
        frame_hw: HW | None = None,
    ) -> None:
        """Join an index and a store.

        Args:
            index: tables of the split.
            store: features of the same images in the same order.
            params: section `dataset`.
            layers: layers that the head reads.
            mask_hw: (h, w).
            frame_hw: (H, W), for targets of the whole network input too; None: without.

        Raises:
            StoreMismatchError: the store lacks a layer, or holds other images.
        """
        store.check_rows(index.image_ids, "the index")
        store.check_layers(layers)
        self.index, self.store, self.params = index, store, params
        self.layers, self.mask_hw, self.frame_hw = tuple(layers), mask_hw, frame_hw
        self.rows = np.flatnonzero(index.rois_per_image > 0).astype(np.int64)

    def read_by(self, layers: Sequence[str], mask_hw: HW, frame_hw: HW | None = None) -> "RoiDataset":
        """The same images for another head.

        Args:
            layers: layers that it reads.
            mask_hw: (h, w).
            frame_hw: (H, W), for targets of the whole network input too; None: without.

        Raises:
            StoreMismatchError: the store lacks a layer.
        """
        return RoiDataset(self.index, self.store, self.params, layers, mask_hw, frame_hw)

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
        return ImageSample(people.row, numbers, rois, labels, distances, frames=self._frames(people, numbers, rois))

    def _frames(self, people: ImagePeople, numbers: NDArray[np.int64], rois: Floats) -> NDArray[np.uint8] | None:
        if self.frame_hw is None:
            return None
        labels = frame_labels(people.segmentations, numbers.tolist(), self.frame_hw)
        return np.stack([labels, cells_inside(rois, self.frame_hw).astype(np.uint8)])
