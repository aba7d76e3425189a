"""How long a head takes on this machine, in torch and as the exported file: for the log, since no two runs agree on it."""

import logging
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from roiseg.errors import ProviderError
from roiseg.evaluate.complexity import MIB, median_ms, of_rois
from roiseg.onnx_names import BOXES, OUTPUT, feature_input
from roiseg.progress import Ticker, progress
from roiseg.runtime import make_session
from roiseg.types import FeatureSpec

SECONDS = 0.3
"""That passes over one number of ROIs may take, unless two take longer."""

ENGINES = 2

logger = logging.getLogger(__name__)

Inputs = tuple[Tensor, ...]
Interface = tuple[Sequence[str], Sequence[str]]
"""Names of a file's inputs and outputs."""


def measure(
    head: nn.Module,
    specs: Sequence[FeatureSpec],
    given: Mapping[int, Inputs],
    path: Path,
    variants: Mapping[str, Path] = MappingProxyType({}),
    *,
    regions: str = BOXES,
    outputs: Sequence[str] = (OUTPUT,),
) -> dict[str, Any]:
    """Milliseconds at several numbers of ROIs, and memory.

    Args:
        head: in eval mode, on the CPU; it is there again afterwards.
        specs: its layers, in order.
        given: number of ROIs -> inputs of one image, see `examples`.
        path: the exported file.
        variants: smaller files of it, such as fp16 -> file.
        regions: the file's input that takes boxes.
        outputs: what the file gives.

    Returns:
        `torch` and `onnxruntime`: device -> `ms_1_roi` and so on, with `peak_mib_*` of torch on CUDA, weights included; of each
        variant `onnxruntime_{name}`: device -> the same, with `ratio_1_roi` and so on to what onnxruntime takes for the exported
        file; the threads, versions and GPU that they belong to; and `process_peak_mib`, the most that this process has had in
        memory so far.
    """
    names = [*(feature_input(spec.name) for spec in specs), regions], outputs
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    with progress("timing", len(devices) * (ENGINES + len(variants)) * len(given)) as tick:
        in_torch = {device: _in_torch(head, specs, given, torch.device(device), tick) for device in devices}
        in_onnxruntime = {device: _in_onnxruntime(path, names, given, device, tick) for device in devices}
        smaller = {
            f"onnxruntime_{name}": {
                device: _beside(_in_onnxruntime(file, names, given, device, tick), in_onnxruntime[device]) for device in devices
            }
            for name, file in variants.items()
        }
    return {
        "torch": in_torch,
        "onnxruntime": in_onnxruntime,
        **smaller,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        "gpu": torch.cuda.get_device_name() if "cuda" in devices else None,
        "process_peak_mib": round(_process_peak() / MIB, 1),
    }


def _process_peak() -> int:
    """Bytes; the system counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@torch.no_grad()
def _in_torch(
    head: nn.Module, specs: Sequence[FeatureSpec], given: Mapping[int, Inputs], device: torch.device, tick: Ticker
) -> dict[str, float]:
    found = {}
    head.to(device)
    try:
        for rois, inputs in given.items():
            *maps, boxes = (item.to(device) for item in inputs)
            features = {spec.name: values for spec, values in zip(specs, maps, strict=True)}
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            found[of_rois("ms", rois)] = _ms(lambda: head(features, boxes), device)  # noqa: B023 - called before the next round
            if device.type == "cuda":
                found[of_rois("peak_mib", rois)] = round(torch.cuda.max_memory_allocated(device) / MIB, 3)
            tick()
    finally:
        head.cpu()
    return found


def _in_onnxruntime(
    path: Path, names: Interface, given: Mapping[int, Inputs], device: str, tick: Ticker
) -> dict[str, float] | None:
    """None where onnxruntime can't run the whole file on the device."""
    try:
        session, _ = make_session(path, "cuda" if device == "cuda" else "cpu", "float32", whole=False)
    except ProviderError as error:
        logger.warning("%s: no times of onnxruntime on %s: %s", path.name, device, error)
        tick(len(given))
        return None
    found = {}
    for rois, inputs in given.items():
        found[of_rois("ms", rois)] = _ms(_bound(session, names, inputs, device), torch.device(device))
        tick()
    return found


def _beside(times: dict[str, float] | None, whole: dict[str, float] | None) -> dict[str, float] | None:
    """Times with their ratios to those of the float32 file."""
    if times is None or whole is None:
        return times
    return times | {f"ratio{name.removeprefix('ms')}": round(taken / whole[name], 3) for name, taken in times.items()}


def _bound(session: onnxruntime.InferenceSession, names: Interface, inputs: Inputs, device: str) -> Callable[[], object]:
    """A pass whose inputs and outputs stay on the device, as those of torch do."""
    binding = session.io_binding()
    for name, values in zip(names[0], inputs, strict=True):
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values), device))
    for name in names[1]:
        binding.bind_output(name, device)
    return lambda: session.run_with_iobinding(binding)


def _ms(run: Callable[[], object], device: torch.device) -> float:
    return round(median_ms(run, device, SECONDS), 3)
