"""Tests of roiseg.evaluate.complexity: operations counted by hand, what counts don't depend on, and what is timed."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from head_factory import COMPOSED, MODELS, fresh_head
from torch import Tensor, nn

from roiseg.evaluate.complexity import (
    MIB,
    REPEATS,
    WARM_UP,
    count,
    counted_figures,
    example,
    flops,
    median_ms,
    milliseconds,
    peak_bytes,
)
from roiseg.evaluate.live_bytes import LiveBytes
from roiseg.heads import FAMILIES, build_head, parse_model
from roiseg.nn.attention import CellAttention
from roiseg.params import overlay
from roiseg.types import FeatureSpec

INPUT_HW = (64, 96)
SPECS = {"layer_34": FeatureSpec("layer_34", 6, (8.0, 8.0)), "layer_3": FeatureSpec("layer_3", 4, (4.0, 4.0))}
LAYERS = list(SPECS.values())
OTHERS = {"image": FeatureSpec("image", 3, (1.0, 1.0)), "teacher": FeatureSpec("teacher", 1, (2.0, 2.0))}
STRIPES = [FeatureSpec("stripes", 4, (8.0, 16.0))]


def head_of(family: str) -> tuple[nn.Module, list[FeatureSpec]]:
    """A small head in eval mode, and its layers."""
    specs, params = SPECS | OTHERS, parse_model(MODELS[family])
    return build_head(params, specs).eval(), [specs[name] for name in params.layers]


class OneLayer(nn.Module):
    """A head that does one thing to its layer, and notes what it was given."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.given: list[tuple[torch.Size, Tensor]] = []

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> Tensor:
        self.given.append((features["stripes"].shape, boxes))
        done: Tensor = self.part(features["stripes"])
        return done


def test_convolutions_by_hand() -> None:
    """`roi_crop`: 10 channels to 8, 8 to 8, up to the mask, 8 to 8 and 8 to 3."""
    head = build_head(parse_model(MODELS["roi_crop"]), SPECS)
    aligned = 6 * 8 * 10 * 8  # cells, channels; one sample of four multiply-adds
    on_grid = 6 * 8 * 2 * 9 * (10 * 8 + 8 * 8)
    on_mask = 12 * 10 * 2 * (9 * 8 * 8 + 8 * 3)
    found = count(head, LAYERS, INPUT_HW)
    assert found.gflops_per_roi == pytest.approx((aligned + on_grid + on_mask) / 1e9, rel=1e-12)
    assert found.gflops_per_image == pytest.approx(10 * found.gflops_per_roi, rel=1e-12)
    assert (found.rois, found.parameters) == (10, 10 * 8 * 9 + 8 * 3 + 8 * 8 * 9 + 8 * 3 + 8 * 8 * 9 + 8 + 8 * 3 + 3)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), 2 * 9 * 4 * 6 * 48),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), 2 * 9 * 4 * 48),
        (nn.Conv2d(4, 6, 3, padding=1, stride=2), 2 * 9 * 4 * 6 * 12),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), 2 * 4 * 4 * 6 * 48),
        (CellAttention(4), 2 * 48 * (4 * 12 + 2 * 48 * 4 + 4 * 4)),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Upsample(scale_factor=2)), 0),
    ],
    ids=["plain", "grouped", "stride", "transposed", "attention", "not counted"],
)
def test_parts_by_hand(part: nn.Module, expected: int) -> None:
    """A layer of 8 x 6 cells: 64 rows over 8, 96 columns over 16."""
    assert flops(OneLayer(part), STRIPES, INPUT_HW, images=1, rois=0) == expected
    assert flops(OneLayer(part), STRIPES, INPUT_HW, images=3, rois=0) == 3 * expected


def test_samples_of_roi_align_count() -> None:
    def of(sampling_ratio: int) -> float:
        head = build_head(parse_model({**MODELS["roi_crop"], "sampling_ratio": sampling_ratio}), SPECS)
        return count(head, LAYERS, INPUT_HW).gflops_per_roi * 1e9

    assert of(3) - of(1) == pytest.approx(8 * (6 * 8 * 10 * 8))


