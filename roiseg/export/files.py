"""The files that a head becomes, whether it is trained or fresh, each compared with torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from roiseg.export.end_to_end import EndToEnd, export_end_to_end
from roiseg.export.filter_onnx import export_filter
from roiseg.export.onnx import ExportedHead, aux_outputs, export_head
from roiseg.export.params import ExportParams
from roiseg.export.parity import Parity, RealRois, parity
from roiseg.extractor.graph import bake_scales
from roiseg.files import write_bytes, write_json
from roiseg.onnx_names import AUX_FILE, BACKBONE_FILE, END_TO_END_FILES, FILTER_FILE, HEAD_FILE, METADATA_FILE
from roiseg.types import HW, FeatureSpec


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        head: in eval mode, on the CPU.
        specs: its layers, in order.
        input_hw: size of the network input.
        metadata: see `roiseg.export.metadata.head_metadata`.
        backbone: the cut ONNX.
        scales: layer -> (C,) of int8 layers.
    """

    head: nn.Module
    specs: Sequence[FeatureSpec]
    input_hw: HW
    metadata: Mapping[str, Any]
    backbone: onnx.ModelProto
    scales: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Written:
    """What `write_files` wrote.

    Attributes:
        head: the float32 head.
        parity: of its file, and of the one with auxiliary outputs, with torch.
    """

    head: ExportedHead
    parity: Parity


def write_files(source: Source, params: ExportParams, real: RealRois | None, folder: Path) -> Written:
    """Write `head.onnx`, `backbone.onnx`, `head.json`, and what else the params ask for but the variants.

    Args:
        source: the head and its backbone.
        params: section `export`.
        real: cached features and annotated ROIs to compare on; None where there are none yet.
        folder: is there; one that is renamed when all is done.

    Raises:
        ParityError: a file disagrees with torch.
        GraphError: a graph that can't be made.
    """
    specs, hw, path = source.specs, source.input_hw, folder / HEAD_FILE
    head = export_head(source.head, specs, hw, params.opset, source.metadata, path, simplified=params.simplify)
    found = [parity(source.head, specs, hw, path, params.tolerance, real)]
    if params.include_aux:
        aux, path = aux_outputs(source.head, specs, hw), folder / AUX_FILE
        export_head(source.head, specs, hw, params.opset, source.metadata, path, aux=aux, simplified=params.simplify)
        found.append(parity(source.head, specs, hw, path, params.tolerance, real, aux=aux))
    backbone = bake_scales(source.backbone, source.scales)
    write_bytes(folder / BACKBONE_FILE, backbone.SerializeToString(deterministic=True))
    smoothing = None
    if params.filter is not None:
        export_filter(params.filter, channels=1, opset=params.opset, path=folder / FILTER_FILE)
        smoothing = onnx.load(folder / FILTER_FILE)
    for boxes in params.end_to_end:
        choice = EndToEnd(boxes, params.preprocess, smoothing)
        export_end_to_end(head.model, backbone, head.metadata, choice, folder / END_TO_END_FILES[boxes])
    write_json(folder / METADATA_FILE, head.metadata)
    return Written(head, Parity(max(item.max_abs for item in found), max(item.miou_difference for item in found)))
