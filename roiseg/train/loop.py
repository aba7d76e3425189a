"""The training loop: one task on cached features, on Lightning Fabric for device, precision and processes.

After every epoch: validation figures, a checkpoint, the picture, a row of the run's record. A run that is killed goes on after its
last finished epoch.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor

from roiseg.batches import Loading
from roiseg.errors import TrainingError
from roiseg.evaluate.overlays import write_png
from roiseg.params import nearest
from roiseg.progress import Ticker, progress
from roiseg.train.checkpoint import BEST, SNAPSHOTS, UNTRAINED, Checkpoint, save_checkpoint
from roiseg.train.folder import RunFolder
from roiseg.train.learner import Learner
from roiseg.train.log import Observer, Row
from roiseg.train.memory import limit_kernels
from roiseg.train.params import TrainParams
from roiseg.train.run import Phase, Run
from roiseg.train.schedule import Extension, Schedule, phase_warmup, stops_early
from roiseg.train.snapshots import mean_of
from roiseg.train.step import NotFinite, Sums
from roiseg.train.task import AnyBatch, Task
from roiseg.train.world import World, deterministic, make_fabric

logger = logging.getLogger(__name__)

NONE_YET = -1.0

BatchT = TypeVar("BatchT", bound=AnyBatch)


def check_metric(params: TrainParams, task: Task) -> None:
    """See that the figure to judge a run by is one that validation gives.

    Args:
        params: section `train`.
        task: that is validated.

    Raises:
        TrainingError: it isn't.
    """
    name, known = params.early_stop.metric, task.known_figures
    if name not in known:
        key = params.key("early_stop.metric")
        raise TrainingError(f"{key} is {name!r}, which validation doesn't give; {nearest(name, known)}")


def weights_alone(weights: Mapping[str, Tensor]) -> Mapping[str, object]:
    """The fields of a `Checkpoint` that `Learner.state` gives, for a model that no optimiser goes on with."""
    return {"model": weights, "live": weights, "optimizer": {}, "scaler": {}, "rng": {}, "loss": []}


def grouped(batches: Iterator[AnyBatch], size: int) -> Iterator[list[AnyBatch]]:
    """Batches in groups of `size`, the last one perhaps smaller; a batch of a group of several has features of its own."""
    if size == 1:
        yield from ([batch] for batch in batches)
        return
    while part := [_with_own_features(batch) for batch in islice(batches, size)]:
        yield part


def _with_own_features(batch: Any) -> AnyBatch:  # noqa: ANN401 - a dataclass of whatever task
    """The same with features outside the buffers that go round."""
    found: AnyBatch = replace(batch, features={name: values.clone() for name, values in batch.features.items()})
    return found


class Clocked(Generic[BatchT]):
    """Batches, and the seconds that were spent waiting for them."""

    def __init__(self, batches: Iterator[BatchT]) -> None:
        """Wrap an iterator."""
        self._batches = batches
        self.waited = 0.0

    def __iter__(self) -> Iterator[BatchT]:
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

    def __init__(self, run: Run, folder: Path, fabric: Fabric | None = None, observers: Sequence[Observer] = ()) -> None:
        """Plan the run; the head is built when it starts.

        Args:
            run: what to train on what.
            folder: checkpoints and pictures are kept here.
            fabric: launched, where several processes share the run; None makes one.
            observers: told of each epoch, in the first process.

        Raises:
            TrainingError: nothing to learn from, a figure to stop by that there isn't, or nothing left to do of a kept run.
        """
        limit_kernels()
        self._run, self._folder, params = run, RunFolder(folder), run.params
        self._fabric = fabric or make_fabric(params)
        self._world = World(self._fabric)
        self._observers = observers if self._world.is_first else ()
        self._rows: list[Row] = []
        self._best = NONE_YET
        self._batches = -(-run.phases[-1].task.images // params.images_per_batch)
        self._steps = -(-self._batches // params.accumulate)
        if not self._steps:
            raise TrainingError("no image of the training split has a person of at least data.min_box_px; lower it")
        check_metric(params, run.phases[-1].task)
        self._began = run.kept.last.epoch if run.kept else 0
        extension = Extension(self._began * self._steps, run.kept.last.rate) if run.kept else None
        self._schedule = Schedule(params, self._steps, run.epochs, extension)
        self._loading = Loading(
            params.images_per_batch,
            run.reader.load_threads,
            run.reader.ahead,
            pinned=self._fabric.device.type == "cuda",
            rank=self._world.rank,
            processes=self._world.size,
        )

    def fit(self) -> list[Row]:
        """Train what is left of the epochs.

        Returns:
            A row of figures for each epoch.

        Raises:
            TrainingError: a batch doesn't fit into memory, or too many steps whose loss isn't finite.
        """
        epochs = self._run.epochs
        ticks = epochs * self._batches
        with (
            deterministic(),
            progress("train", ticks) if self._world.is_first else nullcontext(Ticker("train", ticks, None)) as tick,
        ):
            self._keep_untrained()
            learner = self._resume()
            tick(len(self._rows) * self._batches)
            for observer in self._observers:
                observer.begin(self._rows)
            for epoch in range(len(self._rows) + 1, epochs + 1):
                if self._stops():
                    break
                learner = self.learner(epoch, learner)
                losses = self.train_epoch(learner, epoch, tick)
                figures = self.validate(learner)
                self._rows.append({"epoch": epoch, **losses, **figures})
                self._save(learner, epoch, figures)
                for observer in self._observers:
                    observer.epoch(self._rows)
                lead = learner.task.lead
                logger.info("epoch %d: loss %.4f, %s %.4f", epoch, losses.get("train_total", float("nan")), lead, figures[lead])
            self._average_snapshots()
            if self._world.is_first:
                self._folder.prune(self._run.params.keep_checkpoints)
            for observer in self._observers:
                observer.end()
        return self._rows

    def _judged(self, after: int = 0) -> list[float]:
        return [row[self._run.params.early_stop.metric] for row in self._rows[after:]]

    def _stops(self) -> bool:
        """Whether the run has been without a gain for too long: in its last phase, and since it goes on from a kept one."""
        stop = self._run.params.early_stop
        since = max(self._run.first_epoch(self._run.phases[-1]) - 1, self._began)
        if not stops_early(self._judged(since), stop.patience, stop.mode):
            return False
        logger.info("stopped after epoch %d: %s hasn't got better for %d epochs", len(self._rows), stop.metric, stop.patience)
        return True

    def _resume(self) -> Learner | None:
        """What an earlier, killed run of the same fingerprint has left here, or what the run was told to go on from."""
        checkpoint = self._folder.last()
        if checkpoint is None:
            if self._run.kept is None:
                return None
            checkpoint = self._run.kept.last
            if self._run.kept.best is not None and self._world.is_first:
                self._folder.put(BEST, self._run.kept.best)
        phase = self._run.phase_of(checkpoint.epoch)
        learner = Learner(self._fabric, self._world, phase, self._run.params)
        learner.load(checkpoint)
        self._best, self._rows = checkpoint.best, [dict(row) for row in checkpoint.rows]
        logger.info("%s: going on after epoch %d", self._folder.path, checkpoint.epoch)
        if checkpoint.epoch < self._run.epochs:
            learner.rehearse()
        return learner

    def learner(self, epoch: int, learner: Learner | None) -> Learner:
        """What learns in an epoch: the same as in the epoch before, unless a phase begins."""
        phase = self._run.phase_of(epoch)
        if learner is not None and learner.phase is phase:
            return learner
        if learner is None:
            torch.manual_seed(self._run.params.seed)
        else:
            logger.info("epoch %d: %s", epoch, f"phase {phase.name!r} begins" if phase.name else "model and loss are whole now")
        new = Learner(self._fabric, self._world, phase, self._run.params, learner)
        if learner is None and not self._world.is_first:
            torch.manual_seed(self._run.params.seed + self._world.rank)  # processes drop different channels
        new.rehearse()
        return new

    def train_epoch(self, learner: Learner, epoch: int, tick: Ticker) -> Row:
        """Pass over the training images once.

        Args:
            learner: of the epoch's phase.
            epoch: counted from 1.
            tick: told of each batch.

        Returns:
            Means over ROIs of the parts of the loss (`train_*`) and of the weights in force (`weight_*`), `train_lr` and
            `skipped_steps`.

        Raises:
            TrainingError: see `fit`.
        """
        params, phase, task = self._run.params, learner.phase, learner.task
        if learner.begin_epoch(epoch):
            learner.rehearse()
        learner.wrapped.train()
        task.begin_epoch((epoch - 1) / max(self._run.epochs - 1, 1), epoch)
        batches = Clocked(task.batches(self._loading, params.seed, epoch))
        before, history = sum(int(row["skipped_steps"]) for row in self._rows), self._judged()
        began, sums, rate = time.monotonic(), Sums(), 0.0
        for number, part in enumerate(grouped(iter(batches), params.accumulate)):
            step = (epoch - 1) * self._steps + number
            rate = self._rate(step, phase, history)
            learner.set_rate(rate)
            wrong = learner.stepper.step(part, sums)
            if wrong is None:
                learner.average.update(learner.head, step)
            else:
                self._check_skipped(wrong, epoch, before + sums.skipped)
            tick(len(part), f"epoch {epoch} loss {sums.means().get('total', float('nan')):.3f}")
        sums = sums.over(self._world)
        taken = max(time.monotonic() - began, 1e-9)
        logger.info(
            "epoch %d: %.1f s, %.1f images/s, %.1f %s/s, %.1f %% of it waiting for data",
            *(epoch, taken, task.images / taken, sums.rois / taken, task.unit, 100 * batches.waited / taken),
        )
        named = {name if name.startswith("weight_") else f"train_{name}": value for name, value in sums.means().items()}
        return named | {"train_lr": rate, "skipped_steps": sums.skipped}

    def _rate(self, step: int, phase: Phase, history: Sequence[float]) -> float:
        scale = phase.task.rate_scale(step // self._steps + 1)
        rate, first = scale * self._schedule.rate(step, history), (self._run.first_epoch(phase) - 1) * self._steps
        if first == 0:
            return rate
        params = self._run.params
        return rate * phase_warmup(step - first, round(params.phase_warmup_epochs * self._steps), params.phase_warmup_factor)

    def _check_skipped(self, wrong: NotFinite, epoch: int, skipped: int) -> None:
        params = self._run.params
        logger.warning("epoch %d: step left out, the %s is %s on rows %s", epoch, wrong.what, wrong.value, list(wrong.rows))
        if skipped > params.max_skipped_steps:
            raise TrainingError(
                f"epoch {epoch}: the {wrong.what} is {wrong.value} on rows {list(wrong.rows)}, and {skipped} steps of this run "
                f"were left out for such a reason, more than {params.key('max_skipped_steps')} ({params.max_skipped_steps}); lower "
                f"{params.key('lr')} or {params.key('clip_norm')}. Finished epochs are kept, and training goes on after them once "
                "the params are as they were"
            )

    def validate(self, learner: Learner) -> dict[str, float]:
        """Figures of the averaged weights on the validation split."""
        part = learner.task.score(learner.average.head, self._fabric.device, self._loading)
        return learner.task.figures(self._world.gather(part))

    def _save(self, learner: Learner, epoch: int, figures: dict[str, float]) -> None:
        """Picture first, as the observers last: a checkpoint on disk says that its epoch is done."""
        run, phase, task = self._run, learner.phase, learner.task
        task.judged(figures)
        state, score = learner.state(), figures[task.lead]
        better = phase.until is None and score > self._best
        self._best = max(self._best, score) if phase.until is None else self._best
        if self._world.is_first:
            self._draw(learner, epoch, figures)
            checkpoint = self._checkpoint(phase, state, epoch, figures)
            self._folder.save(
                checkpoint,
                task.mask_hw,
                score,
                run.params.keep_checkpoints,
                best=better,
                snapshot=phase.until is None and self._schedule.ends_cycle(epoch),
                phase=phase.name if epoch == phase.until else None,
            )
        self._world.wait()

    def _checkpoint(self, phase: Phase, state: Any, epoch: int, figures: dict[str, float]) -> Checkpoint:  # noqa: ANN401
        task, store = phase.task, phase.task.stores["train"]
        return Checkpoint(
            epoch=epoch,
            **state,
            params=phase.described,
            layers={name: [store.specs[name].channels, *store.specs[name].stride_hw] for name in task.layers},
            fingerprint=store.asked,
            metrics=figures,
            best=self._best,
            rate=self._rows[-1]["train_lr"] if self._rows else 0.0,
            rows=self._rows,
        )

    def _draw(self, learner: Learner, epoch: int, figures: dict[str, float]) -> None:
        lead = learner.task.lead
        picture = learner.task.draw(learner.average.head, self._fabric.device, f"epoch {epoch}: {lead} {figures[lead]:.4f}")
        if picture is not None:
            write_png(self._folder.pictures / f"validation_all_images_epoch_{epoch:04d}.png", picture)

    def _keep_untrained(self) -> None:
        """The fresh weights of the model that the run will end with."""
        path, run = self._folder.path / UNTRAINED, self._run
        if path.is_file() or run.kept is not None or not self._world.is_first:
            return
        with torch.random.fork_rng([]):
            torch.manual_seed(run.params.seed)
            fresh = run.phases[-1].task.build().state_dict()
        save_checkpoint(path, self._checkpoint(run.phases[-1], weights_alone(fresh), 0, {}))

    def _average_snapshots(self) -> None:
        """The mean of what was learnt in each cycle, as a model of its own (spec 14.2)."""
        found, phase = self._folder.snapshots(), self._run.phases[-1]
        if len(found) < 2 or (self._folder.path / SNAPSHOTS).is_file():
            return
        mean = mean_of(found)
        learner = Learner(self._fabric, self._world, phase, self._run.params)
        learner.average.head.load_state_dict(mean)
        figures = self.validate(learner)
        logger.info("mean of the snapshots of %d cycles: %s %.4f", len(found), phase.task.lead, figures[phase.task.lead])
        if self._world.is_first:
            checkpoint = self._checkpoint(phase, weights_alone(mean), len(self._rows), figures)
            save_checkpoint(self._folder.path / SNAPSHOTS, checkpoint)
        self._world.wait()
