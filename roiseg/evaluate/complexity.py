"""What a head costs: parameters and floating-point operations, counted; milliseconds, measured.

An operation is a multiplication or an addition, so a multiply-add counts two. Counted are convolutions, linear layers, matrix
products, attention and ROI align; norms, activations and resizing are left out, as is usual. Counts come from shapes alone, on a
device without memory: they are the same on every machine and for all weights.

Symbols: N images, R ROIs, C channels, (H, W) cells of a layer, (h, w) bins of an ROI.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from roiseg.types import HW, FeatureSpec

ROIS_PER_IMAGE = 10
"""ROIs of the image whose costs are told, unless others are asked for."""

GIGA, MS_PER_S = 1e9, 1e3

PER_SAMPLE = 2 * 4
"""Operations of a bilinear sample: a multiply-add for each of four cells."""

WARM_UP, REPEATS = 3, 11
"""Passes before those that are timed, and those."""


@dataclass(frozen=True)
class Complexity:
    """Counted costs of a head.

    Attributes:
        parameters: how many numbers are learnt.
        gflops_per_roi: 1e9 operations that an ROI adds, the mean over those of one image.
        gflops_per_image: 1e9 operations of one image: what is done once for it, and its ROIs.
        rois: how many ROIs that image has.
    """

    parameters: int
    gflops_per_roi: float
    gflops_per_image: float
    rois: int


def count(head: nn.Module, specs: Sequence[FeatureSpec], input_hw: HW, rois: int = ROIS_PER_IMAGE) -> Complexity:
    """Count a head's parameters and operations.

    Args:
        head: of `roiseg.heads.build_head`, on any device and in any mode.
        specs: its layers, in order.
        input_hw: size of the network input.
        rois: of one image. What each adds depends on their number only where they look at each other (`model.relational`).

    Raises:
        ValueError: there is no ROI to share the costs.
    """
    if rois < 1:
        raise ValueError(f"rois is {rois}, expected at least 1: the costs of an image are shared among its ROIs")
    once, whole = (flops(head, specs, input_hw, images=1, rois=number) for number in (0, rois))
    return Complexity(
        parameters=sum(item.numel() for item in head.parameters()),
        gflops_per_roi=(whole - once) / rois / GIGA,
        gflops_per_image=whole / GIGA,
        rois=rois,
    )


def flops(head: nn.Module, specs: Sequence[FeatureSpec], input_hw: HW, *, images: int, rois: int) -> int:
    """Operations of one pass of a head, as in evaluation.

    Args:
        head: see `count`.
        specs: its layers, in order.
        input_hw: size of the network input.
        images: N.
        rois: R, of all images together.
    """
    weights = {name: item.detach().to("meta") for name, item in (*head.named_parameters(), *head.named_buffers())}
    features = {name: torch.empty(shape, device="meta") for name, shape in _shapes(specs, input_hw, images).items()}
    boxes, training = torch.empty(rois, 5, device="meta"), head.training
    formulas = {torch.ops.torchvision.roi_align: _roi_align_flops}
    head.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            functional_call(head, weights, (features, boxes))
    finally:
        head.train(training)
    return int(counter.get_total_flops())


def milliseconds(
    head: nn.Module, specs: Sequence[FeatureSpec], input_hw: HW, rois: int = ROIS_PER_IMAGE, device: str = "cpu"
) -> float:
    """Median time of a pass over one image, after passes that aren't timed.

    Args:
        head: on `device`, in eval mode.
        specs: its layers, in order.
        input_hw: size of the network input.
        rois: of the image.
        device: as torch names it.
    """
    where, generator = torch.device(device), torch.Generator().manual_seed(0)
    features = {name: torch.randn(shape, generator=generator).to(where) for name, shape in _shapes(specs, input_hw, 1).items()}
    low, size = torch.rand(2, rois, 2, generator=generator) / 2
    boxes = torch.cat([torch.zeros(rois, 1), low, low + size], dim=1).to(where)
    times = []
    with torch.no_grad():
        for _ in range(WARM_UP + REPEATS):
            begun = _now(where)
            head(features, boxes)
            times.append(_now(where) - begun)
    return median(times[WARM_UP:]) * MS_PER_S


def _now(device: torch.device) -> float:
    """Seconds, read when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _shapes(specs: Sequence[FeatureSpec], input_hw: HW, images: int) -> dict[str, tuple[int, int, int, int]]:
    """Layer -> (N, C, H, W)."""
    (height, width), found = input_hw, {}
    for spec in specs:
        vertical, horizontal = spec.stride_hw
        found[spec.name] = (images, spec.channels, round(height / vertical), round(width / horizontal))
    return found


def _roi_align_flops(
    features: Sequence[int],
    boxes: Sequence[int],
    scale: float,
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
    *,
    out_shape: Sequence[int],
) -> int:
    """Operations of ROI align from shapes: its samples, times what one takes; the mean over a bin is left out, as are norms."""
    rois, channels, rows, columns = out_shape
    return rois * channels * rows * columns * sampling_ratio**2 * PER_SAMPLE
