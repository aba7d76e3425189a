"""A head trained in float32 and in mixed precision, side by side in one run: how fast, how much memory, and what it scores.

    python -m bench.precision [--head default] [--precision bf16-mixed] [--epochs 8] [--json FILE]

Both sides begin with the same weights and see the same batches; epochs take turns. On a processor mixed precision is there to be
tried, not to be fast; on a GPU the peak of allocated memory is told too. `bench.loop` tells what training waits for data. Needs the
outs of `dvc repro`; writes nothing but FILE.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from bench.places import PATHS
from roiseg.files import write_json
from roiseg.params import load_params
from roiseg.progress import Ticker
from roiseg.train.head_task import LEAD
from roiseg.train.loop import Trainer
from roiseg.train.train import TrainSections, make_run
from roiseg.train.world import deterministic
from roiseg.work import WORK


class Side:
    """A run in one precision, epoch by epoch."""

    def __init__(self, head: str, precision: str, epochs: int) -> None:
        """Set up on the device of `train.device`.

        Args:
            head: an entry of `heads`.
            precision: of `train.precision`.
            epochs: of the run, for the learning rate.
        """
        values = load_params(head)
        values["train"] |= {"precision": precision, "epochs": epochs, "devices": 1, "phases": []}
        self._trainer = Trainer(make_run(TrainSections.load(values), PATHS, []), WORK / f"bench-{precision}")
        self._learner = self._trainer.learner(1, None)
        self._random = torch.get_rng_state()

    def epoch(self, number: int) -> float:
        """Train an epoch, counted from 1; returns its seconds."""
        torch.set_rng_state(self._random)  # the other side has drawn since
        with deterministic():
            began = time.perf_counter()
            self._trainer.train_epoch(self._learner, number, Ticker("bench", 1, None))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken = time.perf_counter() - began
        self._random = torch.get_rng_state()
        return taken

    def score(self) -> float:
        """`miou_fg_roi` on the validation split."""
        return self._trainer.validate(self._learner)[LEAD]


def measure(head: str, precision: str, epochs: int) -> dict[str, object]:
    """Train both sides, and say what came out; returns what goes into the JSON."""
    sides = {name: Side(head, name, epochs) for name in ("32-true", precision)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peaks: dict[str, float] = dict.fromkeys(sides, 0.0)
    for number in range(1, epochs + 1):
        for name in sorted(sides, reverse=number % 2 == 0):
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            seconds[name].append(sides[name].epoch(number))
            if torch.cuda.is_available():
                peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated() / 2**20)
    scores = {name: side.score() for name, side in sides.items()}
    pairs = list(zip(seconds["32-true"], seconds[precision], strict=True))
    speed = statistics.median(plain / mixed for plain, mixed in pairs[len(pairs) > 1 :])  # the first one compiles kernels
    print(f"head {head}, {epochs} epochs of each: {precision} is {speed:.2f} times as fast as 32-true")
    print(f"{LEAD}: " + ", ".join(f"{name} {score:.4f}" for name, score in scores.items()))
    if torch.cuda.is_available():
        print("peak of allocated memory: " + ", ".join(f"{name} {peak:.0f} MiB" for name, peak in peaks.items()))
    return {
        "head": head,
        "precision": precision,
        "epochs": epochs,
        "mixed_over_plain_speed": speed,
        "scores": scores,
        "peaks_mib": peaks,
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--head", default="default")
    parser.add_argument("--precision", choices=("bf16-mixed", "16-mixed"), default="bf16-mixed")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.head, options.precision, options.epochs)
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
