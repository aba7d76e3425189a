"""Distillation from the cache against the same training with three models in memory, each in a process of its own.

    python -m bench.distill [--steps 48] [--rounds 3] [--json FILE]

Both sides make the same steps of the student by section `distill`, on the same batches in the same order, from the same weights,
with colours as they are. From the cache, the teacher's logits and the detector's maps are read with the images. Live, only the
images are read; then the teacher's U-net in torch and a session of the cut detector run on each batch, and what they give is
brought to the stored types. A third process trains the same student by the truth alone, without teacher and features: the least
that is needed.

Prints the peak of RssAnon + RssShmem of each (see bench/memory.py), steps a second of the one side over those of the other, and
the largest relative difference of a step's losses: the cached logits are onnxruntime's. The first steps of a process aren't
timed. Needs the outs of `dvc repro`; writes only to a temporary folder in `.work`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.memory import peak_mb
from roiseg.batches import Loading
from roiseg.cache.scales import load_scales
from roiseg.distill.distill import make_task
from roiseg.distill.params import DistillParams
from roiseg.extractor.session import Backbone
from roiseg.files import write_json
from roiseg.network_input import Pixels, as_input
from roiseg.params import load_params, load_section
from roiseg.stored import StoredSections
from roiseg.train.checkpoint import BEST
from roiseg.train.learner import Learner
from roiseg.train.memory import limit_kernels
from roiseg.train.run import Phase
from roiseg.train.step import Sums
from roiseg.train.world import World, deterministic, make_fabric
from roiseg.types import IMAGE, TEACHER
from roiseg.unet.data import PersonBatch
from roiseg.unet.params import UnetParams, net_training
from roiseg.unet.train import MODELS, load_unet, open_people
from roiseg.work import WORK

SIDES = {
    "student": "the student by the truth alone, nothing else in memory",
    "cached": "distillation from the cache",
    "live": "distillation with teacher and detector in memory",
}
UNTIMED = 2
"""First steps of a process, which compile kernels and wait for the first batch."""
SAME_LOSS = 0.05
"""Largest difference of a step's losses between the sides, as a share: a rounding grows from step to step."""


class Step(NamedTuple):
    """What a step did and took.

    Attributes:
        rows: of the index.
        loss: its total.
        seconds: of the whole, waiting for data and live models among them.
    """

    rows: list[int]
    loss: float
    seconds: float


@dataclass(frozen=True)
class Round:
    """What a round of all sides took.

    Attributes:
        peak_mb: side -> memory.
        seconds: side -> a step's, the median.
        differences: of losses, see `differences`.
    """

    peak_mb: Mapping[str, float]
    seconds: Mapping[str, float]
    differences: tuple[float, float]


class LiveModels:
    """The teacher and the detector, in memory beside the student."""

    def __init__(self, unet: UnetParams, stored: StoredSections, layers: list[str], device: torch.device) -> None:
        """Open both.

        Args:
            unet: section of that name.
            stored: sections of the store.
            layers: of the detector that the student is aligned to.
            device: of the teacher.
        """
        self._extractor, self._layers, self._device = stored.extractor, layers, device
        self._teacher = load_unet(MODELS / BEST, unet.model, stored.extractor.input_hw).to(device)
        scales = load_scales(Path("data/scales.npz"))
        provider, precision = stored.extractor.provider, stored.extractor.precision
        self._detector = Backbone(Path("data/backbone.onnx"), provider, precision, scales)
        self._out = self._detector.buffers(layers, stored.extractor.batch_size)

    def complete(self, batch: PersonBatch) -> PersonBatch:
        """The batch with what the cache would hold of its images."""
        images = batch.features[IMAGE]
        features = self._detect(images.numpy()) if self._layers else {}
        with torch.no_grad():
            logits = self._teacher(images.to(self._device).float() / 255)
        return replace(batch, features={IMAGE: images, **features, TEACHER: logits.to(torch.float16).cpu()})

    def _detect(self, images: Pixels) -> dict[str, Tensor]:
        rule, size = self._extractor.input_rule(), self._extractor.batch_size
        parts: dict[str, list[Tensor]] = {name: [] for name in self._layers}
        for start in range(0, len(images), size):
            part = images[start : start + size]
            padded = np.zeros((size, *part.shape[1:]), dtype=np.uint8)
            padded[: len(part)] = part if rule.color == "rgb" else part[:, ::-1]
            self._detector.run_into(as_input(padded, rule), self._out, detect=False)
            for name, values in self._out.items():
                parts[name].append(torch.from_numpy(values[: len(part)].copy()))
        return {name: torch.cat(found) for name, found in parts.items()}


def load_params_of(side: str) -> DistillParams:
    """Section `distill` with colours as they are; for `student`, without anybody to learn from but the truth."""
    params = load_section(DistillParams, "distill", load_params())
    params = params.model_copy(update={"augment": "none", "eliminate": None})
    if side != "student":
        return params
    loss = params.loss.model_copy(update={"kl": 0.0, "mse": 0.0, "feature": 0.0, "bce": params.loss.bce or 1.0})
    return params.model_copy(update={"loss": loss, "features": None})


