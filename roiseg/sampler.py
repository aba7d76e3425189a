"""What training draws: images, ROIs and boxes. Evaluation draws nothing.

Symbols: N images with ROIs, r ROIs of one image, P people that have one, E extra boxes, T tries of each.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from roiseg.balance import GROUP_NAMES, Balance, crowdedness
from roiseg.batches import Batch, Loading, collate, loaded_batches
from roiseg.dataset import ImageSample, RoiDataset
from roiseg.geometry import Floats, crop_boxes, jitter_boxes, paired_box_iou, roi_boxes
from roiseg.index import ImagePeople
from roiseg.params import Section
from roiseg.shares import RoiShares
from roiseg.types import HW, PLAIN, View

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]

SHARE_EPS = 0.05
"""Added to a class-2 share before it becomes a weight, so that nobody's is 0."""

TRIES = 8
"""Draws of an extra box before it is left out."""


class SamplerParams(Section):
    """Section `sampler`."""

    rois_per_image: int = Field(ge=1)
    jitter_centre: float = Field(ge=0, le=1)
    jitter_scale: float = Field(ge=0, lt=1)
    crop: float = Field(gt=0, le=1)
    extra_rois: int = Field(ge=0)
    extra_jitter: float = Field(ge=0, lt=1)
    extra_iou: float = Field(ge=0, le=1)
    non_target_gamma: float = Field(ge=0, le=10)
    balance: Literal["none", "crowdedness"]
    feature_noise: float = Field(ge=0, allow_inf_nan=False)
    views: Annotated[tuple[View, ...], Field(min_length=1)] | None

    @property
    def needs_shares(self) -> bool:
        """Whether draws depend on the class-2 share of ROIs."""
        return self.non_target_gamma > 0 or self.balance != "none"


