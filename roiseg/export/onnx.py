"""The head's ONNX: features and boxes in, mask probabilities out.

Symbols: N images, R ROIs, C channels, (H, W) cells of a layer, (h, w) cells of the mask.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from roiseg.export.simplify import simplify
from roiseg.export.trace import trace
from roiseg.files import write_bytes
from roiseg.onnx_names import BOXES, METADATA_KEY, OUTPUT, feature_input
from roiseg.types import HW, FeatureSpec

IMAGES, ROIS = "images", "rois"
"""Names of the free sizes N and R."""


def aux_output(name: str) -> str:
    """Name of the ONNX output that holds an auxiliary output of a head."""
    return f"aux_{name}"


class _Inference(nn.Module):
    """Positional inputs; probabilities, and of the auxiliary outputs those that are asked for: the others leave no node behind."""

    def __init__(self, head: nn.Module, layers: Sequence[str], aux: Sequence[str]) -> None:
        super().__init__()
        self.head, self._layers, self._aux = head, tuple(layers), tuple(aux)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        features = dict(zip(self._layers, inputs[:-1], strict=True))
        output = self.head(features, inputs[-1])
        return (output.mask_logits.softmax(dim=1), *(output.aux[name] for name in self._aux))


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


@dataclass(frozen=True)
class ExportedHead:
    """What `export_head` wrote.

    Attributes:
        model: the graph, with its metadata.
        metadata: the same as plain values.
        traced_nodes: nodes before simplification.
    """

    model: onnx.ModelProto
    metadata: Mapping[str, Any]
    traced_nodes: int


@torch.no_grad()
def aux_outputs(head: nn.Module, specs: Sequence[FeatureSpec], input_hw: HW) -> list[str]:
    """Auxiliary outputs that a head gives outside of training, by name.

    Args:
        head: in eval mode, on the CPU.
        specs: its layers, in order.
        input_hw: size of the network input.
    """
    *maps, boxes = example_inputs(specs, input_hw, images=1, rois=1, seed=0)
    return sorted(head({spec.name: values for spec, values in zip(specs, maps, strict=True)}, boxes).aux)


def export_head(
    head: nn.Module,
    specs: Sequence[FeatureSpec],
    input_hw: HW,
    opset: int,
    metadata: Mapping[str, Any],
    path: Path,
    *,
    aux: Sequence[str] = (),
    simplified: bool = True,
) -> ExportedHead:
    """Write the ONNX of a head.

    Inputs `features_{layer}` (N, C, H, W) float32 and `boxes` (R, 5) of image number and xyxy in the unit frame; output `masks`
    (R, 3, h, w), probabilities that sum to 1 over the classes. N and R are free, everything else is fixed.

    Args:
        head: in eval mode, on the CPU.
        specs: its layers, in order.
        input_hw: size of the network input.
        opset: ONNX operator set.
        metadata: plain values, kept as JSON in the file's metadata under `roiseg`; what the graph itself says is added: `inputs`,
            `outputs`, `opset` and `auxiliary_included_in_export`.
        path: out.
        aux: auxiliary outputs that become outputs `aux_{name}`, see `aux_outputs`; all others are stripped.
        simplified: whether the graph is simplified.

    Raises:
        ParityError: see `trace`.
        GraphError: see `simplify`.
    """
    free = {IMAGES: torch.export.Dim(IMAGES), ROIS: torch.export.Dim(ROIS)}
    inputs = {feature_input(spec.name): {0: free[IMAGES]} for spec in specs} | {BOXES: {0: free[ROIS]}}
    names = list(inputs), [OUTPUT, *map(aux_output, aux)]
    # Sizes 2 and 3: torch.export takes a size of 0 or 1 for a constant.
    example = example_inputs(specs, input_hw, images=2, rois=3, seed=0)
    module = _Inference(head, [spec.name for spec in specs], aux)
    model = trace(module, example, names, (tuple(inputs.values()),), opset, str(path))
    for item in model.graph.output:
        item.type.tensor_type.shape.dim[0].dim_param = ROIS
    nodes = len(model.graph.node)
    if simplified:
        model = simplify(model, str(path))
    own = {
        "auxiliary_included_in_export": bool(aux),
        "inputs": described(model.graph.input),
        "opset": opset,
        "outputs": described(model.graph.output),
    }
    whole = dict(metadata) | own
    write_model(model, whole, path)
    return ExportedHead(model, whole, nodes)


def write_model(model: onnx.ModelProto, metadata: Mapping[str, Any], path: Path) -> None:
    """Check a graph and write it aside and rename, with metadata under `roiseg` in place of any other.

    Args:
        model: gets the metadata.
        metadata: plain values.
        path: out.
    """
    del model.metadata_props[:]
    helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString(deterministic=True))


def described(items: Sequence[onnx.ValueInfoProto]) -> dict[str, dict[str, Any]]:
    """Inputs or outputs as plain values: name -> shape, with the names of free sizes, and dtype."""
    return {
        item.name: {
            "dtype": str(helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)),
            "shape": [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim],
        }
        for item in items
    }
