"""Keeping the memory of training from growing with the images.

The number of ROIs differs from batch to batch. The more images, the larger the largest number and the more different ones. For the
former there is a step without an update at the largest size before the first (PyTorch's performance tuning guide, "preallocate
memory in case of variable input length"); of the latter's kernels only a few are kept.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from roiseg.batches import Batch
from roiseg.dataset import Targets
from roiseg.errors import TrainingError
from roiseg.sampler import Sampler
from roiseg.train.params import TrainParams
from roiseg.train.task import AnyBatch, Task

KERNELS = 64
"""Compiled kernels that oneDNN keeps. It compiles a set for each number of ROIs, some 30 in a step, and by itself keeps 1024: about
150 MB after a few hundred steps, in a heap that they break in pieces. Compiling again what fell out takes milliseconds a step."""


def limit_kernels() -> None:
    """Let oneDNN keep `KERNELS` kernels, where the environment doesn't say otherwise; works before the first convolution only."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))


def largest_batch(sampler: Sampler, images_per_batch: int) -> Batch:
    """A batch as large as any that training may draw, of features that are zero and whole images as ROIs.

    Args:
        sampler: of the training split.
        images_per_batch: images in a step.
    """
    dataset = sampler.dataset
    rois, (height, width) = int(sampler.most_rois[:images_per_batch].sum()), dataset.mask_hw
    boxes = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0]).repeat(rois, 1)
    distance = torch.zeros(rois, height, width)
    frames = None if dataset.frame_hw is None else torch.zeros(2, rois, *dataset.frame_hw, dtype=torch.uint8)
    targets = Targets(torch.zeros(rois, height, width, dtype=torch.int64), distance, distance, distance, frames)
    shapes = dataset.store.shapes
    features = {name: torch.zeros((images_per_batch, *shapes[name]), dtype=torch.int8) for name in dataset.layers}
    return Batch([], np.zeros(rois, dtype=np.int64), features, boxes, targets)


@contextmanager
def lack_of_memory_is_said(task: Task, params: TrainParams, batch: AnyBatch, device: torch.device) -> Iterator[None]:
    """Turn a lack of memory into advice.

    Args:
        task: whose batch it is.
        params: section `train`.
        batch: that is computed.
        device: where.

    Raises:
        TrainingError: the batch doesn't fit.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the processor's allocator has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "allocate" not in str(error):
            raise
        images = max((len(values) for values in batch.features.values()), default=0)
        units = "" if task.unit == "images" else f" and {batch.size} {task.unit}"
        raise TrainingError(
            f"a batch of {images} images{units}, which this data set may give, doesn't fit into the memory of {device}: "
            f"{str(error).splitlines()[0]}; lower {params.key('images_per_batch')} (and raise {params.key('accumulate')} by as "
            f"much), {task.thrift}"
        ) from error
