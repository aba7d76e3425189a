"""The ONNX of a U-net of people: images in, logits out; and the same as a cut graph, whose logits extraction stores.

Symbols: N images, (H, W) pixels of an image, (h, w) pixels of the net's input.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from roiseg.errors import GraphError, ParityError
from roiseg.export.graph_writer import GraphWriter
from roiseg.export.metadata import Learnt
from roiseg.export.onnx import ExportedHead, described, write_model
from roiseg.export.simplify import simplify
from roiseg.export.trace import trace
from roiseg.extractor.graph import cut
from roiseg.extractor.params import ExtractorParams
from roiseg.network_input import LETTERBOX_GREY, InputRule
from roiseg.onnx_names import PERSON_LOGITS
from roiseg.unet.person_unet import PersonUnet
from roiseg.unet.person_unet_params import UnetModelParams

NET_FILE = "person_net.onnx"
IMAGES, LOGITS = "images", "logits"
"""Input and output of the file; the free number of images is called like the input."""

LOGIT_LIMIT = 64.0
"""Largest magnitude of a stored logit. Beyond 30 a probability is 0 or 1 to float32 already, and float16 ends at 65504."""

CONVENTION = {
    "images": "float32 (N, 3, H, W): RGB in [0, 1], at input.hw; the graph itself resizes by area to net.input_hw and normalises",
    "logits": "float32 (N, 1, h, w): its sigmoid is the probability that there is a person at the cell's centre",
}

PREPROCESSING = (
    "uint8 image, resized bilinearly (cv2.INTER_LINEAR) by input.resize to input.hw "
    f"(letterbox: the rest is grey {LETTERBOX_GREY}), channels in the order input.color, times 1 / 255, float32 (N, 3, H, W)"
)


def net_metadata(params: UnetModelParams, rule: InputRule, learnt: Learnt) -> dict[str, Any]:
    """What a net's file says of it, but for what its graph says itself.

    Args:
        params: of the net.
        rule: of the images that it learnt on; the file takes them as RGB in [0, 1] in any case.
        learnt: where its weights come from.
    """
    return {
        "convention": CONVENTION,
        "preprocessing": PREPROCESSING,
        "input": replace(rule, color="rgb", pixel_max=1.0).plain(),
        "net": {
            "encoder": params.encoder,
            "decoder_channels": list(params.decoder_channels),
            "input_hw": list(params.input_hw),
            "mean": list(params.mean),
            "std": list(params.std),
        },
        "epoch": learnt.epoch,
        "metrics": dict(learnt.metrics),
        "params": dict(learnt.params),
        "fingerprints": {"checkpoint_sha256": learnt.checkpoint_sha256, "store_sha256": learnt.store_sha256},
    }


def export_net(net: PersonUnet, opset: int, metadata: Mapping[str, Any], path: Path, *, simplified: bool = True) -> ExportedHead:
    """Write the ONNX of a net.

    Input `images` (N, 3, H, W) float32 RGB in [0, 1], of the size that the net was built for; output `logits` (N, 1, h, w) float32.
    N is free, everything else is fixed.

    Args:
        net: in eval mode, on the CPU.
        opset: ONNX operator set.
        metadata: see `net_metadata`; `inputs`, `outputs` and `opset` are added.
        path: out.
        simplified: whether the graph is simplified.

    Raises:
        ParityError: see `roiseg.export.trace.trace`.
        GraphError: see `roiseg.export.simplify.simplify`.
    """
    # Two images: torch.export takes a size of 0 or 1 for a constant.
    example = torch.zeros(2, 3, *net.image_hw)
    model = trace(net, (example,), ([IMAGES], [LOGITS]), ({0: torch.export.Dim(IMAGES)},), opset, str(path))
    for item in model.graph.output:
        item.type.tensor_type.shape.dim[0].dim_param = IMAGES
    _name_scales(model, str(path))
    nodes = len(model.graph.node)
    if simplified:
        model = simplify(model, str(path))
    own = {"inputs": described(model.graph.input), "opset": opset, "outputs": described(model.graph.output)}
    write_model(model, dict(metadata) | own, path)
    return ExportedHead(model, dict(metadata) | own, nodes)


def _name_scales(model: onnx.ModelProto, source: str) -> None:
    """Say of each `Resize` by how much it scales, where the exporter computes the size that comes out.

    The same values. But a computed size holds the number of images, which onnxruntime counts on the processor, and a backbone that
    leaves the GPU is refused.

    Raises:
        ParityError: a size isn't fixed.
    """
    graph = model.graph
    shapes = {item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim] for item in graph.value_info}
    for place, node in enumerate(graph.node):
        if node.op_type != "Resize" or len(node.input) < 4:
            continue
        before, after = (shapes.get(name, [])[2:] for name in (node.input[0], node.output[0]))
        if not before or min(before) < 1 or len(before) != len(after):
            raise ParityError(f"{source}: {node.name} has no fixed size, expected one; make the sizes of the module Python ints")
        scales = [1.0, 1.0, *(there / here for here, there in zip(before, after, strict=True))]
        name = f"scales_{place}"
        graph.initializer.append(numpy_helper.from_array(np.array(scales, dtype=np.float32), name))
        del node.input[1:]
        node.input.extend(["", name])
    _drop_unread(graph)


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Take out nodes and constants that no output needs."""
    needed, kept = {item.name for item in graph.output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    constants = [item for item in graph.initializer if item.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept[::-1])
    graph.initializer.extend(constants)


def as_backbone(model: onnx.ModelProto, layer: str, extractor: ExtractorParams) -> onnx.ModelProto:
    """A net as a cut graph of one layer, which extraction opens like that of a detector.

    The graph takes images as the detector does, and undoes what the net doesn't want: the order of colours, and the range. Logits
    are clipped to `LOGIT_LIMIT`, so that every one of them fits float16.

    Args:
        model: of `export_net`.
        layer: what its logits are called in the store.
        extractor: of the store that the images are of; only its input rule matters.

    Returns:
        A graph with the output `layer` (N, 1, h, w) float16, and a `CutGraph` in its metadata.

    Raises:
        GraphError: not the interface of a net, or images of another size.
    """
    given, made = [item.name for item in model.graph.input], [item.name for item in model.graph.output]
    if given != [IMAGES] or made != [LOGITS]:
        raise GraphError(
            f"{NET_FILE}: takes {', '.join(given)} and gives {', '.join(made)}, expected {IMAGES} and {LOGITS}; take the file that "
            "`export_net` wrote"
        )
    sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]]
    if sizes != list(extractor.input_hw):
        raise GraphError(
            f"{NET_FILE}: takes images of {sizes}, but those of the store are {list(extractor.input_hw)} (extractor.input_hw); "
            "train and export the net on images of that size"
        )
    writer = GraphWriter(next(item.version for item in model.opset_import if not item.domain))
    images = value = writer.input(IMAGES, np.float32, ["N", 3, *sizes])
    if extractor.color == "bgr":
        value = images.pick([2, 1, 0], 1)
    if extractor.pixel_max != 1:
        value = value * (1 / extractor.pixel_max)
    logits = writer.inline(model, "net", {IMAGES: value})[LOGITS]
    clipped = writer.op("Clip", logits, *(writer.number(limit, np.float32) for limit in (-LOGIT_LIMIT, LOGIT_LIMIT)))
    writer.output(
        PERSON_LOGITS, clipped, ["N", 1, *(dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim[2:])]
    )
    return cut(writer.model(layer), {layer: PERSON_LOGITS}, extractor.input_hw, "float16", None, NET_FILE)
