"""What a head costs: parameters, floating-point operations and memory, counted; milliseconds, measured.

An operation is a multiplication or an addition, so a multiply-add counts two. Counted are convolutions, linear layers, matrix
products, attention and ROI align; norms, activations and resizing are left out, as is usual. Memory is what features, boxes and the
results of operators take while something still needs them: the activations' peak, without the weights. Counts come from shapes
alone, on a device without memory: they are the same on every machine and for all weights.

Symbols: N images, R ROIs, C channels, (H, W) cells of a layer, (h, w) bins of an ROI.
"""

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from roiseg.evaluate.live_bytes import LiveBytes
from roiseg.types import HW, FeatureSpec

ROIS_PER_IMAGE = 10
"""ROIs of the image whose costs are told, unless others are asked for."""

ROI_COUNTS = (1, 3, ROIS_PER_IMAGE)
"""ROIs of the images whose memory and time are told."""

GIGA, MS_PER_S, MIB = 1e9, 1e3, 2**20

PER_SAMPLE = 2 * 4
"""Operations of a bilinear sample: a multiply-add for each of four cells."""

WARM_UP, REPEATS = 3, 11
"""Passes before those that are timed, and those."""


def of_rois(name: str, rois: int) -> str:
    """Key of a figure at so many ROIs, such as `peak_mib_1_roi` and `peak_mib_3_rois`."""
    return f"{name}_{rois}_roi{'s' if rois > 1 else ''}"


def counted_figures(head: nn.Module, specs: Sequence[FeatureSpec], input_hw: HW) -> dict[str, float]:
    """All that is counted, flat: `parameters`, `gflops_per_roi`, `gflops_per_image`, and `peak_mib_1_roi` to `peak_mib_10_rois`.

    Args:
        head: see `count`.
        specs: its layers, in order.
        input_hw: size of the network input.
    """
    counted = count(head, specs, input_hw)
    peaks = {of_rois("peak_mib", rois): peak_bytes(head, specs, input_hw, images=1, rois=rois) / MIB for rois in ROI_COUNTS}
    return {
        "parameters": counted.parameters,
        "gflops_per_roi": round(counted.gflops_per_roi, 9),
        "gflops_per_image": round(counted.gflops_per_image, 9),
        **{name: round(peak, 3) for name, peak in peaks.items()},
    }


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
    weights = {name: item.to("meta") for name, item in _weights(head).items()}
    features = {name: torch.empty(shape, device="meta") for name, shape in _shapes(specs, input_hw, images).items()}
    # torch knows the operator only where torchvision is there; heads import that when they first align ROIs.
    importlib.import_module("torchvision")
    formulas = {torch.ops.torchvision.roi_align: _roi_align_flops}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        _run(head, weights, features, torch.empty(rois, 5, device="meta"))
    return int(counter.get_total_flops())


def peak_bytes(head: nn.Module, specs: Sequence[FeatureSpec], input_hw: HW, *, images: int, rois: int) -> int:
    """Most bytes that features, boxes and activations of one pass take at once, as in evaluation.

    On top come the weights (four bytes for each parameter), scratch memory of the kernels and what an allocator rounds up.

    Args:
        head: see `count`.
        specs: its layers, in order.
        input_hw: size of the network input.
        images: N.
        rois: R, of all images together.
    """
    # These have no memory either, but pass for tensors of the processor: on `meta`, attention would fall apart into steps that keep
    # a matrix of all pairs of cells, which no device that runs a head does.
    kept = _weights(head)
    with FakeTensorMode():
        weights = {name: torch.empty(item.shape, dtype=item.dtype) for name, item in kept.items()}
        features = {name: torch.empty(shape) for name, shape in _shapes(specs, input_hw, images).items()}
        boxes = torch.empty(rois, 5)
        with LiveBytes([*features.values(), boxes], weights.values()) as live:
            _run(head, weights, features, boxes)
    return int(live.peak)


def _weights(head: nn.Module) -> dict[str, Tensor]:
    return {name: item.detach() for name, item in (*head.named_parameters(), *head.named_buffers())}


@torch.no_grad()
def _run(head: nn.Module, weights: Mapping[str, Tensor], features: Mapping[str, Tensor], boxes: Tensor) -> None:
    """A pass in eval mode with other weights in place of the head's own."""
    training = head.training
    head.eval()
    try:
        functional_call(head, dict(weights), (features, boxes))
    finally:
        head.train(training)


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
    where = torch.device(device)
    *maps, boxes = (item.to(where) for item in example(specs, input_hw, rois))
    features = {spec.name: values for spec, values in zip(specs, maps, strict=True)}
    with torch.no_grad():
        return median_ms(lambda: head(features, boxes), where)


def example(specs: Sequence[FeatureSpec], input_hw: HW, rois: int) -> tuple[Tensor, ...]:
    """Random features of one image, layer by layer, and boxes (R, 5) of half its sides at most."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(shape, generator=generator) for shape in _shapes(specs, input_hw, 1).values()]
    low, size = torch.rand(2, rois, 2, generator=generator) / 2
    return (*features, torch.cat([torch.zeros(rois, 1), low, low + size], dim=1))


def examples(specs: Sequence[FeatureSpec], input_hw: HW) -> dict[int, tuple[Tensor, ...]]:
    """`example` for each of `ROI_COUNTS`."""
    return {rois: example(specs, input_hw, rois) for rois in ROI_COUNTS}


def median_ms(run: Callable[[], object], device: torch.device, seconds: float | None = None) -> float:
    """Median time of a pass, after passes that aren't timed.

    Args:
        run: a pass.
        device: where it works.
        seconds: passes end once they have taken so long together, after the second one at the earliest; None: all are done.
    """
    times: list[float] = []
    while len(times) < WARM_UP + REPEATS:
        begun = _now(device)
        run()
        times.append(_now(device) - begun)
        if seconds is not None and len(times) > 1 and sum(times) >= seconds:
            break
    return median(times[min(WARM_UP, len(times) - 1) :]) * MS_PER_S


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
