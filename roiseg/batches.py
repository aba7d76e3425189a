"""Batches of cached features and targets, loaded ahead by threads.

What loads is the same for ROIs and for whole images: the caller says how a sample is drawn and how samples become a batch.
Batches are image-centric: the features of an image are read once for all its ROIs. Features are decoded into a few buffers that go
round, because fresh memory costs as much as decoding into it.

Symbols: B images, R ROIs of them, (h, w) cells of the mask.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roiseg.cache.source import FeatureSource
from roiseg.dataset import ImageSample, RoiDataset, Targets
from roiseg.types import View


@dataclass(frozen=True)
class Batch:
    """B images and R ROIs of them; `features` of `loaded_batches` hold until the next batch is asked for.

    Attributes:
        rows: B rows of the index.
        numbers: R positions of the people in their images.
        features: layer -> (B, C, H, W) of the stored type.
        boxes: (R, 5) float32 of image number in the batch and xyxy in the unit frame.
        targets: of the R ROIs.
        counted: False for a batch of a process that has no image left for it and computes one of another's, which must not weigh.
    """

    rows: Sequence[int]
    numbers: NDArray[np.int64]
    features: Mapping[str, Tensor]
    boxes: Tensor
    targets: Targets
    counted: bool = True

    @property
    def size(self) -> int:
        """R, what the losses of the batch are means over."""
        return len(self.boxes)


class Sample(Protocol):
    """What is loaded of one image."""

    @property
    def row(self) -> int:
        """Row in the index and the store."""

    @property
    def view(self) -> View:
        """Which way round the image is seen."""


class Stored(Protocol):
    """A data set whose samples have features in a store."""

    @property
    def store(self) -> FeatureSource:
        """Where features are read."""

    @property
    def layers(self) -> Sequence[str]:
        """Which of them."""


S = TypeVar("S", bound=Sample)
B = TypeVar("B")
Features = dict[str, Tensor]
Join = Callable[[Sequence[S], Features, bool], B]
"""Samples of B images, layer -> (B, C, H, W) of the stored type, and `counted`, as one batch."""


def feature_buffers(store: FeatureSource, layers: Sequence[str], images: int, *, pinned: bool) -> Features:
    """Layer -> (images, C, H, W) of the stored type, not filled; page-locked where `pinned`, for copies to a GPU."""
    types = {np.dtype(np.float16): torch.float16, np.dtype(np.int8): torch.int8, np.dtype(np.uint8): torch.uint8}
    return {name: torch.empty((images, *store.shapes[name]), dtype=types[store.dtypes[name]], pin_memory=pinned) for name in layers}


def collate(samples: Sequence[ImageSample], features: Mapping[str, Tensor], counted: bool = True) -> Batch:
    """Samples as one batch, ROIs in the order of their images.

    Args:
        samples: of B images.
        features: layer -> (B, C, H, W).
        counted: see `Batch`.
    """
    counts = [len(sample.numbers) for sample in samples]
    image = np.repeat(np.arange(len(samples)), counts)[:, None]
    boxes = np.concatenate([image, np.concatenate([sample.boxes for sample in samples])], axis=1)
    boundary, target, non_target = np.concatenate([sample.distances for sample in samples], axis=1)
    targets = Targets(
        torch.from_numpy(np.concatenate([sample.labels for sample in samples]).astype(np.int64)),
        torch.from_numpy(boundary),
        torch.from_numpy(target),
        torch.from_numpy(non_target),
        _frames(samples),
    )
    numbers = np.concatenate([sample.numbers for sample in samples])
    rows, unit_boxes = [sample.row for sample in samples], torch.from_numpy(boxes.astype(np.float32))
    return Batch(rows, numbers, dict(features), unit_boxes, targets, counted)


def _frames(samples: Sequence[ImageSample]) -> Tensor | None:
    found = [sample.frames for sample in samples if sample.frames is not None]
    return torch.from_numpy(np.concatenate(found, axis=1)) if found else None


def single_batch(dataset: RoiDataset, row: int) -> Batch:
    """One image with all its ROIs as annotated, in memory of its own."""
    return batch_of(dataset, [dataset.whole_sample(row)], collate)


def batch_of(dataset: Stored, samples: Sequence[S], join: Join[S, B]) -> B:
    """Samples and their features as one batch, in memory of its own.

    Args:
        dataset: whose features go with them.
        samples: of one image or more.
        join: what makes a batch of them.
    """
    return _fill(dataset, samples, feature_buffers(dataset.store, dataset.layers, len(samples), pinned=False), join, counted=True)


def _fill(dataset: Stored, samples: Sequence[S], buffers: Features, join: Join[S, B], *, counted: bool) -> B:
    features = {name: buffer[: len(samples)] for name, buffer in buffers.items()}
    for name, values in features.items():
        for place, sample in enumerate(samples):
            dataset.store.read_into(sample.row, name, values[place].numpy(), sample.view)
    return join(samples, features, counted)


def spread(rows: Sequence[int], count: int) -> list[int]:
    """At most so many of some rows, evenly."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64))
    return [rows[place] for place in places.tolist()]


