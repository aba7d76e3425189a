"""Images with people, their cached features, and freshly rasterised ROI targets. Nothing but the index is held.

Symbols: R ROIs, r of one image, (h, w) cells of the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from roiseg.cache.source import FeatureSource
from roiseg.geometry import Floats, jitter_boxes, roi_boxes
from roiseg.index import ImagePeople, Index
from roiseg.masks import label_distances, roi_labels
from roiseg.params import Section
from roiseg.types import HW, MIRRORED, PLAIN, View


class DatasetParams(Section):
    """Section `dataset`."""

    roi_padding: float = Field(ge=0, le=2)
    max_rois_per_image: int = Field(ge=1)
    jitter_centre: float = Field(ge=0, le=1)
    jitter_scale: float = Field(ge=0, lt=1)
    views: Annotated[tuple[View, ...], Field(min_length=1)] | None


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
            StoreMismatchError: the store lacks a layer or a view, or holds other images.
        """
        store.check_rows(index.image_ids, "the index")
        store.check_layers(layers)
        self.views = store.views if params.views is None else tuple(dict.fromkeys(params.views))
        store.check_views(self.views)
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

    def training_sample(self, row: int, rng: np.random.Generator) -> ImageSample:
        """At most `max_rois_per_image` ROIs of an image in one of the views, drawn and jittered by `rng`."""
        people = self.index.people(row)
        numbers = people.roi_numbers
        if len(numbers) > self.params.max_rois_per_image:
            numbers = np.sort(rng.permutation(numbers)[: self.params.max_rois_per_image])
        boxes = jitter_boxes(people.boxes[numbers], self.params.jitter_centre, self.params.jitter_scale, rng)
        sample = self._sample(people, numbers, boxes)
        # A store of one view takes no draw, so that a run on it is the same as ever.
        view = self.views[int(rng.integers(len(self.views)))] if len(self.views) > 1 else self.views[0]
        return sample if view == PLAIN else sample.mirrored()

    def whole_sample(self, row: int) -> ImageSample:
        """All ROIs of an image as they are annotated."""
        people = self.index.people(row)
        return self._sample(people, people.roi_numbers, people.boxes[people.roi_numbers])

    def _sample(self, people: ImagePeople, numbers: NDArray[np.int64], boxes: Floats) -> ImageSample:
        rois = roi_boxes(boxes, self.params.roi_padding)
        labels = np.zeros((len(numbers), *self.mask_hw), dtype=np.uint8)
        distances = np.zeros((3, len(numbers), *self.mask_hw), dtype=np.float32)
        for position, (number, roi) in enumerate(zip(numbers.tolist(), rois, strict=True)):
            labels[position] = roi_labels(roi, people.segmentations[number], people.others_in(roi, number), self.mask_hw)
            found = label_distances(labels[position])
            distances[:, position] = found.boundary, found.target, found.non_target
        return ImageSample(people.row, numbers, rois, labels, distances)
