"""The training loop: one head on cached features, on Lightning Fabric for device and precision.

After every epoch: validation figures, a checkpoint, the two-row overlay, a line of metrics. A run that is killed goes on after its
last finished epoch.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from roiseg.batches import Batch, Loading, dequantise, training_batches
from roiseg.cache.params import ReaderParams
from roiseg.dataset import RoiDataset
from roiseg.errors import ProviderError, TrainingError
from roiseg.evaluate.infer import Score, predictions
from roiseg.evaluate.metrics import with_baseline
from roiseg.evaluate.overlays import write_png
from roiseg.evaluate.pictures import FixedPicture, draw_validation
from roiseg.losses import MaskLoss
from roiseg.params import nearest
from roiseg.progress import progress
from roiseg.train.average import WeightAverage
from roiseg.train.checkpoint import BEST, Checkpoint, checkpoint_name, load_checkpoint, newest, prune, save_checkpoint
from roiseg.train.log import MetricsLog
from roiseg.train.memory import largest_batch, limit_kernels
from roiseg.train.optimizer import make_optimizer
from roiseg.train.params import TrainParams
from roiseg.train.schedule import Schedule, stops_early
from roiseg.train.step import NotFinite, Stepper, Sums

logger = logging.getLogger(__name__)

LEAD = "miou_fg_roi"


@dataclass(frozen=True)
class Run:
    """All that a training run is made of.

    Attributes:
        head: with fresh weights.
        loss: returns its total and parts.
        train: training split.
        val: validation split.
        fixed: pictures drawn each epoch.
        params: section `train`.
        reader: section `reader`.
        described: sections as plain values, kept in every checkpoint.
    """

    head: nn.Module
    loss: MaskLoss
    train: RoiDataset
    val: RoiDataset
    fixed: Sequence[FixedPicture]
    params: TrainParams
    reader: ReaderParams
    described: Mapping[str, Any]


def make_fabric(params: TrainParams) -> Fabric:
    """Device and precision of a run.

    Raises:
        ProviderError: a CUDA device was asked for and there is none.
    """
    if params.device == "cuda" and not torch.cuda.is_available():
        raise ProviderError("train.device is 'cuda', but torch finds no CUDA device here; set it to 'auto' or 'cpu'")
    accelerator = "cuda" if params.device != "cpu" and torch.cuda.is_available() else "cpu"
    return Fabric(accelerator=accelerator, devices=1, precision=params.precision)


@contextmanager
def deterministic() -> Iterator[None]:
    """Operators that give the same bits each time, or fail."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def lack_of_memory_is_said(batch: Batch, device: torch.device) -> Iterator[None]:
    """Turn a lack of memory into advice.

    Raises:
        TrainingError: the batch doesn't fit.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the processor's allocator has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "allocate" not in str(error):
            raise
        images = max((len(values) for values in batch.features.values()), default=0)
        raise TrainingError(
            f"a batch of {images} images and {len(batch.boxes)} ROIs, which this data set may give, doesn't fit into the memory of "
            f"{device}: {str(error).splitlines()[0]}; lower train.images_per_batch (and raise train.accumulate by as much), "
            "dataset.max_rois_per_image, model.roi_hw or the channels of model, or read fewer layers"
        ) from error


def check_metric(name: str) -> None:
    """See that a figure to judge a run by is one that validation gives.

    Raises:
        TrainingError: it isn't.
    """
    empty = Score.empty()
    known = with_baseline(empty.metrics, empty.without_two)
    if name not in known:
        raise TrainingError(f"train.early_stop.metric is {name!r}, which validation doesn't give; {nearest(name, known)}")


def grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches in groups of `size`, the last one perhaps smaller; a batch of a group of several has features of its own."""
    if size == 1:
        yield from ([batch] for batch in batches)
        return
    while part := [replace(batch, features=_own(batch)) for batch in islice(batches, size)]:
        yield part


def _own(batch: Batch) -> dict[str, Tensor]:
    """Features outside the buffers that go round."""
    return {name: values.clone() for name, values in batch.features.items()}


