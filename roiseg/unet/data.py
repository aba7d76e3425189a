"""Whole images with their cached features and masks of everybody in them. Nothing but the index is held.

Symbols: B images, (h, w) cells of the mask.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from roiseg.batches import Features, Loading, batch_of, loaded_batches
from roiseg.cache.source import FeatureSource
from roiseg.classes import Bools
from roiseg.geometry import cells_inside
from roiseg.index import Index
from roiseg.progress import progress
from roiseg.types import HW, IMAGE, MIRRORED, PLAIN, View
from roiseg.unet.augment import Augment, augment_image

FRAME = np.array([0.0, 0.0, 1.0, 1.0])
"""The whole network input, unit frame."""


@dataclass(frozen=True)
class PersonSample:
    """Everybody in one image.

    Attributes:
        row: row in the index and the store.
        mask: (h, w), true on people, of that view.
        view: which way round the image is seen.
    """

    row: int
    mask: Bools
    view: View = PLAIN

    def mirrored(self) -> "PersonSample":
        """The same people in the mirrored image."""
        return PersonSample(self.row, self.mask[:, ::-1], MIRRORED)


@dataclass(frozen=True)
class PersonBatch:
    """B whole images; `features` hold until the next batch is asked for.

    Attributes:
        rows: B rows of the index.
        features: layer -> (B, C, H, W) of the stored type.
        masks: (B, 1, h, w) float32, 1 on people and 0 on background.
        counted: False for a batch of a process that has no image left for it and computes one of another's, which must not weigh.
    """

    rows: Sequence[int]
    features: Mapping[str, Tensor]
    masks: Tensor
    counted: bool = True

    @property
    def size(self) -> int:
        """B, what the losses of the batch are means over."""
        return len(self.masks)


def collate_people(samples: Sequence[PersonSample], features: Features, counted: bool = True) -> PersonBatch:
    """Samples as one batch.

    Args:
        samples: of B images.
        features: layer -> (B, C, H, W).
        counted: see `PersonBatch`.
    """
    masks = np.stack([sample.mask for sample in samples])[:, None].astype(np.float32)
    return PersonBatch([sample.row for sample in samples], dict(features), torch.from_numpy(masks), counted)


class PersonDataset:
    """All images of a split, their cached features, and masks of everybody, also of people too small for an ROI."""

    def __init__(self, index: Index, store: FeatureSource, layers: Sequence[str], mask_hw: HW) -> None:
        """Join an index and a store.

        Args:
            index: tables of the split.
            store: features of the same images in the same order.
            layers: what is read of each image.
            mask_hw: (h, w), cells over the whole network input.

        Raises:
            StoreMismatchError: the store lacks a layer, or holds other images.
        """
        store.check_rows(index.image_ids, "the index")
        store.check_layers(layers)
        self.index, self.store, self.layers, self.mask_hw = index, store, tuple(layers), mask_hw
        self.rows = np.arange(len(index), dtype=np.int64)

    def sample(self, row: int) -> PersonSample:
        """Everybody in an image, rasterised straight at mask size; what a letterbox adds is background."""
        mask = np.zeros(self.mask_hw, dtype=bool)
        for person in self.index.people(row).segmentations:
            mask |= person.rasterise(FRAME, self.mask_hw)
        resize = self.index.resize(row)
        if resize.mode == "letterbox":  # an outline may reach out of its image
            height, width = resize.image_hw
            mask &= cells_inside(resize.boxes_to_unit(np.array([[0.0, 0.0, width, height]])), self.mask_hw)[0]
        return PersonSample(row, mask)


def single_batch(dataset: PersonDataset, row: int) -> PersonBatch:
    """One image, in memory of its own."""
    return batch_of(dataset, [dataset.sample(row)], collate_people)


def whole_batches(dataset: PersonDataset, loading: Loading, rows: Sequence[int] | None = None) -> Iterator[PersonBatch]:
    """Images as they are, in row order.

    Args:
        dataset: whose images.
        loading: batch size, threads; of several processes, each gets its share of the images.
        rows: which images; None: all.
    """
    chosen = loading.share(dataset.rows.tolist() if rows is None else rows)
    return loaded_batches(dataset, replace(loading, rank=0, processes=1), chosen, dataset.sample, collate_people)


class PersonTurns:
    """The turns of an epoch: each image once, in one of the views, its colours changed; whoever loads them.

    Attributes:
        rows: (N,) rows of the images in their order.
    """

    def __init__(self, dataset: PersonDataset, seed: int, epoch: int, views: Sequence[View], augment: Augment) -> None:
        """Draw the order.

        Args:
            dataset: what is drawn from.
            seed: of the run.
            epoch: counted from 1.
            views: one of which is drawn for each image.
            augment: what happens to layer `image`.
        """
        self.rows = np.random.default_rng([seed, epoch]).permutation(dataset.rows)
        self._dataset, self._seed, self._views, self._augment = dataset, [seed, epoch], tuple(views), augment

    def sample(self, turn: int) -> PersonSample:
        """The sample of a place in `rows`."""
        row = int(self.rows[turn])
        rng = np.random.default_rng([*self._seed, row])
        view = self._views[int(rng.integers(len(self._views)))] if len(self._views) > 1 else self._views[0]
        sample = self._dataset.sample(row)
        return sample if view == PLAIN else sample.mirrored()

    def join(self, samples: Sequence[PersonSample], features: Features, counted: bool) -> PersonBatch:
        """Samples as one batch, with the colours of their images changed."""
        for place, sample in enumerate(samples):
            # Another stream than that of the view: the same effects, whichever views there are.
            rng = np.random.default_rng([*self._seed, sample.row, 1])
            augment_image(features[IMAGE][place].numpy(), self._augment, rng)
        return collate_people(samples, features, counted)


def training_batches(
    dataset: PersonDataset,
    loading: Loading,
    *,
    seed: int,
    epoch: int,
    views: Sequence[View] | None,
    augment: Augment,
) -> Iterator[PersonBatch]:
    """One epoch in a seeded order, whatever the number of threads and processes.

    Args:
        dataset: what is drawn from.
        loading: batch size, threads, share.
        seed: of the run.
        epoch: counted from 1.
        views: one of which is drawn for each image: features, image and mask are those of that view; None: all of the store.
        augment: what happens to the colours of layer `image`, and of no other.

    Raises:
        StoreMismatchError: the store lacks a view.
        ValueError: colours are to be changed, and layer `image` isn't read.
    """
    chosen = dataset.store.views if views is None else tuple(dict.fromkeys(views))
    dataset.store.check_views(chosen)
    turns = PersonTurns(dataset, seed, epoch, chosen, augment)
    if augment == "none":
        return loaded_batches(dataset, loading, range(len(turns.rows)), turns.sample, collate_people)
    if IMAGE not in dataset.layers:
        raise ValueError(f"augment {augment!r} changes layer {IMAGE!r}, expected among the layers that are read: {dataset.layers}")
    cv2.setNumThreads(1)  # images are spread over threads already
    return loaded_batches(dataset, loading, range(len(turns.rows)), turns.sample, turns.join)


def person_share(dataset: PersonDataset) -> tuple[int, int]:
    """Pixels of background and of people over a split, image by image; their ratio is what `pos_weight` follows from.

    Returns:
        Background, people; together images * h * w.
    """
    people = 0
    with progress("count pixels of people", len(dataset.rows)) as tick:
        for row in dataset.rows.tolist():
            people += int(dataset.sample(row).mask.sum())
            tick()
    return len(dataset.rows) * dataset.mask_hw[0] * dataset.mask_hw[1] - people, people