def train(side: str, root: Path) -> None:
    """Make the steps of a side, and write rows, loss and seconds of each to `root/SIDE.json`."""
    limit_kernels()
    values, params = load_params(), load_params_of(side)
    stored, unet = StoredSections.load(values), load_section(UnetParams, "unet", values)
    training = net_training(params.train, "distill.train")
    detected = [] if params.features is None else list(params.features.layers)
    cached = side == "cached"
    layers = [IMAGE, *detected, TEACHER] if cached else [IMAGE]
    splits = (
        open_people(stored, "train", layers, params.model, teacher=cached),
        open_people(stored, "val", layers, params.model, teacher=cached),
    )
    task = make_task(params, splits, stored.extractor.input_hw, training.weight_decay)
    fabric = make_fabric(training)
    models = LiveModels(unet, stored, detected, fabric.device) if side == "live" else None
    torch.manual_seed(training.seed)
    learner = Learner(fabric, World(fabric), Phase(None, None, task, {}), training)
    pinned = fabric.device.type == "cuda"
    loading = Loading(training.images_per_batch, stored.reader.load_threads, stored.reader.ahead, pinned=pinned)
    steps: list[Step] = []
    learner.begin_epoch(1)
    learner.wrapped.train()
    task.begin_epoch(0.0, 1)
    learner.set_rate(training.lr)
    batches = (batch for epoch in count(1) for batch in task.batches(loading, training.seed, epoch))
    with deterministic(), closing(batches):
        began = time.perf_counter()
        for number in range(int((root / "steps").read_text())):
            batch = next(batches)
            loss = step(learner, batch if models is None else models.complete(batch), number)
            now = time.perf_counter()
            steps.append(Step(list(batch.rows), loss, now - began))
            began = now
    (root / f"{side}.json").write_text(json.dumps(steps))


def step(learner: Learner, batch: PersonBatch, number: int) -> float:
    """Forward, backward, optimiser, running average; returns the loss once the device is done."""
    sums = Sums()
    if wrong := learner.stepper.step([batch], sums):
        sys.exit(f"the {wrong.what} is {wrong.value} on rows {list(wrong.rows)}")
    learner.average.update(learner.head, number)
    return sums.means()["total"]


def train_student(root: Path) -> None:
    """The student by the truth alone."""
    train("student", root)


def train_cached(root: Path) -> None:
    """Distillation from the cache."""
    train("cached", root)


def train_live(root: Path) -> None:
    """Distillation with three models in memory."""
    train("live", root)


def differences(cached: Sequence[Step], live: Sequence[Step]) -> tuple[float, float]:
    """Difference of losses in the first step, and the largest of any, as shares; ends the program where a side was shown others."""
    if [step.rows for step in cached] != [step.rows for step in live]:
        sys.exit("the sides trained on different batches")
    found = [abs(ours.loss - theirs.loss) / abs(ours.loss) for ours, theirs in zip(cached, live, strict=True)]
    if not max(found) <= SAME_LOSS:
        sys.exit(f"a step's losses differ by {max(found):.3f}, expected at most {SAME_LOSS}: the sides saw different maps")
    return found[0], max(found)


def rounds_of(steps: int, rounds: int) -> list[Round]:
    """Every side once a round, so that a noisy machine disturbs all alike."""
    work = {"student": train_student, "cached": train_cached, "live": train_live}
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=WORK) as temporary:
            root = Path(temporary)
            (root / "steps").write_text(str(steps))
            peaks = {side: peak_mb(train_side, root) for side, train_side in work.items()}
            made = {side: [Step(*item) for item in json.loads((root / f"{side}.json").read_text())] for side in work}
        taken = {side: statistics.median(item.seconds for item in made[side][UNTIMED:]) for side in work}
        found.append(Round(peaks, taken, differences(made["cached"], made["live"])))
    return found


def measure(steps: int, rounds: int) -> dict[str, object]:
    """All rounds, and what they say; returns what goes into the JSON."""
    found = rounds_of(steps, rounds)
    peaks = {side: statistics.median(item.peak_mb[side] for item in found) for side in found[0].peak_mb}
    ratio = statistics.median(item.seconds["live"] / item.seconds["cached"] for item in found)
    student = statistics.median(item.seconds["student"] / item.seconds["cached"] for item in found)
    first, largest = (max(item.differences[place] for item in found) for place in (0, 1))
    print(f"{steps} steps of each side, median of {rounds} rounds")
    for side, peak in peaks.items():
        print(f"{SIDES[side]:56}{peak:6.0f} MB")
    print(
        f"steps a second from the cache: {ratio:.2f} times those with three models, {student:.2f} times those of the student alone"
    )
    print(f"losses of the sides differ by {first:.1e} in the first step, by {largest:.1e} at most")
    return {
        "steps": steps,
        "peak_mb": peaks,
        "cached_over_live": ratio,
        "cached_over_student": student,
        "first_loss_difference": first,
        "loss_difference": largest,
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.steps <= UNTIMED:
        sys.exit(f"--steps is {options.steps}, expected more than {UNTIMED}: so many at the start aren't timed")
    WORK.mkdir(exist_ok=True)
    result = measure(options.steps, options.rounds)
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