@pytest.mark.parametrize("family", FAMILIES)
def test_rois_and_images_cost_alike(family: str) -> None:
    head, layers = head_of(family)
    none, one, four, batch = (
        flops(head, layers, INPUT_HW, images=images, rois=rois) for images, rois in ((1, 0), (1, 1), (1, 4), (3, 12))
    )
    assert one > none
    assert four - none == 4 * (one - none)
    assert batch == 3 * four
    assert (none > 0) == (family in ("positional", "dynamic_filter")), "what is done once for an image"


def test_values_and_mode_change_no_count() -> None:
    params = parse_model(overlay(MODELS["coarse"], {"blocks": {"norm": "batch"}}))
    head, other = fresh_head(params, SPECS, 0), fresh_head(params, SPECS, 1)
    before = {name: item.clone() for name, item in head.state_dict().items()}
    assert count(head.train(), LAYERS, INPUT_HW) == count(other.eval(), LAYERS, INPUT_HW)
    assert head.training
    assert not other.training
    assert all(torch.equal(item, before[name]) for name, item in head.state_dict().items())


def test_rois_that_look_at_each_other_cost_more_the_more_there_are() -> None:
    head = build_head(parse_model({**COMPOSED, "head": "coarse", "relational": {"heads": 2, "dropout": 0.0}}), SPECS)
    few, many = (count(head, LAYERS, INPUT_HW, rois).gflops_per_roi for rois in (10, 50))
    assert few < many


# --- memory ---


class SmallNet(nn.Module):
    """A convolution of 4 to 6 channels, a step on its result, and a convolution to 2."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.first, self.step, self.last = nn.Conv2d(4, 6, 3, padding=1), step, nn.Conv2d(6, 2, 1)

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> Tensor:
        values: Tensor = self.first(features["stripes"])
        values = self.step(values)
        values = self.last(values)
        return values.flatten(1)


HELD = 4 * (48 * 4 + 2 * 5)
"""Bytes of a layer of 8 x 6 cells and 4 channels, and of two boxes."""


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (nn.ReLU(), HELD + 4 * 48 * (6 + 6)),
        (nn.ReLU(inplace=True), HELD + 4 * 48 * (6 + 2)),
        (nn.Upsample(scale_factor=2), HELD + 4 * 48 * (4 * 6 + 4 * 2)),
        (nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU()), HELD + 4 * 48 * (6 + 6 + 6)),
    ],
    ids=["two at once", "in place", "the last step is the largest", "the caller holds the first"],
)
def test_peak_by_hand(step: nn.Module, expected: int) -> None:
    assert peak_bytes(SmallNet(step), STRIPES, INPUT_HW, images=1, rois=2) == expected


def test_weights_and_what_looks_at_them_are_apart() -> None:
    """Views of weights are free; what is computed of them isn't."""

    class Rearranged(nn.Module):
        def __init__(self, *, scaled: bool) -> None:
            super().__init__()
            self.weight, self.scaled = nn.Parameter(torch.ones(1000, 4)), scaled

        def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> Tensor:
            weight = self.weight * 2 if self.scaled else self.weight.t()
            return features["stripes"] + weight[0, 0]

    looked, computed = (peak_bytes(Rearranged(scaled=scaled), STRIPES, INPUT_HW, images=1, rois=2) for scaled in (False, True))
    assert looked == HELD + 4 * 48 * 4
    assert computed == HELD + 4 * 48 * 4 + 4 * 4000


@pytest.mark.parametrize("family", FAMILIES)
def test_peak_is_that_of_a_real_pass(family: str) -> None:
    head, layers = head_of(family)
    *maps, boxes = example(layers, INPUT_HW, 4)
    features = {spec.name: values for spec, values in zip(layers, maps, strict=True)}
    with torch.no_grad(), LiveBytes([*maps, boxes], [*head.parameters(), *head.buffers()]) as live:
        head(features, boxes)
    assert peak_bytes(head.train(), layers, INPUT_HW, images=1, rois=4) == live.peak
    assert head.training


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", ["roi_unet", "multiscale", "hierarchical_unet_v1"])
def test_peak_is_that_of_a_gpu(family: str) -> None:
    """A little more than counted: the allocator rounds up, and convolutions may ask for scratch memory."""
    specs = {"layer_34": FeatureSpec("layer_34", 64, (8.0, 8.0)), "layer_3": FeatureSpec("layer_3", 32, (4.0, 4.0))}
    layers, input_hw = list(specs.values()), (640, 640)
    head = build_head(parse_model(MODELS[family]), specs).eval().cuda()
    *maps, boxes = (item.cuda() for item in example(layers, input_hw, 10))
    features = {spec.name: values for spec, values in zip(layers, maps, strict=True)}
    given = torch.cuda.memory_allocated()
    with torch.no_grad():
        head(features, boxes)
        torch.cuda.reset_peak_memory_stats()
        head(features, boxes)
    made = torch.cuda.max_memory_allocated() - given
    counted = peak_bytes(head, layers, input_hw, images=1, rois=10) - 4 * sum(item.numel() for item in (*maps, boxes))
    assert 0.95 * counted <= made <= 1.5 * counted + 32 * MIB


