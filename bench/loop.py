"""The trainer's epoch against a bare PyTorch loop over the same tensors in memory, in one run.

    python -m bench.loop [--head default] [--rounds 5] [--json FILE]

Both sides begin with the same weights, see the same batches in the same order with the same draws of dropout, and make the same
steps. The loop reads the store, rasterises targets, dequantises, keeps the running average and counts, as in training, and asks
torch for deterministic operators. The bare side has all batches of the epoch in memory before its clock starts, as float32 on the
device, and does what every tutorial does: forward pass, loss, backward pass, clipping, step, zeroed gradients.

Prints what takes the loop's time, by wrapping its own calls, and the ratio of the two epochs, by the clock and in processor time.
Sides take turns, and so does who begins. Needs the outs of `dvc repro`; writes nothing but FILE.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor

from roiseg.batches import Loading, dequantise
from roiseg.dataset import Targets
from roiseg.files import write_json
from roiseg.heads import build_head
from roiseg.losses import MaskLoss, class_weights
from roiseg.nn.outputs import HeadOutput
from roiseg.params import load_params
from roiseg.progress import Ticker
from roiseg.sampler import Sampler, training_batches
from roiseg.train import loop
from roiseg.train.head_task import HeadTask
from roiseg.train.learner import Learner
from roiseg.train.loop import Trainer
from roiseg.train.optimizer import make_optimizer
from roiseg.train.run import Phase, Run
from roiseg.train.schedule import Schedule
from roiseg.train.task import AnyBatch
from roiseg.train.train import TrainSections
from roiseg.train.world import deterministic, make_fabric
from roiseg.trained import FEATURES, INDEX
from roiseg.work import WORK

STEP = ("forward", "backward", "optimiser")
"""What a loop is for."""
SAME_LOSS = 1e-3
"""Largest difference of an epoch's mean loss between the sides, as a share: operators may sum in another order."""


def load_sections(head: str) -> TrainSections:
    """A head's sections, of a run in one process that takes a step for each batch, in plain float32."""
    values = load_params(head)
    values["train"] |= {"accumulate": 1, "devices": 1, "precision": "32-true", "compile": False}
    return TrainSections.load(values)


class Clock:
    """Seconds by what they were spent on."""

    def __init__(self, device: torch.device) -> None:
        """Nothing yet; work on `device` is waited for, or it would count for whatever comes next."""
        self._cuda = device.type == "cuda"
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        """Seconds of a clock that only goes forward, once the device is done."""
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the block."""
        began = self.now()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + self.now() - began

    def wrap(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted."""

        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function
            with self.on(what):
                return function(*args, **kwargs)

        return call


@dataclass(frozen=True)
class Epoch:
    """What an epoch took and did.

    Attributes:
        seconds: of the whole.
        cpu_seconds: of the processor in all threads, loading ones among them; other programs on the machine disturb it less.
        parts: what of it was spent on what; empty for the bare side.
        loss: mean over ROIs.
    """

    seconds: float
    cpu_seconds: float
    parts: Mapping[str, float]
    loss: float


class TimedLoss:
    """A loss whose calls are counted as forward; all else of it is as it was."""

    def __init__(self, loss: MaskLoss, clock: Clock) -> None:
        """Wrap a loss."""
        self._loss, self._clock = loss, clock

    def __call__(self, output: HeadOutput, target: Targets) -> dict[str, Tensor]:
        """As `MaskLoss`."""
        with self._clock.on("forward"):
            return self._loss(output, target)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as the loss
        """What isn't here is the loss's."""
        return getattr(self._loss, name)


class LoopSide:
    """`Trainer`, with a clock in its calls."""

    def __init__(self, sections: TrainSections, sampler: Sampler, loss: MaskLoss) -> None:
        """Build the head; all that this bench knows of the trainer's inside is here and in `epoch`."""
        fabric = make_fabric(sections.train)
        self._clock = Clock(fabric.device)
        build = partial(build_head, sections.head.model, sampler.dataset.store.specs)
        task = HeadTask(build, cast("MaskLoss", TimedLoss(loss, self._clock)), sampler, sampler.dataset)
        run = Run([Phase(None, None, task, {})], sections.train, sections.head.reader)
        self._trainer = Trainer(run, WORK / "bench-loop", fabric)
        self._learner: Learner = self._trainer.learner(1, None)
        calls: Sequence[tuple[str, Any, str]] = (
            ("forward", self._learner.head, "forward"),
            ("backward", fabric, "backward"),
            ("optimiser", fabric, "clip_gradients"),
            ("optimiser", self._learner.optimizer, "step"),
            ("optimiser", self._learner.optimizer, "zero_grad"),
            ("running average", self._learner.average, "update"),
        )
        for what, owner, name in calls:
            setattr(owner, name, self._clock.wrap(what, getattr(owner, name)))

    def epoch(self, number: int) -> Epoch:
        """Train an epoch as `Trainer.fit` does."""
        waits: list[loop.Clocked[AnyBatch]] = []

        class Noted(loop.Clocked[AnyBatch]):
            def __init__(self, *args: Any) -> None:  # noqa: ANN401 - as the class
                super().__init__(*args)
                waits.append(self)

        self._clock.seconds.clear()
        torch.manual_seed(number)
        with mock.patch.object(loop, "Clocked", Noted), deterministic():
            began, began_cpu = self._clock.now(), time.process_time()
            row = self._trainer.train_epoch(self._learner, number, Ticker("bench", 1, None))
            taken, cpu = self._clock.now() - began, time.process_time() - began_cpu
        parts = {**self._clock.seconds, "waiting for data": waits[0].waited}
        parts["rest"] = taken - sum(parts.values())
        if row["skipped_steps"]:
            sys.exit(f"{row['skipped_steps']:.0f} steps of epoch {number} weren't finite: lower train.lr")
        return Epoch(taken, cpu, parts, row["train_total"])


