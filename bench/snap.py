"""What a further box costs each Snapper, side by side in one run: on features that are there already, and on crops of its own.

    python -m bench.snap [--boxes 1 17] [--rounds 5] [--json FILE]

The one is the model of section `snapper`, which is given the stored layers of an image; the other is the published model, a
ResNet-50 on crops of 224 pixels with a single scale of stride 32, the cheapest there is. In each round both answer the fewer boxes
and the more boxes of one image; what lies between, over the boxes between, is what a box costs, and what is left of the fewer is
what an image costs: in processor time on a processor, where others may be at work too, and in time on CUDA. Told are medians over
the rounds, the ratio of both within a round (its median, least and most), and the peak of memory that tensors take for the more
boxes beside weights and inputs, counted from their shapes.

Runs on the processor, and on CUDA where there is a device. Weights are fresh and features random: neither makes a difference to
the speed. Needs the outs of `dvc repro extract`, of which it reads the shapes alone; writes nothing but FILE.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from roiseg.evaluate.complexity import example
from roiseg.evaluate.live_bytes import LiveBytes
from roiseg.files import write_json
from roiseg.params import PARAMS_FILE, load_section, read_yaml
from roiseg.progress import progress
from roiseg.snapper.build import build_snapper
from roiseg.snapper.checks import snapper_layers
from roiseg.snapper.params import CropModelParams, SnapModelParams, SnapperParams
from roiseg.stored import StoredSections
from roiseg.types import HW, IMAGE, FeatureSpec

BOXES = (1, 17)
WARM_UP = 2

CROP = CropModelParams(
    kind="crop",
    backbone="resnet50",
    weights="none",
    crop_px=224,
    positions=224,
    sampling_ratio=2,
    scales="single",
    stride=32,
    upsample="linear",
    decoder_channels=(512,),
    prior="none",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
"""The published model."""


@dataclass(frozen=True)
class Side:
    """A model and an image for it, on one device.

    Attributes:
        module: in eval mode.
        features: layer -> (1, C, H, W).
        windows: (R, 5), the most that are asked about.
    """

    module: nn.Module
    features: Mapping[str, Tensor]
    windows: Tensor

    @classmethod
    def make(
        cls, model: SnapModelParams, specs: Mapping[str, FeatureSpec], image_hw: HW, boxes: int, device: torch.device
    ) -> "Side":
        """With fresh weights, on random features.

        Args:
            model: sub-section `snapper.model`.
            specs: of the layers, by name.
            image_hw: size of the network input.
            boxes: R.
            device: where it runs.
        """
        layers = snapper_layers(model)
        *maps, windows = example([specs[name] for name in layers], image_hw, boxes)
        module = build_snapper(model, specs, image_hw, weights=False).eval().to(device)
        return cls(module, {name: values.to(device) for name, values in zip(layers, maps, strict=True)}, windows.to(device))

    def answer(self, boxes: int) -> Tensor:
        """Logits of so many boxes."""
        with torch.inference_mode():
            logits: Tensor = self.module(self.features, self.windows[:boxes])
        return logits

    def peak_mib(self) -> float:
        """Of the tensors that are alive at once while all boxes are answered, but for weights and inputs."""
        inputs = [*self.features.values(), self.windows]
        with torch.no_grad(), LiveBytes([], [*self.module.parameters(), *self.module.buffers(), *inputs]) as live:
            self.module(self.features, self.windows)
        return float(live.peak / 2**20)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Of one pass, see the module."""
    clock: Callable[[], float] = time.perf_counter if device.type == "cuda" else time.process_time
    began = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def take_turns(
    sides: Mapping[str, Side], boxes: tuple[int, int], rounds: int, device: torch.device
) -> dict[str, list[list[float]]]:
    """Side -> seconds of each round, for the fewer and for the more boxes."""
    times: dict[str, list[list[float]]] = {name: [] for name in sides}
    with progress("snap", WARM_UP + rounds) as tick:
        for number in range(WARM_UP + rounds):
            for name in sorted(sides, reverse=number % 2 == 0):
                taken = [seconds_of(partial(sides[name].answer, count), device) for count in boxes]
                if number >= WARM_UP:
                    times[name].append(taken)
            tick()
    return times


def compare(sides: Mapping[str, Side], boxes: tuple[int, int], rounds: int, device: torch.device) -> dict[str, Any]:
    """What is told of one device."""
    fewer, more = boxes
    times = take_turns(sides, boxes, rounds, device)
    each = {name: [(long - short) / (more - fewer) for short, long in pairs] for name, pairs in times.items()}
    images = {name: [short - fewer * box for (short, _), box in zip(times[name], each[name], strict=True)] for name in sides}
    ratios = [crop / cached for crop, cached in zip(each["crop"], each["cached"], strict=True)]
    return {
        "ms_per_box": {name: statistics.median(values) * 1000 for name, values in each.items()},
        "ms_per_image": {name: statistics.median(values) * 1000 for name, values in images.items()},
        "crop_over_cached": statistics.median(ratios),
        "crop_over_cached_range": [min(ratios), max(ratios)],
        "peak_mib": {name: side.peak_mib() for name, side in sides.items()},
    }


def measure(boxes: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Device -> figures, beside the numbers of boxes and parameters."""
    values = read_yaml(PARAMS_FILE)
    params, stored = load_section(SnapperParams, "snapper", values), StoredSections.load(values)
    if params.model.kind != "cached":
        raise SystemExit(f"snapper.model.kind is {params.model.kind!r}, expected 'cached': that is what is compared with crops")
    _, store = stored.open("val")
    specs = {**store.specs, IMAGE: FeatureSpec(IMAGE, 3, (1.0, 1.0))}
    found: dict[str, Any] = {"boxes": list(boxes)}
    for device in [torch.device(name) for name in (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])]:
        models: dict[str, SnapModelParams] = {"cached": params.model, "crop": CROP}
        sides = {name: Side.make(model, specs, stored.extractor.input_hw, boxes[1], device) for name, model in models.items()}
        found["parameters"] = {name: sum(item.numel() for item in side.module.parameters()) for name, side in sides.items()}
        found[device.type] = compare(sides, boxes, rounds, device)
    return found


def tell(found: Mapping[str, Any], devices: Sequence[str]) -> None:
    """Print what was measured."""
    for device in devices:
        figures = found[device]
        for name, count in found["parameters"].items():
            box, image, peak = (figures[key][name] for key in ("ms_per_box", "ms_per_image", "peak_mib"))
            print(f"{device}, {name:6}: {box:8.3f} ms a box, {image:8.3f} ms an image, peak {peak:7.1f} MiB, {count:,} parameters")
        low, high = figures["crop_over_cached_range"]
        print(f"{device}: a box costs the crop model {figures['crop_over_cached']:.1f} times as much ({low:.1f} to {high:.1f})")


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--boxes", type=int, nargs=2, default=list(BOXES), metavar=("FEWER", "MORE"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    fewer, more = options.boxes
    if not 0 < fewer < more:
        parser.error(f"--boxes is {fewer} {more}, expected two numbers from 1, the first the smaller")
    found = measure((fewer, more), options.rounds)
    tell(found, [name for name in ("cpu", "cuda") if name in found])
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
