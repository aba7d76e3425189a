"""Trains the sample backbone, so that its frozen maps say something about people.

Legend: N batch, C channels, G cells of the target grid (see `targets`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roiseg.sample.complexity import feature_shapes, list_convs
from roiseg.sample.network import Network
from roiseg.sample.scene import Scene
from roiseg.sample.targets import CELL, CHANNELS, LOGITS, dense_targets
from roiseg.sample.texture import Floats, Image
from roiseg.sample.topology import FEATURE_STRIDES
from roiseg.sample.weights import Weights, initial_weights

logger = logging.getLogger(__name__)

SIDES: Final = (256, 400, 640)
"""Sides that pictures are stretched to, in pixels: a crop of the largest shows limbs, the smallest shows whole scenes."""
BATCHES: Final = ((8, 128), (2, 256), (1, 384))
"""Number and side (in pixels) of the crops in successive batches: many small ones, few that show whole people."""
WORKERS: Final = 2
"""Batches of one step, each run by a thread of its own; a fixed number, because gradients are added in a fixed order.

Torch's own threads aren't used: they wait for each other after every operation, of which a step has thousands, and on a
machine with other work a step then takes ten times as long. Besides, sums depend on how many threads share them.
"""
NORM_BATCHES: Final = 30
"""Batches from which the batch norms' final statistics come."""
PEAK_LR: Final = 6e-3
LAST_LAYER: Final = 34
"""Layers after the last feature keep their random weights: nothing reads them."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """One picture to learn from.

    Attributes:
        image: (S, S, 3) uint8 RGB; S is one of `SIDES`.
        targets: (CHANNELS + 2, S / 4, S / 4) float32 of `dense_targets`.
    """

    image: Image
    targets: Floats


def make_lessons(scene: Scene) -> list[Lesson]:
    """Stretch a picture to the sides of the network's input and draw up its targets.

    Args:
        scene: The picture.

    Returns:
        A lesson for each of `SIDES`.
    """
    lessons = []
    for side in SIDES:
        method = cv2.INTER_AREA if side < min(scene.image.shape[:2]) else cv2.INTER_LINEAR
        stretched = cv2.resize(scene.image, (side, side), interpolation=method)
        lessons.append(Lesson(np.asarray(stretched, np.uint8), dense_targets(scene, side)))
    return lessons


class _Tasks(nn.Module):
    """Linear predictions of the targets: from the neck alone, and from all features together."""

    def __init__(self, width: float) -> None:
        super().__init__()
        shapes = feature_shapes(width)
        self.neck = nn.Conv2d(shapes[LAST_LAYER].channels, CHANNELS, 1)
        self.all = nn.ModuleDict({str(n): nn.Conv2d(shapes[n].channels, CHANNELS, 1) for n in FEATURE_STRIDES})

    def forward(self, features: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Predict targets at stride 8 and at stride 4: (N, CHANNELS, G / 2, G / 2) and (N, CHANNELS, G, G)."""
        fine = torch.zeros(())
        for number, stride in FEATURE_STRIDES.items():
            part = self.all[str(number)](features[number])
            if stride > CELL:
                factor = stride // CELL
                part = part.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
            fine = fine + part
        return self.neck(features[LAST_LAYER]), fine


def _loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of the probabilities plus L1 of the rest where it's defined; both (N, CHANNELS + ..., h, w)."""
    weight = targets[:, CHANNELS + 1 :]
    positive = torch.tensor([2.0, 3.0, 4.0])[None, :, None, None]
    probable = F.binary_cross_entropy_with_logits(predicted[:, :LOGITS], targets[:, :LOGITS], weight=weight, pos_weight=positive)
    valid = targets[:, CHANNELS : CHANNELS + 1] * weight
    distance = (predicted[:, LOGITS] - targets[:, LOGITS]).abs().mean()
    boxes = (predicted[:, LOGITS + 1 :] - targets[:, LOGITS + 1 : CHANNELS]).abs() * valid
    return probable + distance + 0.3 * boxes.sum() / (valid.sum() * 4 + 1)


