"""How long an image takes on the way from pixels to masks, part by part, and the same in one ONNX.

    python -m bench.latency [--head default] [--filter fast] [--rois 1 3 10 50] [--rounds 9] [--no-compile] [--json FILE]

Runs on the processor, and on CUDA where there is a device. All ways of a part take turns in each round; told is the median over
the rounds and its ratio to the first way of the part, since a time alone says little on a machine that others use too. Needs the
outs of `dvc repro`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from roiseg.evaluate.complexity import example
from roiseg.export.filter_onnx import export_filter
from roiseg.export.params import ExportParams
from roiseg.extractor.images import decode, read_bytes
from roiseg.files import write_json
from roiseg.filters import FilterParams
from roiseg.geometry import Floats
from roiseg.network_input import InputRule, Pixels, as_input, network_image
from roiseg.onnx_names import BACKBONE_FILE, BOXES, END_TO_END_FILES, HEAD_FILE, OUTPUT, VARIANT_FILES, feature_input
from roiseg.overlap import resolve
from roiseg.params import load_params, load_section
from roiseg.placed import paste_target
from roiseg.predict import Predictor
from roiseg.predict.smoothing import Smoothing
from roiseg.progress import progress
from roiseg.runtime import make_session
from roiseg.trained import HEADS, INDEX, HeadSections, load_head
from roiseg.types import IMAGE, FeatureSpec, Provider
from roiseg.work import WORK

ONNX = Path("models/onnx")
ROIS = (1, 3, 10, 50)
WARM_UP = 2

Ways = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        folder: that `export` wrote.
        head: the same head in torch, in eval mode.
        specs: its layers, in order.
        input_hw: size of the network input.
        pixels: an image (H, W, 3), BGR.
        compile: whether torch compiles too.
        rounds: passes of each way.
    """

    folder: Path
    head: nn.Module
    specs: list[FeatureSpec]
    input_hw: tuple[int, int]
    pixels: Pixels
    compile: bool
    rounds: int


def open_setting(name: str, rounds: int, *, compiled: bool) -> Setting:
    """The head `name`, and the first picture that `prepare` kept of the validation split."""
    values = load_params(name)
    sections = HeadSections.load(values)
    val = sections.open_split("val")
    head, _ = load_head(HEADS / name, load_section(ExportParams, "export", values).checkpoint, sections, val)
    picture = sorted((INDEX / "val" / "pictures").iterdir())[0]
    specs = [val.store.specs[layer] for layer in val.layers]
    return Setting(
        ONNX / name, head, specs, sections.extractor.input_hw, decode(read_bytes(picture), picture.name), compiled, rounds
    )


def boxes_in(pixels: Pixels, rois: int) -> Floats:
    """(R, 4) xyxy, image frame: people of a fifth to a half of the image's height, anywhere."""
    rng = np.random.default_rng(0)
    height, width = pixels.shape[:2]
    size = rng.uniform(0.2, 0.5, (rois, 1)) * height * np.array([[0.4, 1.0]])
    corner = rng.random((rois, 2)) * (np.array([[width, height]]) - size)
    return np.concatenate([corner, corner + size], axis=1)