@dataclass(frozen=True)
class Loading:
    """How batches are loaded; never what is in them.

    Attributes:
        images_per_batch: B; the last batch may have fewer.
        threads: loading threads.
        ahead: batches prepared before they are asked for; two more than that are in memory.
        pinned: whether features lie in page-locked memory, for copies to a GPU.
        rank: which of the processes this is, from 0.
        processes: that share each batch; each loads every so many-th of its images.
    """

    images_per_batch: int
    threads: int
    ahead: int
    pinned: bool = False
    rank: int = 0
    processes: int = 1

    def share(self, rows: Sequence[int]) -> Sequence[int]:
        """This process's share of some images."""
        return rows[self.rank :: self.processes]


def whole_batches(dataset: RoiDataset, loading: Loading, rows: Sequence[int] | None = None) -> Iterator[Batch]:
    """Images with all their ROIs as annotated, in row order.

    Args:
        dataset: whose images.
        loading: batch size, threads; of several processes, each gets its share of the images.
        rows: which images; None: every one that has ROIs.
    """
    chosen = loading.share(dataset.rows.tolist() if rows is None else rows)
    return loaded_batches(dataset, replace(loading, rank=0, processes=1), chosen, dataset.whole_sample, collate)


def loaded_batches(
    dataset: Stored, loading: Loading, items: Sequence[int], draw: Callable[[int], S], join: Join[S, B]
) -> Iterator[B]:
    """Batches (of several processes: this one's share of each) of the samples that `draw` makes, in the order of their items.

    Args:
        dataset: whose features go with them.
        loading: batch size, threads, share.
        items: one for each image; a number that `draw` knows.
        draw: an item to its sample; called from several threads.
        join: samples and their features to a batch; called from several threads. It may change the features, which lie in a
            buffer of this batch alone.
    """
    whole = [items[start : start + loading.images_per_batch] for start in range(0, len(items), loading.images_per_batch)]
    count = -(-loading.images_per_batch // loading.processes)
    free: SimpleQueue[Features] = SimpleQueue()
    # One for each batch that is being loaded or waits, and one that the caller works on.
    for _ in range(min(loading.ahead + 2, len(whole))):
        free.put(feature_buffers(dataset.store, dataset.layers, count, pinned=loading.pinned))

    def load(part: Sequence[int]) -> tuple[B, Features]:
        own = loading.share(part)
        samples = [draw(item) for item in own or part[:1]]
        buffers = free.get()
        return _fill(dataset, samples, buffers, join, counted=bool(own)), buffers

    for batch, buffers in _prefetch(load, whole, loading.threads, loading.ahead):
        yield batch
        if loading.pinned:
            # A copy to the GPU may still be reading them.
            torch.cuda.current_stream().synchronize()
        free.put(buffers)


L = TypeVar("L")


def _prefetch(load: Callable[[Sequence[int]], L], parts: Sequence[Sequence[int]], threads: int, ahead: int) -> Iterator[L]:
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[L]] = deque()
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


def dequantise(
    features: Mapping[str, Tensor], scales: Mapping[str, Tensor], device: torch.device, floats: Features | None = None
) -> Features:
    """Stored features on a device as float32.

    Args:
        features: layer -> (B, C, H, W) float16, int8 or uint8.
        scales: layer -> (C,) float32 for those stored as integers, value = q * scale.
        device: where to; only stored bytes cross the bus.
        floats: buffers that the caller keeps from call to call and this function fills; what is returned lies in them. Fresh memory
            costs several times what filling it does. None: memory of its own.
    """
    floats = {} if floats is None else floats
    found = {}
    for name, stored in features.items():
        if name not in floats or len(floats[name]) < len(stored):
            floats[name] = torch.empty(stored.shape, dtype=torch.float32, device=device)
        # Moved before it is converted: a copy that does both would send float32 over the bus.
        values = floats[name][: len(stored)].copy_(stored.to(device, non_blocking=True))
        found[name] = values.mul_(scales[name].to(device).view(1, -1, 1, 1)) if name in scales else values
    return found