class Sampler:
    """Draws the samples of a training split; draws depend on seed, epoch, image, and how often it came up before in that epoch."""

    def __init__(self, dataset: RoiDataset, params: SamplerParams, table: Path) -> None:
        """Set up.

        Args:
            dataset: what is drawn from.
            params: section `sampler`.
            table: `data/rois.parquet`, read where `params.needs_shares`.

        Raises:
            AnnotationError, ParamsError: see `RoiShares.read`.
            StoreMismatchError: the store lacks a view.
        """
        self.dataset, self.params = dataset, params
        self.views = dataset.store.views if params.views is None else tuple(dict.fromkeys(params.views))
        dataset.store.check_views(self.views)
        self._shares = RoiShares.read(table, dataset.index, dataset.params.roi_padding) if params.needs_shares else None
        self._balance = self._balanced(self._shares) if self._shares and params.balance == "crowdedness" else None

    def read_by(self, layers: Sequence[str], mask_hw: HW, frame_hw: HW | None = None) -> "Sampler":
        """The same draws for another head.

        Args:
            layers: layers that it reads.
            mask_hw: (h, w).
            frame_hw: (H, W), see `RoiDataset.read_by`.

        Raises:
            StoreMismatchError: the store lacks a layer.
        """
        other = copy.copy(self)
        other.dataset = self.dataset.read_by(layers, mask_hw, frame_hw)
        return other

    def _balanced(self, shares: RoiShares) -> Balance:
        of_images = shares.of_images(self.dataset.rows)
        balance = Balance(crowdedness(of_images), self._weights(of_images))
        groups = ", ".join(f"{GROUP_NAMES[name]}: {size}" for name, size in zip(balance.names, balance.sizes, strict=True))
        logger.info("balanced epochs: images by class-2 share %s; each at most %d times", groups, balance.most.max(initial=0))
        return balance

    def _weights(self, shares: NDArray[np.float32]) -> Floats:
        return np.asarray((SHARE_EPS + shares.astype(np.float64)) ** self.params.non_target_gamma)

    def epoch_rows(self, seed: int, epoch: int) -> Ints:
        """Rows (N,) of the images of an epoch in their order, whoever loads them.

        Args:
            seed: of the run.
            epoch: counted from 1.
        """
        rng, rows = np.random.default_rng([seed, epoch]), self.dataset.rows
        return rng.permutation(rows if self._balance is None else rows[self._balance.draw(rng)])

    @property
    def most_rois(self) -> Ints:
        """ROIs that an image brings at most, for each of its turns in any epoch, the largest first."""
        rows = self.dataset.rows
        rois = np.minimum(self.dataset.index.rois_per_image[rows], self.params.rois_per_image) + self.params.extra_rois
        return np.sort(rois if self._balance is None else np.repeat(rois, self._balance.most))[::-1]

    def sample(self, row: int, rng: np.random.Generator) -> ImageSample:
        """ROIs of an image in one of the views: at most `rois_per_image` people of it, then the extra boxes.

        Args:
            row: of the index.
            rng: source of the draws; params without effect take none, so that a run is the same with them and without.
        """
        params, padding = self.params, self.dataset.params.roi_padding
        people, weights = self.dataset.index.people(row), self._roi_weights(row)
        numbers = self._chosen(people.roi_numbers, weights, rng)
        rois = roi_boxes(jitter_boxes(people.boxes[numbers], params.jitter_centre, params.jitter_scale, rng), padding)
        if params.crop < 1:
            rois = crop_boxes(rois, params.crop, rng)
        if params.extra_rois and len(numbers):
            owners, boxes = self._extra(people, weights, rng)
            numbers, rois = np.concatenate([numbers, owners]), np.concatenate([rois, roi_boxes(boxes, padding)])
        sample = self.dataset.rasterised(people, numbers, rois)
        view = self.views[int(rng.integers(len(self.views)))] if len(self.views) > 1 else self.views[0]
        return sample if view == PLAIN else sample.mirrored()

    def _roi_weights(self, row: int) -> Floats | None:
        """(P,) what ROIs of an image are drawn by; None: all alike."""
        return self._weights(self._shares.of(row)) if self._shares and self.params.non_target_gamma else None

    def _chosen(self, numbers: Ints, weights: Floats | None, rng: np.random.Generator) -> Ints:
        """At most `rois_per_image` of (P,) people, none twice."""
        count = self.params.rois_per_image
        if len(numbers) <= count:
            return numbers
        if weights is None:
            return np.sort(rng.permutation(numbers)[:count])
        # Those of the largest u^(1/w), by their logarithms: Efraimidis and Spirakis, "Weighted random sampling with a reservoir".
        keys = -rng.exponential(size=len(numbers)) / weights
        return numbers[np.sort(np.argsort(keys, kind="stable")[-count:])]

    def _extra(self, people: ImagePeople, weights: Floats | None, rng: np.random.Generator) -> tuple[Ints, Floats]:
        """Up to E people, some perhaps several times, and for each a box that is near enough to their own."""
        params = self.params
        owners = rng.choice(people.roi_numbers, params.extra_rois, p=None if weights is None else weights / weights.sum())
        own = np.repeat(people.boxes[owners], TRIES, axis=0)  # (E * T, 4)
        tries = jitter_boxes(own, params.extra_jitter, params.extra_jitter, rng)
        good = (paired_box_iou(tries, own) >= params.extra_iou).reshape(-1, TRIES)  # (E, T)
        found = good.any(axis=1)
        first = np.arange(len(owners)) * TRIES + good.argmax(axis=1)
        return owners[found], tries[first[found]]


class Turns:
    """The turns of an epoch: `rows` (N,) of the images in their order, and the sample of each."""

    def __init__(self, sampler: Sampler, seed: int, epoch: int) -> None:
        """Draw the order.

        Args:
            sampler: draws the samples.
            seed: of the run.
            epoch: counted from 1.
        """
        self.rows = sampler.epoch_rows(seed, epoch)
        self._sampler, self._seed = sampler, [seed, epoch]
        self._before = times_before(self.rows)

    def sample(self, turn: int) -> ImageSample:
        """The sample of a place in `rows`; an image that comes up again is drawn anew."""
        row, before = int(self.rows[turn]), int(self._before[turn])
        return self._sampler.sample(row, np.random.default_rng([*self._seed, row, *([before] if before else [])]))


def times_before(rows: Ints) -> Ints:
    """How often the value of each place (N,) stands in the places before it."""
    order = np.argsort(rows, kind="stable")
    ranks = np.empty(len(rows), dtype=np.int64)
    ranks[order] = np.arange(len(rows)) - np.searchsorted(rows[order], rows[order])
    return ranks


def training_batches(sampler: Sampler, loading: Loading, *, seed: int, epoch: int) -> Iterator[Batch]:
    """One epoch in a seeded order, whatever the number of threads and processes.

    Args:
        sampler: where samples come from.
        loading: batch size, threads, share.
        seed: of the run.
        epoch: counted from 1.
    """
    turns = Turns(sampler, seed, epoch)
    return loaded_batches(sampler.dataset, loading, range(len(turns.rows)), turns.sample, collate)