class BareSide:
    """What a loop can't do without."""

    def __init__(self, sections: TrainSections, sampler: Sampler, loss: MaskLoss) -> None:
        """Build the same head, with the same weights."""
        self._params, self._sampler, self._loss = sections.train, sampler, loss
        self._device = make_fabric(sections.train).device
        torch.manual_seed(sections.train.seed)
        self._head = build_head(sections.head.model, sampler.dataset.store.specs).to(self._device)
        self._optimizer = make_optimizer(self._head, sections.train)
        self._loading = Loading(sections.train.images_per_batch, sections.head.reader.load_threads, sections.head.reader.ahead)
        steps = -(-len(sampler.epoch_rows(sections.train.seed, 1)) // sections.train.images_per_batch)
        self._schedule = Schedule(sections.train, steps, sections.train.epochs)

    def epoch(self, number: int) -> Epoch:
        """Load an epoch, then train it by the clock."""
        clock, batches = Clock(self._device), self._load(number)
        first = (number - 1) * len(batches)
        rates = [self._schedule.rate(first + step) for step in range(len(batches))]
        losses: list[Tensor] = []
        self._head.train()
        torch.manual_seed(number)
        began, began_cpu = clock.now(), time.process_time()
        for rate, (features, boxes, targets) in zip(rates, batches, strict=True):
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            loss = self._loss(self._head(features, boxes), targets)["total"]
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self._head.parameters(), self._params.clip_norm)
            self._optimizer.step()
            self._optimizer.zero_grad()
            losses.append(loss.detach())
        taken, cpu = clock.now() - began, time.process_time() - began_cpu
        rois = torch.tensor([float(len(boxes)) for _, boxes, _ in batches])
        return Epoch(taken, cpu, {}, float((torch.stack(losses).cpu() * rois).sum() / rois.sum()))

    def _load(self, number: int) -> list[tuple[dict[str, Tensor], Tensor, Targets]]:
        scales = {name: torch.from_numpy(values) for name, values in self._sampler.dataset.store.scales.items()}
        return [
            (dequantise(batch.features, scales, self._device), batch.boxes.to(self._device), batch.targets.to(self._device))
            for batch in training_batches(self._sampler, self._loading, seed=self._params.seed, epoch=number)
        ]


def measure(head: str, rounds: int) -> dict[str, object]:
    """Epochs in turns, and what they say; returns what goes into the JSON."""
    sections = load_sections(head)
    sampler = Sampler(sections.head.open_split("train", INDEX, FEATURES), sections.sampler, Path("data/rois.parquet"))
    statistics_of_data = json.loads(Path("metrics/data_analyze.json").read_text())
    loss = MaskLoss(sections.loss, class_weights(sections.loss.class_weights, statistics_of_data))
    sides: dict[str, LoopSide | BareSide] = {"loop": LoopSide(sections, sampler, loss), "bare": BareSide(sections, sampler, loss)}
    done: dict[str, list[Epoch]] = {"loop": [], "bare": []}
    for number in range(1, rounds + 2):
        for name in sorted(sides, reverse=number % 2 == 0):
            epoch = sides[name].epoch(number)
            done[name].append(epoch)
    difference = max(abs(ours.loss - bare.loss) / bare.loss for ours, bare in zip(done["loop"], done["bare"], strict=True))
    if not difference <= SAME_LOSS:
        sys.exit(
            f"mean losses of an epoch differ by {difference:.1e}, expected at most {SAME_LOSS:.0e}: the sides didn't do the same"
        )
    ours, bare = (done[name][1:] for name in ("loop", "bare"))  # the first epoch compiles kernels
    total = sum(epoch.seconds for epoch in ours)
    shares = {what: sum(epoch.parts[what] for epoch in ours) / total for what in ours[0].parts}
    ratio = statistics.median(mine.seconds / other.seconds for mine, other in zip(ours, bare, strict=True))
    cpu = statistics.median(mine.cpu_seconds / other.cpu_seconds for mine, other in zip(ours, bare, strict=True))
    fastest = min(epoch.seconds for epoch in ours) / min(epoch.seconds for epoch in bare)
    step = sum(shares[what] for what in STEP)
    images = len(sampler.epoch_rows(sections.train.seed, 1))
    print(f"head {head}, {images} images an epoch, {rounds} epochs of each side, {torch.get_num_threads()} threads")
    print(f"of the loop's time: {', '.join(f'{what} {share:.1%}' for what, share in shares.items())}")
    print(f"in forward, backward and optimiser: {step:.1%}; losses differ by {difference:.1e}")
    print(f"loop over bare: {ratio:.3f}, of the fastest epochs {fastest:.3f}, in processor time {cpu:.3f}")
    return {
        "head": head,
        "images": images,
        "share_in_steps": step,
        "shares": shares,
        "loop_over_bare": ratio,
        "loop_over_bare_fastest": fastest,
        "loop_over_bare_cpu": cpu,
        "loss_difference": difference,
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--head", default="default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.head, options.rounds)
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
