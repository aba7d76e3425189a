"""Batches of cached features and freshly rasterised ROI targets.

Batches are image-centric: the features of an image are read once for all its ROIs. Nothing but the index is held.

Symbols: B images, R ROIs of them, (h, w) cells of the mask.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from roiseg.cache.reader import FeatureStore
from roiseg.geometry import Floats, jitter_boxes, roi_boxes
from roiseg.index import ImagePeople, Index
from roiseg.masks import label_distances, roi_labels
from roiseg.params import Section
from roiseg.types import HW


class DatasetParams(Section):
    """Section `dataset`."""

    roi_padding: float = Field(ge=0, le=2)
    max_rois_per_image: int = Field(ge=1)
    jitter_centre: float = Field(ge=0, le=1)
    jitter_scale: float = Field(ge=0, lt=1)


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
    """One image and some of its ROIs, in numpy.

    Attributes:
        row: row in the index and the store.
        features: layer -> (C, H, W) of the stored type.
        numbers: (r,) positions of the people in the image, see `ImagePeople`.
        boxes: (r, 4) xyxy, unit frame: the ROIs.
        labels: (r, h, w) uint8.
        distances: (3, r, h, w) float32: boundary, target, non-target.
    """

    row: int
    features: Mapping[str, NDArray[np.generic]]
    numbers: NDArray[np.int64]
    boxes: Floats
    labels: NDArray[np.uint8]
    distances: NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """B images and R ROIs of them.

    Attributes:
        rows: B rows of the index.
        numbers: R positions of the people in their images.
        features: layer -> (B, C, H, W) of the stored type.
        boxes: (R, 5) float32 of image number in the batch and xyxy in the unit frame.
        targets: of the R ROIs.
    """

    rows: Sequence[int]
    numbers: NDArray[np.int64]
    features: Mapping[str, Tensor]
    boxes: Tensor
    targets: Targets


class RoiDataset:
    """Images with at least one ROI, their cached features, and targets rasterised for the very boxes that are asked for."""

    def __init__(self, index: Index, store: FeatureStore, params: DatasetParams, layers: Sequence[str], mask_hw: HW) -> None:
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

    def training_sample(self, row: int, rng: np.random.Generator) -> ImageSample:
        """At most `max_rois_per_image` ROIs of an image, drawn and jittered by `rng`."""
        people = self.index.people(row)
        numbers = people.roi_numbers
        if len(numbers) > self.params.max_rois_per_image:
            numbers = np.sort(rng.permutation(numbers)[: self.params.max_rois_per_image])
        boxes = jitter_boxes(people.boxes[numbers], self.params.jitter_centre, self.params.jitter_scale, rng)
        return self._sample(people, numbers, boxes)

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
        return ImageSample(people.row, self.store.read(people.row, self.layers), numbers, rois, labels, distances)


def collate(samples: Sequence[ImageSample]) -> Batch:
    """Samples as one batch, ROIs in the order of their images."""
    counts = [len(sample.numbers) for sample in samples]
    image = np.repeat(np.arange(len(samples)), counts)[:, None]
    boxes = np.concatenate([image, np.concatenate([sample.boxes for sample in samples])], axis=1)
    boundary, target, non_target = np.concatenate([sample.distances for sample in samples], axis=1)
    targets = Targets(
        torch.from_numpy(np.concatenate([sample.labels for sample in samples]).astype(np.int64)),
        torch.from_numpy(boundary),
        torch.from_numpy(target),
        torch.from_numpy(non_target),
    )
    features = {name: torch.from_numpy(np.stack([sample.features[name] for sample in samples])) for name in samples[0].features}
    numbers = np.concatenate([sample.numbers for sample in samples])
    return Batch([sample.row for sample in samples], numbers, features, torch.from_numpy(boxes.astype(np.float32)), targets)


def training_batches(
    dataset: RoiDataset, *, seed: int, epoch: int, images_per_batch: int, threads: int, ahead: int
) -> Iterator[Batch]:
    """One epoch in a seeded order; draws depend on seed, epoch and image only, never on threads.

    Args:
        dataset: where samples come from.
        seed: of the run.
        epoch: counted from 1.
        images_per_batch: B; the last batch may have fewer.
        threads: loading threads.
        ahead: batches prepared before they are asked for.
    """
    order = np.random.default_rng([seed, epoch]).permutation(dataset.rows)
    parts = [order[start : start + images_per_batch].tolist() for start in range(0, len(order), images_per_batch)]

    def load(part: list[int]) -> Batch:
        draws = (np.random.default_rng([seed, epoch, row]) for row in part)
        return collate([dataset.training_sample(row, rng) for row, rng in zip(part, draws, strict=True)])

    return _prefetch(load, parts, threads, ahead)


def whole_batches(dataset: RoiDataset, *, images_per_batch: int, threads: int, ahead: int) -> Iterator[Batch]:
    """Every image that has ROIs, in row order, with all its ROIs as annotated."""
    rows = dataset.rows.tolist()
    parts = [rows[start : start + images_per_batch] for start in range(0, len(rows), images_per_batch)]
    return _prefetch(lambda part: collate([dataset.whole_sample(row) for row in part]), parts, threads, ahead)


def _prefetch(load: Callable[[list[int]], Batch], parts: Sequence[list[int]], threads: int, ahead: int) -> Iterator[Batch]:
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Batch]] = deque()
        remaining = iter(parts)
        try:
            for part in remaining:
                waiting.append(pool.submit(load, part))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def dequantise(features: Mapping[str, Tensor], scales: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Stored features on a device as float32.

    Args:
        features: layer -> (B, C, H, W) float16 or int8.
        scales: layer -> (C,) float32 for int8 layers, value = q * scale.
        device: where to; only stored bytes cross the bus.
    """
    moved = {name: values.to(device, non_blocking=True).float() for name, values in features.items()}
    return {
        name: values * scales[name].to(device).view(1, -1, 1, 1) if name in scales else values for name, values in moved.items()
    }