def test_flat_figures() -> None:
    head = build_head(parse_model(MODELS["roi_crop"]), SPECS)
    found = counted_figures(head, LAYERS, INPUT_HW)
    assert list(found) == [
        "parameters",
        "gflops_per_roi",
        "gflops_per_image",
        "peak_mib_1_roi",
        "peak_mib_3_rois",
        "peak_mib_10_rois",
    ]
    assert found["gflops_per_image"] == pytest.approx(count(head, LAYERS, INPUT_HW).gflops_per_image, rel=1e-3)
    assert found["peak_mib_3_rois"] == pytest.approx(peak_bytes(head, LAYERS, INPUT_HW, images=1, rois=3) / MIB, abs=6e-4)
    assert counted_figures(fresh_head(parse_model(MODELS["roi_crop"]), SPECS, seed=7), LAYERS, INPUT_HW) == found


# --- time ---


def test_no_rois_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rois is 0, expected at least 1: the costs of an image are shared among its ROIs"):
        count(OneLayer(nn.Identity()), STRIPES, INPUT_HW, rois=0)


def test_time_is_the_median_of_warm_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    head = OneLayer(nn.Identity())
    spent = [9.0] * WARM_UP + [0.001 * number for number in range(1, REPEATS + 1)]
    ticks = iter([tick for number, seconds in enumerate(spent) for tick in (100.0 * number, 100.0 * number + seconds)])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    assert milliseconds(head, STRIPES, INPUT_HW, 7) == pytest.approx((REPEATS + 1) / 2)
    assert len(head.given) == WARM_UP + REPEATS
    shape, boxes = head.given[-1]
    assert shape == (1, 4, 8, 6)
    assert boxes.shape == (7, 5)
    assert (boxes[:, 0] == 0).all()
    assert (boxes[:, 3:] > boxes[:, 1:3]).all()
    assert boxes[:, 1:].min() >= 0
    assert boxes[:, 1:].max() <= 1


def test_time_of_a_head() -> None:
    assert milliseconds(fresh_head(parse_model(MODELS["roi_crop"]), SPECS), LAYERS, INPUT_HW, 3) > 0


@pytest.mark.parametrize(
    ("spent", "seconds", "passes", "expected"),
    [
        ([5.0, 4.0, 1.0], 3.0, 2, 4000.0),
        ([9.0, 1.0, 1.0, 0.5, 0.7, 1.0], 12.0, 5, 600.0),
        ([0.001] * (WARM_UP + REPEATS), 60.0, WARM_UP + REPEATS, 1.0),
    ],
    ids=["slow: one is timed", "what is timed comes after the warm-up", "quick: all"],
)
def test_time_ends_with_its_budget(
    monkeypatch: pytest.MonkeyPatch, spent: list[float], seconds: float, passes: int, expected: float
) -> None:
    ticks = iter([tick for number, took in enumerate(spent) for tick in (100.0 * number, 100.0 * number + took)])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    runs: list[int] = []
    assert median_ms(lambda: runs.append(1), torch.device("cpu"), seconds) == pytest.approx(expected)
    assert len(runs) == passes


FIRST = """
from head_factory import MODELS
from roiseg.evaluate.complexity import count
from roiseg.heads import build_head, parse_model
from roiseg.types import FeatureSpec
specs = {"layer_34": FeatureSpec("layer_34", 6, (8.0, 8.0)), "layer_3": FeatureSpec("layer_3", 4, (4.0, 4.0))}
params = parse_model(MODELS["roi_crop"])
print(count(build_head(params, specs), [specs[name] for name in params.layers], (64, 96)).gflops_per_roi > 0)
"""


def test_counting_is_the_first_thing_that_a_process_does() -> None:
    """No ROI was aligned before, so nothing else has brought the operator along."""
    tests = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "True\n", done.stderr
