"""Rough boxes, the windows around them, and where the true edges lie in those. Nothing but the index and the boxes is held.

The order of things is that of spec 21.3: jitter, clip, buffer, clip, and the truth seen from the window. All boxes are in the share
frame (`roiseg.snapper.windows`) until a batch is made, so that clipping to [0, 1] is clipping to the image.

Symbols: B images, r boxes of one image, R of a batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roiseg.batches import Features, Loading, batch_of, loaded_batches
from roiseg.cache.source import FeatureSource
from roiseg.geometry import Floats, jitter_boxes, paired_box_iou
from roiseg.index import Index
from roiseg.objects import ImageObjects, Objects
from roiseg.snapper.params import ExtremeParams, JitterParams, SnapDataParams
from roiseg.snapper.windows import into_windows, share_to_unit, to_share, windows_around
from roiseg.types import MIRRORED, PLAIN, View


@dataclass(frozen=True)
class SnapSample:
    """Boxes of one image; all (r, 4) xyxy, share frame, of that view.

    Attributes:
        row: row in the index and the store.
        view: which way round the image is seen.
        rough: as jittered and clipped.
        truth: as annotated.
        windows: what is looked at.
        weights: (r,) of the boxes in the loss.
        annotation_ids: (r,).
    """

    row: int
    view: View
    rough: Floats
    truth: Floats
    windows: Floats
    weights: Floats
    annotation_ids: NDArray[np.int64]

    def mirrored(self) -> "SnapSample":
        """The same boxes in the mirrored image."""
        rough, truth, windows = (mirror_boxes(boxes) for boxes in (self.rough, self.truth, self.windows))
        return replace(self, view=MIRRORED, rough=rough, truth=truth, windows=windows)


@dataclass(frozen=True)
class SnapBatch:
    """R boxes of B images; `features` hold until the next batch is asked for.

    Attributes:
        rows: B rows of the index.
        features: layer -> (B, C, H, W) of the stored type.
        windows: (R, 9) float32 of image number in the batch, the window's xyxy and the rough box's, unit frame.
        targets: (R, 4) float32 true edges, window frame.
        weights: (R,) float32.
        samples: the B samples.
        counted: False for a batch of a process that has no image left for it and computes one of another's, which must not weigh.
    """

    rows: Sequence[int]
    features: Mapping[str, Tensor]
    windows: Tensor
    targets: Tensor
    weights: Tensor
    samples: Sequence[SnapSample]
    counted: bool = True

    @property
    def size(self) -> int:
        """R, what the losses of the batch are means over."""
        return len(self.windows)


def mirror_boxes(boxes: Floats) -> Floats:
    """Boxes (R, 4) xyxy of the share or unit frame in the mirrored image."""
    return np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1)


class SnapDataset:
    """Images with at least one box that is large enough, and their cached features."""

    def __init__(self, index: Index, objects: Objects, store: FeatureSource, layers: Sequence[str], params: SnapDataParams) -> None:
        """Join an index, boxes and a store.

        Args:
            index: tables of the split.
            objects: boxes of the same split.
            store: features of the same images in the same order.
            layers: what is read of each image.
            params: sub-section `snapper.data`.

        Raises:
            StoreMismatchError: the store lacks a layer, or holds other images.
        """
        store.check_rows(index.image_ids, "the index")
        store.check_layers(layers)
        self.index, self.objects, self.store, self.layers, self.params = index, objects, store, tuple(layers), params
        self.rows = objects.rows

    def whole_sample(self, row: int) -> SnapSample:
        """All boxes of an image with the rough boxes of validation, which are the same whatever else is drawn or left out."""
        found = self.objects.of(row)
        truth = to_share(found.boxes_image, self.index.resize(row).image_hw)
        # Seeds are not negative, ids may be.
        seeds = [[self.params.val_seed, number % 2**64] for number in found.annotation_ids.tolist()]
        drawn = [
            roughen(box[None], self.params.jitter, np.random.default_rng(seed)) for box, seed in zip(truth, seeds, strict=True)
        ]
        rough = np.concatenate([np.zeros((0, 4)), *drawn])
        windows = windows_around(rough, self.params.val_buffer)
        return SnapSample(row, PLAIN, rough, truth, windows, np.ones(len(truth)), found.annotation_ids)

    def drawn_sample(self, row: int, rng: np.random.Generator) -> SnapSample:
        """Some boxes of an image as training sees them, plain view; never none.

        Args:
            row: one of `rows`.
            rng: source of the draws.
        """
        found = _some(self.objects.of(row), self.params.boxes_per_image, rng)
        truth = to_share(found.boxes_image, self.index.resize(row).image_hw)
        rough = roughen(truth, self.params.jitter, rng)
        windows = windows_around(rough, rng.uniform(*self.params.buffer, len(rough)))
        weights = extreme_weights(rough, truth, self.params.extreme)
        kept = weights > 0
        if not kept.any():
            # An image that has lost all its boxes brings the best of them, without a say: no batch is empty.
            kept[paired_box_iou(rough, truth).argmax()] = True
        parts = (rough[kept], truth[kept], windows[kept], weights[kept], found.annotation_ids[kept])
        return SnapSample(row, PLAIN, *parts)

    def unit_windows(self, sample: SnapSample) -> Floats:
        """Windows and rough boxes (r, 8) of a sample, unit frame of its view: the network input is mirrored, padding and all."""
        resize = self.index.resize(sample.row)
        if sample.view == PLAIN:
            found = [share_to_unit(boxes, resize) for boxes in (sample.windows, sample.rough)]
        else:
            found = [mirror_boxes(share_to_unit(mirror_boxes(boxes), resize)) for boxes in (sample.windows, sample.rough)]
        return np.concatenate(found, axis=1)

    def join(self, samples: Sequence[SnapSample], features: Features, counted: bool = True) -> SnapBatch:
        """Samples as one batch, boxes in the order of their images.

        Args:
            samples: of B images.
            features: layer -> (B, C, H, W).
            counted: see `SnapBatch`.
        """
        image = np.repeat(np.arange(len(samples)), [len(sample.truth) for sample in samples])[:, None]
        windows = np.concatenate([image, np.concatenate([self.unit_windows(sample) for sample in samples])], axis=1)
        targets = np.concatenate([into_windows(sample.truth, sample.windows) for sample in samples])
        weights = np.concatenate([sample.weights for sample in samples])
        found = [torch.from_numpy(values.astype(np.float32)) for values in (windows, targets, weights)]
        return SnapBatch([sample.row for sample in samples], dict(features), found[0], found[1], found[2], samples, counted)


def _some(found: ImageObjects, count: int, rng: np.random.Generator) -> ImageObjects:
    """At most so many boxes of an image, in their order."""
    if len(found.annotation_ids) <= count:
        return found
    chosen = np.sort(rng.choice(len(found.annotation_ids), count, replace=False))
    return ImageObjects(found.row, found.annotation_ids[chosen], found.boxes_image[chosen])


def roughen(truth: Floats, jitter: JitterParams, rng: np.random.Generator) -> Floats:
    """Rough boxes (r, 4) of true ones, share frame: jittered, then clipped to the image."""
    return jitter_boxes(truth, jitter.centre, jitter.scale, rng, shared=jitter.ratios == "shared")


def extreme_weights(rough: Floats, truth: Floats, extreme: ExtremeParams) -> Floats:
    """Weights (r,) of boxes in the loss: 1, but less, or 0, where the rough box is far off.

    Args:
        rough: (r, 4), share frame, as jittered and clipped.
        truth: (r, 4), share frame.
        extreme: sub-section `snapper.data.extreme`.
    """
    if extreme.policy == "keep":
        return np.ones(len(rough))
    far = paired_box_iou(rough, truth) < extreme.min_iou
    return np.where(far, 0.0 if extreme.policy == "drop" else extreme.weight, 1.0)


def single_batch(dataset: SnapDataset, row: int) -> SnapBatch:
    """One image with all its boxes, in memory of its own."""
    return batch_of(dataset, [dataset.whole_sample(row)], dataset.join)


def whole_batches(dataset: SnapDataset, loading: Loading, rows: Sequence[int] | None = None) -> Iterator[SnapBatch]:
    """Images with all their boxes and the rough boxes of validation, in row order.

    Args:
        dataset: whose images.
        loading: batch size, threads; of several processes, each gets its share of the images.
        rows: which images; None: every one that has boxes.
    """
    chosen = loading.share(dataset.rows.tolist() if rows is None else rows)
    return loaded_batches(dataset, replace(loading, rank=0, processes=1), chosen, dataset.whole_sample, dataset.join)


def training_batches(dataset: SnapDataset, loading: Loading, *, seed: int, epoch: int) -> Iterator[SnapBatch]:
    """One epoch in a seeded order, whatever the number of threads and processes.

    Args:
        dataset: what is drawn from.
        loading: batch size, threads, share.
        seed: of the run.
        epoch: counted from 1.

    Raises:
        StoreMismatchError: the store lacks a view.
    """
    views = dataset.store.views if dataset.params.views is None else tuple(dict.fromkeys(dataset.params.views))
    dataset.store.check_views(views)
    order = np.random.default_rng([seed, epoch]).permutation(dataset.rows).tolist()

    def draw(row: int) -> SnapSample:
        rng = np.random.default_rng([seed, epoch, row])
        # Drawn where there is but one view, too: the same boxes, whichever views there are.
        view = views[int(rng.integers(len(views)))]
        sample = dataset.drawn_sample(row, rng)
        return sample if view == PLAIN else sample.mirrored()

    return loaded_batches(dataset, loading, order, draw, dataset.join)