class Clocked:
    """Batches, and the seconds that were spent waiting for them."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        """Wrap an iterator."""
        self._batches = batches
        self.waited = 0.0

    def __iter__(self) -> Iterator[Batch]:
        """Each batch, timed."""
        while True:
            began = time.monotonic()
            batch = next(self._batches, None)
            self.waited += time.monotonic() - began
            if batch is None:
                return
            yield batch


class Trainer:
    """Runs the epochs of a run in a folder, and can be run again on it after a kill."""

    def __init__(self, run: Run, folder: Path) -> None:
        """Set up on the right device.

        Args:
            run: what to train on what.
            folder: checkpoints, pictures and the metrics log are kept here.
        """
        limit_kernels()
        self._run, self._folder = run, folder
        self._fabric = make_fabric(run.params)
        params = run.params
        optimizer = make_optimizer(run.head, params)
        self._average = WeightAverage(run.head, params.average_decay)
        self._head, self._optimizer = self._fabric.setup(run.head, optimizer)
        self._average.head.to(self._fabric.device)
        self._scales = {name: torch.from_numpy(values) for name, values in run.train.store.scales.items()}
        self._floats: dict[str, Tensor] = {}
        self._stepper = Stepper(self._fabric, self._head, self._optimizer, self._losses, params.clip_norm)
        self._batches = -(-len(run.train.rows) // params.images_per_batch)
        self._steps = -(-self._batches // params.accumulate)
        self._schedule = Schedule(params, self._steps)
        self._best = -1.0
        self._loading = Loading(
            params.images_per_batch, run.reader.load_threads, run.reader.ahead, pinned=self._fabric.device.type == "cuda"
        )

    def fit(self) -> None:
        """Train what is left of the epochs.

        Raises:
            TrainingError: nothing to learn from, a figure to stop by that there isn't, or too many steps whose loss isn't finite.
        """
        if not self._steps:
            raise TrainingError("no image of the training split has a person of at least data.min_box_px; lower it")
        check_metric(self._run.params.early_stop.metric)
        log, epochs = MetricsLog(self._folder / "metrics.json"), self._run.params.epochs
        with deterministic(), progress("train", epochs * self._batches) as tick:
            start = self._resume()
            log.keep_until(start)
            tick(start * self._batches)
            if start < epochs:
                self._rehearse()
            for epoch in range(start + 1, epochs + 1):
                if self._stops(log):
                    break
                losses = self._train_epoch(epoch, log, tick)
                figures = self._validate()
                log.add({"epoch": epoch, **losses, **figures})
                self._save(epoch, figures)
                logger.info("epoch %d: loss %.4f, %s %.4f", epoch, losses.get("train_total", float("nan")), LEAD, figures[LEAD])

    def _history(self, log: MetricsLog) -> list[float]:
        return [row[self._run.params.early_stop.metric] for row in log.rows]

    def _stops(self, log: MetricsLog) -> bool:
        stop = self._run.params.early_stop
        if not stops_early(self._history(log), stop.patience, stop.mode):
            return False
        logger.info("stopped after epoch %d: %s hasn't got better for %d epochs", len(log.rows), stop.metric, stop.patience)
        return True

    def _resume(self) -> int:
        """Number of epochs that an earlier run of the same fingerprint has finished here."""
        path = newest(self._folder / "checkpoints")
        if path is None:
            return 0
        checkpoint = load_checkpoint(path)
        self._run.head.load_state_dict(dict(checkpoint.live))
        self._average.head.load_state_dict(dict(checkpoint.model))
        self._optimizer.load_state_dict(dict(checkpoint.optimizer))
        torch.set_rng_state(checkpoint.rng)
        self._best = checkpoint.best
        logger.info("%s: going on after epoch %d", self._folder, checkpoint.epoch)
        return checkpoint.epoch

    def _rehearse(self) -> None:
        """A step at the largest batch that leaves nothing but its memory: a lack of it shows now, and later steps need no more."""
        device = self._fabric.device
        batch = largest_batch(self._run.train, self._run.params.images_per_batch)
        buffers = [(buffer, buffer.clone()) for buffer in self._run.head.buffers()]
        with torch.random.fork_rng([device] if device.type == "cuda" else []), lack_of_memory_is_said(batch, device):
            self._head.train()
            self._fabric.backward(self._losses(batch)["total"])
        for buffer, before in buffers:  # statistics of norms
            buffer.copy_(before)
        self._optimizer.zero_grad(set_to_none=True)

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        device = self._fabric.device
        features = dequantise(batch.features, self._scales, device, self._floats)
        return self._run.loss(self._head(features, batch.boxes.to(device)), batch.targets.to(device))

    def _train_epoch(self, epoch: int, log: MetricsLog, tick: Any) -> dict[str, float]:  # noqa: ANN401
        run, params = self._run, self._run.params
        self._head.train()
        batches = Clocked(training_batches(run.train, self._loading, seed=params.seed, epoch=epoch))
        before, history = sum(int(row["skipped_steps"]) for row in log.rows), self._history(log)
        began, sums, rate = time.monotonic(), Sums(), 0.0
        for number, part in enumerate(grouped(iter(batches), params.accumulate)):
            step = (epoch - 1) * self._steps + number
            rate = self._set_rate(step, history)
            wrong = self._stepper.step(part, sums)
            if wrong is None:
                self._average.update(run.head, step)
            else:
                self._check_skipped(wrong, epoch, before + sums.skipped)
            tick(len(part), f"epoch {epoch} loss {sums.means().get('total', float('nan')):.3f}")
        taken = max(time.monotonic() - began, 1e-9)
        logger.info(
            "epoch %d: %.1f s, %.1f images/s, %.1f ROIs/s, %.1f %% of it waiting for data",
            *(epoch, taken, len(run.train.rows) / taken, sums.rois / taken, 100 * batches.waited / taken),
        )
        return {f"train_{name}": value for name, value in sums.means().items()} | {
            "train_lr": rate,
            "skipped_steps": sums.skipped,
        }

    def _set_rate(self, step: int, history: Sequence[float]) -> float:
        rate = self._schedule.rate(step, history)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        return rate

    def _check_skipped(self, wrong: NotFinite, epoch: int, skipped: int) -> None:
        limit = self._run.params.max_skipped_steps
        logger.warning("epoch %d: step left out, the %s is %s on rows %s", epoch, wrong.what, wrong.value, list(wrong.rows))
        if skipped > limit:
            raise TrainingError(
                f"epoch {epoch}: the {wrong.what} is {wrong.value} on rows {list(wrong.rows)}, and {skipped} steps of this run "
                f"were left out for such a reason, more than train.max_skipped_steps ({limit}); lower train.lr or train.clip_norm. "
                "Finished epochs are kept, and training goes on after them once the params are as they were"
            )

    def _validate(self) -> dict[str, float]:
        run, score = self._run, Score.empty()
        for prediction in predictions(self._average.head, run.val, self._fabric.device, self._loading):
            score.add(prediction)
        return with_baseline(score.metrics, score.without_two)

    def _save(self, epoch: int, figures: dict[str, float]) -> None:
        """Picture and best first, as the log before them: a checkpoint on disk says that its epoch is done."""
        run = self._run
        title = f"epoch {epoch}: {LEAD} {figures[LEAD]:.4f}"
        if run.fixed:
            picture = draw_validation(self._average.head, run.val, list(run.fixed), self._fabric.device, title)
            write_png(self._folder / "pictures" / f"validation_all_images_epoch_{epoch:04d}.png", picture)
        better = figures[LEAD] > self._best
        self._best = max(self._best, figures[LEAD])
        specs = run.train.store.specs
        checkpoint = Checkpoint(
            epoch=epoch,
            model=self._average.head.state_dict(),
            live=run.head.state_dict(),
            optimizer=self._optimizer.state_dict(),
            rng=torch.get_rng_state(),
            params=run.described,
            layers={name: [specs[name].channels, *specs[name].stride_hw] for name in run.train.layers},
            fingerprint=run.train.store.asked,
            metrics=figures,
            best=self._best,
        )
        if better:
            save_checkpoint(self._folder / BEST, checkpoint)
        name = checkpoint_name(epoch, run.train.mask_hw, figures[LEAD])
        save_checkpoint(self._folder / "checkpoints" / name, checkpoint)
        # The newest is what a killed run goes on from, whether it is kept in the end or not.
        prune(self._folder / "checkpoints", None if run.params.keep_checkpoints is None else max(run.params.keep_checkpoints, 1))
