"""Presets at equal budgets: what each scores on the validation split, and what it costs.

    python -m bench.presets --heads real-baseline default [--seeds 0 1 2] [--minutes 5] [--jobs 2] [--json FILE]

A budget is so many minutes of one core's time in training, which other work on the machine doesn't shorten: as many epochs as go
into it by the second of two, the first of which compiles kernels. All rows have the optimiser, the augmentation and the
data of params.yaml; scores are those of the last epoch, not of the best. Needs the outs of `dvc repro extract analyze`. Writes
nothing but FILE, whose runs a second call doesn't repeat.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from bench.places import PATHS
from roiseg.errors import ParamsError
from roiseg.evaluate.complexity import count, milliseconds
from roiseg.files import write_json
from roiseg.heads import build_head
from roiseg.params import load_params
from roiseg.progress import Ticker
from roiseg.train.head_task import LEAD
from roiseg.train.loop import Trainer
from roiseg.train.train import TrainSections, make_run
from roiseg.train.world import deterministic
from roiseg.work import WORK

FIGURES = (LEAD, "iou_target_roi", "iou_nontarget_roi")

Rows = dict[str, Any]
"""Preset -> its `minutes`, the `epochs` that go into them, and `seeds`: seed -> figures and `seconds` of one core."""


def make_trainer(head: str, seed: int, epochs: int) -> Trainer:
    """A trainer of the preset `head` on one core, for a run of so many epochs."""
    torch.set_num_threads(1)
    values = load_params(head)
    values["train"] |= {"seed": seed, "epochs": epochs, "device": "cpu", "devices": 1, "phases": []}
    return Trainer(make_run(TrainSections.load(values), PATHS, []), WORK / f"bench-presets-{head}-{seed}")


def seconds_of_epoch(head: str) -> float:
    """One core's seconds for an epoch."""
    trainer = make_trainer(head, 0, 2)
    with deterministic():
        learner = trainer.learner(1, None)
        trainer.train_epoch(learner, 1, Ticker(head, 1, None))
        began = time.process_time()
        trainer.train_epoch(learner, 2, Ticker(head, 1, None))
    return time.process_time() - began


def train(head: str, seed: int, epochs: int) -> dict[str, float]:
    """Train; figures of the last epoch, and what it took."""
    trainer, began = make_trainer(head, seed, epochs), time.process_time()
    with deterministic():
        learner = trainer.learner(1, None)
        for epoch in range(1, epochs + 1):
            trainer.train_epoch(learner, epoch, Ticker(f"{head} seed {seed}", 1, None))
        taken = time.process_time() - began
        figures = trainer.validate(learner)
    return {name: figures[name] for name in FIGURES} | {"seconds": taken}


def measure(heads: Sequence[str], seeds: Sequence[int], minutes: float, jobs: int, file: Path | None) -> Rows:
    """Train what FILE doesn't hold, one seed of all presets before the next; what ends is written at once."""
    found: Rows = json.loads(file.read_text()) if file and file.is_file() else {}
    for head, row in found.items():
        if row["minutes"] != minutes:
            raise ParamsError(f"{file}: {head} was given {row['minutes']} minutes, now --minutes is {minutes}; name another file")
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        new = [head for head in heads if head not in found]
        for head, seconds in zip(new, pool.map(seconds_of_epoch, new), strict=True):
            found[head] = {"minutes": minutes, "epochs": max(1, int(60 * minutes / seconds)), "seeds": {}}
            print(f"{head}: {seconds:.1f} s an epoch, {found[head]['epochs']} epochs", flush=True)
        missing = [(head, seed) for seed in seeds for head in heads if str(seed) not in found[head]["seeds"]]
        running = {pool.submit(train, head, seed, found[head]["epochs"]): (head, seed) for head, seed in missing}
        for future in as_completed(running):
            head, seed = running[future]
            figures = found[head]["seeds"][str(seed)] = future.result()
            if file:
                write_json(file, found)
            print(f"{head}, seed {seed}: {LEAD} {figures[LEAD]:.4f} after {figures['seconds']:.0f} s", flush=True)
    return found


def cost(head: str) -> str:
    """Columns of a preset's row: parameters, operations and time."""
    sections = TrainSections.load(load_params(head)).head
    specs = sections.open_split("val").store.specs
    net, layers, input_hw = build_head(sections.model, specs).eval(), sections.model.layers, sections.extractor.input_hw
    counted = count(net, [specs[name] for name in layers], input_hw)
    took = milliseconds(net, [specs[name] for name in layers], input_hw)
    return f"{counted.parameters:,} | {counted.gflops_per_roi:.2f} | {took:.0f}"


def table(found: Rows, heads: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Lines of Markdown, the best row first."""
    rows = []
    for head in heads:
        runs = [found[head]["seeds"][str(seed)] for seed in seeds]
        means = [statistics.fmean(run[name] for run in runs) for name in FIGURES]
        each, mean = ", ".join(f"{run[LEAD]:.3f}" for run in runs), " | ".join(f"{value:.3f}" for value in means)
        rows.append((means[0], f"| `{head}` | {mean} | {each} | {found[head]['epochs']} | {cost(head)} |"))
    titles = ["preset", *FIGURES, f"{LEAD} of seeds {', '.join(map(str, seeds))}"]
    titles += ["epochs", "parameters", "GFLOPs an ROI", "ms for 10 ROIs"]
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *(line for _, line in sorted(rows, reverse=True))]


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--heads", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.heads, options.seeds, options.minutes, options.jobs, options.json)
    print("\n".join(table(found, options.heads, options.seeds)))
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