def take_turns(ways: Mapping[str, Callable[[], object]], rounds: int, device: str) -> dict[str, dict[str, float]]:
    """Way -> its median `ms`, and `ratio` to the first way."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM_UP + rounds):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if number >= WARM_UP:
                times[name].append((time.perf_counter() - began) * 1000)
    medians = {name: statistics.median(values) for name, values in times.items()}
    first = next(iter(medians.values()))
    return {name: {"ms": round(value, 3), "ratio": round(value / first, 3)} for name, value in medians.items()}


def head_ways(setting: Setting, rois: int, provider: Provider) -> Ways:
    """The head on features of one image: each file of it in onnxruntime, torch eager and compiled."""
    device = torch.device("cuda" if provider == "cuda" else "cpu")
    *maps, boxes = example(setting.specs, setting.input_hw, rois)
    names = [*(feature_input(spec.name) for spec in setting.specs), BOXES]
    ways: Ways = {}
    for file in (HEAD_FILE, *VARIANT_FILES.values()):
        if (setting.folder / file).is_file():
            session, _ = make_session(setting.folder / file, provider, "float32", whole=False)
            ways[f"onnxruntime {file}"] = _bound(session, dict(zip(names, (*maps, boxes), strict=True)), provider)
    head = setting.head.to(device)
    features = {spec.name: values.to(device) for spec, values in zip(setting.specs, maps, strict=True)}
    ways["torch eager"] = _without_gradients(head, features, boxes.to(device))
    if setting.compile:
        ways["torch compiled"] = _without_gradients(torch.compile(head, dynamic=True), features, boxes.to(device))
    return ways


def _without_gradients(head: Callable[..., object], features: Mapping[str, Tensor], boxes: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return head(features, boxes)

    return run


def _bound(session: onnxruntime.InferenceSession, feeds: Mapping[str, Tensor], device: str) -> Callable[[], object]:
    """A pass whose inputs and outputs stay on the device, as those of torch do."""
    binding = session.io_binding()
    for name, values in feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values), device))
    binding.bind_output(OUTPUT, device)
    return lambda: session.run_with_iobinding(binding)


def part_ways(setting: Setting, rois: int, provider: Provider, filter_file: Path) -> Ways:
    """The parts of the way from an image to its masks, beside the backbone's bare session; paste and filter are the processor's."""
    predictor, boxes = Predictor(setting.folder, provider, filter_file=None), boxes_in(setting.pixels, rois)
    rule = InputRule.from_plain(predictor.metadata["input"])
    backbone, _ = make_session(setting.folder / BACKBONE_FILE, provider, "float32")
    batch = np.repeat(as_input(network_image(setting.pixels, rule), rule)[None], _batch_size(backbone), axis=0)
    layers = [name for name in predictor.metadata["layers"] if name != IMAGE]
    head, _ = make_session(setting.folder / HEAD_FILE, provider, "float32", whole=False)
    (encoded,) = predictor.encode([setting.pixels])
    image_hw = encoded.image_hw
    resize = rule.resizing(image_hw)
    numbered = np.concatenate([np.zeros((rois, 1)), resize.boxes_to_unit(boxes)], axis=1).astype(np.float32)
    feeds = {**encoded.features, BOXES: numbered}
    (found,) = head.run([OUTPUT], feeds)
    people = [paste_target(probabilities, box, image_hw) for probabilities, box in zip(found, boxes, strict=True)]
    smooth = Smoothing(filter_file, provider)
    return {
        "bare session of the backbone": lambda: backbone.run(layers, {backbone.get_inputs()[0].name: batch}),
        "backbone from pixels to features": lambda: predictor.encode([setting.pixels]),
        "head": lambda: head.run([OUTPUT], feeds),
        "paste": lambda: [paste_target(values, box, image_hw) for values, box in zip(found, boxes, strict=True)],
        "overlaps": lambda: resolve(people),
        "filter": lambda: [smooth(person, image_hw) for person in people],
    }


def _batch_size(session: onnxruntime.InferenceSession) -> int:
    size = session.get_inputs()[0].shape[0]
    return size if isinstance(size, int) else 1


def whole_ways(setting: Setting, rois: int, provider: Provider) -> Ways:
    """An image from pixels to masks, in one ONNX and step by step."""
    predictor, boxes = Predictor(setting.folder, provider), boxes_in(setting.pixels, rois)
    whole: Ways = {"step by step": lambda: predictor.masks(predictor.encode([setting.pixels])[0], boxes)}
    file = setting.folder / END_TO_END_FILES["boxes"]
    if file.is_file():
        session, _ = make_session(file, provider, "float32", whole=False)
        given = np.concatenate([np.zeros((rois, 1)), boxes], axis=1).astype(np.float32)
        images = np.repeat(setting.pixels[None], _batch_size(session), axis=0)
        whole[file.name] = lambda: session.run([OUTPUT], {"images": images, BOXES: given})
    return whole


def measure(setting: Setting, kind: str, counts: Sequence[int]) -> dict[str, Any]:
    """Device -> part -> way -> `ms` and `ratio`."""
    found: dict[str, Any] = {}
    providers: list[Provider] = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    with tempfile.TemporaryDirectory(dir=WORK) as folder, progress("latency", len(providers) * len(counts)) as tick:
        filter_file = Path(folder) / "filter.onnx"
        export_filter(FilterParams.parse({"kind": kind}, "--filter"), channels=1, opset=18, path=filter_file)
        for provider in providers:
            told = found[provider] = {}
            for rois in counts:
                made = {
                    "head": head_ways(setting, rois, provider),
                    "parts": part_ways(setting, rois, provider, filter_file),
                    "image": whole_ways(setting, rois, provider),
                }
                for group, ways in made.items():
                    told[f"{group}, {rois} ROIs"] = take_turns(ways, setting.rounds, provider)
                tick()
    return found


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--head", default="default")
    parser.add_argument("--filter", default="fast")
    parser.add_argument("--rois", type=int, nargs="+", default=list(ROIS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    found = measure(open_setting(options.head, options.rounds, compiled=not options.no_compile), options.filter, options.rois)
    for provider, groups in found.items():
        for group, ways in groups.items():
            print(f"{provider}, {group}")
            for name, figures in ways.items():
                print(f"  {name:32} {figures['ms']:10.2f} ms  {figures['ratio']:7.2f}")
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
