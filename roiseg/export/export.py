"""The `export` stage: a folder with all that prediction needs, and the proof that it agrees."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from roiseg.batches import Loading, dequantise, single_batch
from roiseg.classes import CLASS_NAMES
from roiseg.dataset import RoiDataset
from roiseg.evaluate.complexity import counted_figures
from roiseg.export.onnx import export_head
from roiseg.export.parity import RealRois, parity
from roiseg.export.timing import measure
from roiseg.extractor.graph import bake_scales, load_graph
from roiseg.files import new_folder, sha256_file, write_bytes, write_json
from roiseg.onnx_names import BACKBONE_FILE, HEAD_FILE
from roiseg.params import Section
from roiseg.train.checkpoint import CHECKPOINT_FILE, Checkpoint

REAL_IMAGES = 3
"""Validation images whose cached features are compared too."""


class ExportParams(Section):
    """Section `export`."""

    checkpoint: str = Field(pattern=CHECKPOINT_FILE)
    opset: int = Field(ge=18, le=22)
    tolerance: float = Field(gt=0)


@dataclass(frozen=True)
class ExportInputs:
    """What is exported.

    Attributes:
        head: trained, in eval mode, on the CPU.
        checkpoint: where its weights came from.
        file: that it was read from.
        val: validation split, for real features.
        backbone: the cut ONNX.
        scales: of int8 layers.
    """

    head: nn.Module
    checkpoint: Checkpoint
    file: Path
    val: RoiDataset
    backbone: Path
    scales: Mapping[str, NDArray[Any]]


def head_metadata(inputs: ExportInputs) -> dict[str, Any]:
    """What a user of the files must know, and nothing that a second export would change."""
    store = inputs.val.store
    asked = store.asked
    return {
        "classes": list(CLASS_NAMES),
        "boxes": "float32 (R, 5): image number, x0, y0, x1, y1 in [0, 1] of the network input",
        "masks": "float32 (R, 3, h, w): probabilities at the centres of a grid over the box",
        "layers": {
            name: {"channels": store.specs[name].channels, "stride_hw": list(store.specs[name].stride_hw)}
            for name in inputs.val.layers
        },
        "tensors": {name: asked["layers"][name] for name in inputs.val.layers if name in asked["layers"]},
        "input": asked["input"],
        "dtype": asked["dtype"],
        "scales": {name: [float(value) for value in store.scales[name]] for name in inputs.val.layers if name in store.scales},
        "roi_padding": inputs.val.params.roi_padding,
        "mask_hw": list(inputs.val.mask_hw),
        "epoch": inputs.checkpoint.epoch,
        "miou_fg_roi": inputs.checkpoint.metrics["miou_fg_roi"],
        "params": inputs.checkpoint.params,
        "backbone_sha256": sha256_file(inputs.backbone),
    }


def real_cases(val: RoiDataset, count: int) -> list[tuple[Tensor, ...]]:
    """Cached features and annotated boxes of the first images."""
    scales = {name: torch.from_numpy(values) for name, values in val.store.scales.items()}
    cases = []
    for row in val.rows[:count].tolist():
        batch = single_batch(val, row)
        features = dequantise(batch.features, scales, torch.device("cpu"))
        cases.append((*(features[name] for name in val.layers), batch.boxes))
    return cases


@dataclass(frozen=True)
class ExportPaths:
    """What the stage writes.

    Attributes:
        out: out, folder.
        figures: out, flat JSON.
        times: JSON with what differs from run to run, and so no out.
    """

    out: Path
    figures: Path
    times: Path


def export(inputs: ExportInputs, params: ExportParams, paths: ExportPaths) -> dict[str, float]:
    """Write `head.onnx`, `backbone.onnx` and `head.json` into a folder, the figures of their check and cost, and their times.

    Args:
        inputs: head, checkpoint, data.
        params: section `export`.
        paths: where to.

    Returns:
        The figures, before they are rounded.

    Raises:
        ParityError: the exported head disagrees with torch; nothing is written then.
    """
    specs = [inputs.val.store.specs[name] for name in inputs.val.layers]
    height, width = inputs.val.store.asked["input"]["hw"]
    metadata = head_metadata(inputs)
    with new_folder(paths.out) as folder:
        written = export_head(inputs.head, specs, (height, width), params.opset, metadata, folder / HEAD_FILE)
        real = RealRois(inputs.val, inputs.val.rows[:REAL_IMAGES].tolist(), Loading(1, 1, 1))
        found = parity(inputs.head, specs, (height, width), folder / HEAD_FILE, params.tolerance, real)
        backbone = bake_scales(load_graph(inputs.backbone), inputs.scales)
        write_bytes(folder / BACKBONE_FILE, backbone.SerializeToString(deterministic=True))
        write_json(folder / "head.json", written.metadata)
        size = (folder / HEAD_FILE).stat().st_size
    result = {
        "parity_max_abs": found.max_abs,
        "parity_miou_difference": found.miou_difference,
        **counted_figures(inputs.head, specs, (height, width)),
        "checkpoint_bytes": inputs.file.stat().st_size,
        "onnx_bytes": size,
        "onnx_nodes": len(written.model.graph.node),
    }
    # Rounded up to three digits: the last bits of a float32 sum aren't a property of the head.
    write_json(paths.figures, result | {"parity_max_abs": float(f"{found.max_abs:.3g}")})
    write_json(paths.times, measure(inputs.head, specs, (height, width), paths.out / HEAD_FILE))
    return result
