"""A filter's ONNX: maps in, maps out.

Symbols: N images, C channels, (H, W) pixels.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper

from roiseg.errors import ParityError, UnwritableError
from roiseg.export.trace import trace
from roiseg.files import write_bytes
from roiseg.filters import Filter, FilterParams, Threshold, build_filter
from roiseg.onnx_names import METADATA_KEY
from roiseg.runtime import make_session

INPUT, OUTPUT = "input", "output"
TOLERANCE = 1e-5
SIZES_NHW = ((1, 1, 1), (2, 2, 1), (1, 5, 38), (3, 33, 47), (0, 6, 5))
"""(N, H, W) that are compared: one pixel, sides below the radius, odd ones, no image."""


def filter_graph(params: FilterParams, *, channels: int, opset: int) -> onnx.ModelProto:
    """The graph of a filter, also to be chained behind another.

    Input `input` and output `output`, float32 (N, C, H, W); N, H and W are free.

    Args:
        params: which filter, and how strong.
        channels: C.
        opset: ONNX operator set, 18 or above.

    Returns:
        The graph, with what it is as JSON in its metadata under `roiseg`: `filter` (kind and values), `channels`, `reach_px`.
    """
    module = build_filter(params, channels=channels)
    free = {axis: torch.export.Dim(name) for axis, name in ((0, "images"), (2, "height"), (3, "width"))}
    example = torch.zeros(2, channels, 11, 13)
    model = trace(module, (example,), ([INPUT], [OUTPUT]), (free,), opset, f"filter {params.kind!r}")
    described = {
        "filter": {"kind": params.kind, **params.chosen()},
        "channels": channels,
        "reach_px": module.reach_px,
        "maps": "float32 (N, C, H, W) in [0, 1]",
    }
    helper.set_model_props(model, {METADATA_KEY: json.dumps(described, sort_keys=True)})
    onnx.checker.check_model(model)
    return model


@torch.no_grad()
def filter_parity(module: Filter, graph: onnx.ModelProto) -> float:
    """Largest difference between torch and onnxruntime.

    Where a map comes within the tolerance of a threshold, both sides of it are right.

    Args:
        module: the filter.
        graph: its graph.

    Raises:
        ParityError: the difference is above `TOLERANCE`.
    """
    session, _ = make_session(graph.SerializeToString(), "cpu", "float32")
    last, worst = module.parts[-1], 0.0
    for number, (images, height, width) in enumerate(SIZES_NHW):
        random = np.random.default_rng(number)
        maps = random.uniform(-0.2, 1.2, (images, module.channels, height, width)).astype(np.float32)
        expected = module(torch.from_numpy(maps)).numpy()
        (got,) = session.run([OUTPUT], {INPUT: maps})
        difference = np.abs(got - expected)
        if isinstance(last, Threshold):
            level = module.parts[:-1](torch.from_numpy(maps).clamp(0, 1)).numpy()
            difference[np.abs(level - last.threshold) < TOLERANCE] = 0
        worst = max(worst, float(difference.max(initial=0.0)))
        if not worst <= TOLERANCE:
            raise ParityError(
                f"the filter's graph differs from torch by {worst:.3g} on maps of {maps.shape}, expected at most {TOLERANCE:g}; "
                "this onnxruntime doesn't compute it as the one that roiseg pins, install that"
            )
    return worst


def export_filter(params: FilterParams, *, channels: int, opset: int, path: Path) -> float:
    """Write a filter's ONNX, once it is proven equal to torch.

    Args:
        params: which filter, and how strong.
        channels: of the maps that it will take.
        opset: ONNX operator set, 18 or above.
        path: out.

    Returns:
        The largest difference from torch.

    Raises:
        ParityError: the graph disagrees with torch; nothing is written then.
        UnwritableError: the file system refuses the file.
    """
    graph = filter_graph(params, channels=channels, opset=opset)
    worst = filter_parity(build_filter(params, channels=channels), graph)
    try:
        write_bytes(path, graph.SerializeToString(deterministic=True))
    except OSError as error:
        raise UnwritableError(f"--output {path}: can't be written ({error.strerror}); name a file in a folder of yours") from error
    return worst