def _crop(lesson: Lesson, side: int, rng: np.random.Generator) -> tuple[Image, Floats]:
    """A random crop around somebody, perhaps mirrored, with its colours swapped."""
    cells, grid = side // CELL, lesson.targets.shape[1]
    rows, cols = np.nonzero(lesson.targets[0] > 0)
    pick = int(rng.integers(max(len(rows), 1)))
    middle = (int(rows[pick]), int(cols[pick])) if len(rows) else (grid // 2, grid // 2)
    top, left = (int(np.clip(spot - rng.integers(cells // 4, 3 * cells // 4), 0, grid - cells)) for spot in middle)
    # Cells of larger strides must keep their cells together.
    top, left = top // 8 * 8, left // 8 * 8
    targets = lesson.targets[:, top : top + cells, left : left + cells]
    image = lesson.image[top * CELL : top * CELL + side, left * CELL : left * CELL + side]
    if rng.random() < 0.5:
        image, targets = image[:, ::-1], targets[:, :, ::-1].copy()
        targets[4] *= -1
    return image[:, :, rng.permutation(3)], targets


def _batches(lessons: Sequence[Lesson], steps: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches: (N, 3, S, S) float32 RGB, 0 to 1, and (N, CHANNELS + 2, S / 4, S / 4) float32 targets."""
    for step in range(steps):
        count, side = BATCHES[step % len(BATCHES)]
        large = [lesson for lesson in lessons if lesson.image.shape[0] >= side]
        crops = [_crop(large[int(index)], side, rng) for index in rng.integers(len(large), size=count)]
        images = np.stack([image for image, _ in crops]).astype(np.float32) / np.float32(255)
        light = rng.uniform(0.75, 1.25, (count, 1, 1, 1)).astype(np.float32)
        pixels = torch.from_numpy(np.clip(images * light, 0, 1)).permute(0, 3, 1, 2)
        yield pixels.contiguous(memory_format=torch.channels_last), torch.from_numpy(np.stack([t for _, t in crops]))


def _measure_norms(network: Network, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Replace the running statistics of the batch norms by the mean over many batches at the final weights.

    The batches must be of the kind that training saw: whole pictures have other statistics, and a network that was
    trained on crops does worse with those.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for images, _ in batches:
            network(images, LAST_LAYER)


@contextmanager
def _reproducible() -> Iterator[None]:
    """Same inputs, same bytes: one thread an operation, deterministic algorithms only."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads)


def train_backbone(
    lessons: Sequence[Lesson], width: float, steps: int, rng: np.random.Generator, tick: Callable[[], object]
) -> Weights:
    """Train the backbone.

    Args:
        lessons: Pictures to learn from.
        width: Factor on all channels.
        steps: Training steps; 0 returns the initial weights.
        rng: Source of randomness, for the initial weights and the crops.
        tick: Called after each step.

    Returns:
        Weights, batch norm folded in.
    """
    weights = initial_weights(list_convs(width), rng)
    if steps == 0:
        return weights
    with _reproducible(), ThreadPoolExecutor(WORKERS, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        torch.manual_seed(int(rng.integers(2**31)))
        network = Network(width, weights).to(memory_format=torch.channels_last)
        tasks = _Tasks(width)
        parameters = [*network.parameters_until(LAST_LAYER), *tasks.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=PEAK_LR, weight_decay=0.01, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, steps + 1, pct_start=0.15)

        def learn(batch: tuple[Tensor, Tensor]) -> tuple[float, Sequence[Tensor]]:
            coarse, fine = tasks(network(batch[0], LAST_LAYER)[0])
            loss = _loss(coarse, F.avg_pool2d(batch[1], 2)) + _loss(fine, batch[1])
            return loss.item(), torch.autograd.grad(loss, parameters)

        batches = _batches(lessons, steps * WORKERS, rng)
        for step in range(steps):
            # The workers share the parameters and return their gradients, which are added in a fixed order. The
            # running statistics that they both write meanwhile are thrown away by `_measure_norms`.
            learned = list(pool.map(learn, list(islice(batches, WORKERS))))
            for parameter, *gradients in zip(parameters, *(found[1] for found in learned), strict=True):
                parameter.grad = torch.stack(gradients).mean(0)
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            schedule.step()
            if step % 20 == 0 or step == steps - 1:
                mean = sum(found[0] for found in learned) / WORKERS
                logger.info("sample backbone: step %d of %d, loss %.3f", step + 1, steps, mean)
            tick()
        _measure_norms(network, _batches(lessons, NORM_BATCHES, rng))
        return network.folded()
