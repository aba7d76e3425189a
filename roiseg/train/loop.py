"""The training loop: one head on cached features, on Lightning Fabric for device and precision.

After every epoch: validation figures, a checkpoint, the two-row overlay, a line of metrics. A run that is killed goes on after its
last finished epoch.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from roiseg.progress import progress
from roiseg.train.average import WeightAverage
from roiseg.train.checkpoint import BEST, Checkpoint, checkpoint_name, load_checkpoint, newest, save_checkpoint
from roiseg.train.log import MetricsLog
from roiseg.train.memory import largest_batch, limit_kernels
from roiseg.train.params import TrainParams
from roiseg.train.schedule import warmup_cosine

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


def parameter_groups(head: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights that decay, and biases and norms that don't: pulling those to 0 regularises nothing."""
    matrices = [item for item in head.parameters() if item.ndim > 1]
    vectors = [item for item in head.parameters() if item.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


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
        optimizer = torch.optim.AdamW(parameter_groups(run.head, params.weight_decay), lr=params.lr)
        self._average = WeightAverage(run.head, params.average_decay)
        self._head, self._optimizer = self._fabric.setup(run.head, optimizer)
        self._average.head.to(self._fabric.device)
        self._scales = {name: torch.from_numpy(values) for name, values in run.train.store.scales.items()}
        self._floats: dict[str, Tensor] = {}
        self._steps = -(-len(run.train.rows) // params.images_per_batch)
        self._best = -1.0
        self._loading = Loading(
            params.images_per_batch, run.reader.load_threads, run.reader.ahead, pinned=self._fabric.device.type == "cuda"
        )

    def fit(self) -> None:
        """Train what is left of the epochs.

        Raises:
            TrainingError: nothing to learn from, or a loss that isn't finite.
        """
        if not self._steps:
            raise TrainingError("no image of the training split has a person of at least data.min_box_px; lower it")
        log = MetricsLog(self._folder / "metrics.json")
        with deterministic(), progress("train", self._run.params.epochs * self._steps) as tick:
            start = self._resume()
            log.keep_until(start)
            tick(start * self._steps)
            if start < self._run.params.epochs:
                self._rehearse()
            for epoch in range(start + 1, self._run.params.epochs + 1):
                losses = self._train_epoch(epoch, tick)
                figures = self._validate()
                log.add({"epoch": epoch, **{f"train_{name}": value for name, value in losses.items()}, **figures})
                self._save(epoch, figures)
                logger.info("epoch %d: loss %.4f, %s %.4f", epoch, losses["total"], LEAD, figures[LEAD])

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
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            self._head.train()
            self._fabric.backward(self._losses(batch)["total"])
        for buffer, before in buffers:  # statistics of norms
            buffer.copy_(before)
        self._optimizer.zero_grad(set_to_none=True)

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        device = self._fabric.device
        features = dequantise(batch.features, self._scales, device, self._floats)
        return self._run.loss(self._head(features, batch.boxes.to(device)), batch.targets.to(device))

    def _train_epoch(self, epoch: int, tick: Any) -> dict[str, float]:  # noqa: ANN401
        run, params = self._run, self._run.params
        self._head.train()
        batches = Clocked(training_batches(run.train, self._loading, seed=params.seed, epoch=epoch))
        began = time.monotonic()
        sums: dict[str, float] = {}
        rois = 0
        for number, batch in enumerate(batches):
            rate = self._set_rate((epoch - 1) * self._steps + number)
            losses = self._losses(batch)
            self._check_finite("loss", losses["total"], epoch, batch.rows)
            self._fabric.backward(losses["total"])
            norm = self._fabric.clip_gradients(self._head, self._optimizer, max_norm=params.clip_norm, error_if_nonfinite=False)
            if norm is not None:
                self._check_finite("norm of the gradients", norm, epoch, batch.rows)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)  # now, so that gradients don't lie between what the next step allocates
            self._average.update(run.head, (epoch - 1) * self._steps + number)
            count = len(batch.boxes)
            rois += count
            for name, value in {**losses, **({} if norm is None else {"grad_norm": norm})}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * count
            tick(1, f"epoch {epoch} loss {sums['total'] / rois:.3f}")
        taken = time.monotonic() - began
        logger.info("epoch %d: %.1f s, %.1f %% of it waiting for data", epoch, taken, 100 * batches.waited / max(taken, 1e-9))
        return {name: value / rois for name, value in sums.items()} | {"lr": rate}

    def _set_rate(self, step: int) -> float:
        params = self._run.params
        total = params.epochs * self._steps
        warmup = min(round(params.warmup_epochs * self._steps), total)
        rate = warmup_cosine(step, total=total, warmup=warmup, peak=params.lr, low=min(params.min_lr, params.lr))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    @staticmethod
    def _check_finite(what: str, value: Tensor, epoch: int, rows: Sequence[int]) -> None:
        if not torch.isfinite(value):
            raise TrainingError(
                f"epoch {epoch}: the {what} is {float(value.detach())} on rows {list(rows)}; lower train.lr or train.clip_norm. "
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
