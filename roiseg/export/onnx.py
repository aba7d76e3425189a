"""The head's ONNX: features and boxes in, mask probabilities out.

Symbols: N images, R ROIs, C channels, (H, W) cells of a layer, (h, w) cells of the mask.
"""

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from roiseg.errors import ParityError
from roiseg.files import write_bytes
from roiseg.onnx_names import BOXES, METADATA_KEY, OUTPUT, feature_input
from roiseg.types import HW, FeatureSpec


class _Inference(nn.Module):
    """Positional inputs, one probability output, no auxiliary branches."""

    def __init__(self, head: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.head, self._layers = head, tuple(layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        features = dict(zip(self._layers, inputs[:-1], strict=True))
        logits: Tensor = self.head(features, inputs[-1]).mask_logits
        return logits.softmax(dim=1)


def example_inputs(specs: Sequence[FeatureSpec], input_hw: HW, images: int, rois: int, seed: int) -> tuple[Tensor, ...]:
    """Random features and boxes of the right shapes.

    Returns:
        Per layer (images, C, H, W) float32 normal; then boxes (rois, 5).
    """
    generator = torch.Generator().manual_seed(seed)
    features = [
        torch.randn(
            images,
            spec.channels,
            round(input_hw[0] / spec.stride_hw[0]),
            round(input_hw[1] / spec.stride_hw[1]),
            generator=generator,
        )
        for spec in specs
    ]
    corner = torch.rand(rois, 2, generator=generator) * 0.7
    size = 0.05 + torch.rand(rois, 2, generator=generator) * 0.25
    number = torch.randint(images, (rois, 1), generator=generator).float()
    return (*features, torch.cat([number, corner, corner + size], dim=1))


def export_head(
    head: nn.Module, specs: Sequence[FeatureSpec], input_hw: HW, opset: int, metadata: Mapping[str, Any], path: Path
) -> onnx.ModelProto:
    """Write the ONNX of a head.

    Inputs `features_{layer}` (N, C, H, W) float32 and `boxes` (R, 5) of image number and xyxy in the unit frame; output `masks`
    (R, 3, h, w), probabilities that sum to 1 over the classes. N and R are free, everything else is fixed.

    Args:
        head: in eval mode, on the CPU.
        specs: its layers, in order.
        input_hw: size of the network input.
        opset: ONNX operator set.
        metadata: plain values, kept as JSON in the file's metadata under `roiseg`.
        path: out.

    Raises:
        ParityError: the graph has a branch (`If`) or a loop, which no target format takes.
    """
    names = [*(feature_input(spec.name) for spec in specs), BOXES]
    images, rois = torch.export.Dim("images"), torch.export.Dim("rois")
    free = tuple({0: rois} if name == BOXES else {0: images} for name in names)
    # Sizes 2 and 3: torch.export takes a size of 0 or 1 for a constant.
    example = example_inputs(specs, input_hw, images=2, rois=3, seed=0)
    with warnings.catch_warnings():
        # the exporter's own deprecations, which nobody here can act on
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)
        program = torch.onnx.export(
            _Inference(head, [spec.name for spec in specs]),
            example,
            dynamo=True,
            input_names=names,
            output_names=[OUTPUT],
            opset_version=opset,
            dynamic_shapes=(free,),
            verbose=False,
        )
    if program is None:
        raise ParityError(f"{path}: torch.onnx.export gave no program")
    model = program.model_proto
    branches = sorted({node.op_type for node in _all_nodes(model.graph) if node.op_type in ("If", "Loop", "Scan")})
    if branches:
        raise ParityError(f"{path}: the graph holds {', '.join(branches)}, expected none; make the head's sizes Python ints")
    _strip(model)
    helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString(deterministic=True))
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Take out what the exporter notes of itself: file paths and stack traces of this machine."""
    model.doc_string = ""
    del model.metadata_props[:]
    model.graph.doc_string = ""
    graph = model.graph
    items: list[Any] = [*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]
    for item in items:
        item.doc_string = ""
        del item.metadata_props[:]
    del model.graph.metadata_props[:]


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                nodes += _all_nodes(attribute.g)
    return nodes
