"""Tests of roiseg.evaluate.complexity: operations counted by hand, what counts don't depend on, and what is timed."""

from collections.abc import Mapping

import pytest
import torch
from head_factory import COMPOSED, MODELS, fresh_head
from torch import Tensor, nn

from roiseg.evaluate.complexity import REPEATS, WARM_UP, count, flops, milliseconds
from roiseg.heads import FAMILIES, build_head, parse_model
from roiseg.nn.attention import CellAttention
from roiseg.params import overlay
from roiseg.types import FeatureSpec

INPUT_HW = (64, 96)
SPECS = {"layer_34": FeatureSpec("layer_34", 6, (8.0, 8.0)), "layer_3": FeatureSpec("layer_3", 4, (4.0, 4.0))}
LAYERS = list(SPECS.values())
STRIPES = [FeatureSpec("stripes", 4, (8.0, 16.0))]


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
    head = build_head(parse_model(MODELS[family]), SPECS)
    none, one, four, batch = (
        flops(head, LAYERS, INPUT_HW, images=images, rois=rois) for images, rois in ((1, 0), (1, 1), (1, 4), (3, 12))
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
