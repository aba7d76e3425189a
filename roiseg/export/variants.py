"""Smaller files of a head: what all of them keep, and what each costs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper

from roiseg.batches import Loading
from roiseg.dataset import RoiDataset
from roiseg.errors import GraphError
from roiseg.evaluate.infer import Score, predictions
from roiseg.export.onnx_head import OnnxHead
from roiseg.export.trace import alien_operators
from roiseg.extractor.graph import load_graph
from roiseg.files import write_bytes
from roiseg.onnx_names import BOXES, METADATA_KEY, WINDOWS

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that hold weights."""

COORDINATES = frozenset({BOXES, WINDOWS})
"""Inputs that say where to look."""

IMAGES = 4
"""Of one batch."""


def weight_of(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> onnx.TensorProto | None:
    """The trained weight of a node; None where it has none, such as a product of two activations."""
    return constants.get(node.input[1]) if node.op_type in WEIGHTED else None


def of_boxes(graph: onnx.GraphProto) -> set[int]:
    """Positions of the nodes whose results are made of the values of given boxes or windows alone, and hold no weights."""
    constants = {item.name: item for item in graph.initializer}
    tensors, found = coordinates_of(graph), set[int]()
    for place, node in enumerate(graph.node):
        computed = [name for name in node.input if name and name not in constants]
        # How many boxes there are is no value of theirs.
        if computed and tensors.issuperset(computed) and weight_of(node, constants) is None and node.op_type != "Shape":
            tensors.update(node.output)
            found.add(place)
    return found


def coordinates_of(graph: onnx.GraphProto) -> set[str]:
    """Names of the inputs that say where to look."""
    return {item.name for item in graph.input} & COORDINATES


def behind_weights(graph: onnx.GraphProto) -> set[int]:
    """Positions of the nodes behind all weights: what is made of their results meets no weight any more, and they hold none."""
    constants = {item.name: item for item in graph.initializer}
    before, found = set[str](), set[int]()
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if weight_of(node, constants) is not None or before & set(node.output):
            before.update(node.input)
        else:
            found.add(place)
    return found


def read_head(path: Path) -> onnx.ModelProto:
    """A head's file.

    Raises:
        GraphError: missing, no ONNX, or without the metadata of `export_head`.
    """
    model = load_graph(path)
    if METADATA_KEY not in {item.key for item in model.metadata_props}:
        raise GraphError(f"{path}: has no metadata {METADATA_KEY!r}; a variant is made of a file that `dvc repro export` wrote")
    return model


def write_variant(head: Path, model: onnx.ModelProto, out: Path, says: Mapping[str, Any]) -> None:
    """Write a variant that has its head's interface and metadata, standard operators only, and no branch.

    Args:
        head: file that it was made of.
        model: the variant; it is changed.
        out: where to.
        says: goes into the metadata.

    Raises:
        GraphError: another interface, an operator that isn't standard, or a branch.
    """
    source = read_head(head)
    for kind in ("input", "output"):
        before, after = ([item.SerializeToString() for item in getattr(graph.graph, kind)] for graph in (source, model))
        if before != after:
            raise GraphError(
                f"{out}: has other {kind}s than {head.name}, expected the same; take the variant out of export.variants"
            )
    alien = alien_operators(model)
    if alien:
        raise GraphError(
            f"{out}: holds {', '.join(alien)}, expected ONNX's own operators, no branch; take the variant out of export.variants"
        )
    metadata = next(json.loads(item.value) for item in source.metadata_props if item.key == METADATA_KEY)
    versions = [item for item in model.opset_import if not item.domain]
    del model.graph.value_info[:], model.opset_import[:]
    model.opset_import.extend(versions)
    model.producer_name, model.producer_version = source.producer_name, source.producer_version
    helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata | dict(says), sort_keys=True)})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"{out}: isn't valid ONNX ({error}); take the variant out of export.variants") from error
    write_bytes(out, model.SerializeToString(deterministic=True))


def variant_figures(head: Path, variants: Mapping[str, Path], val: RoiDataset, rows: Sequence[int]) -> dict[str, float]:
    """What variants weigh, and what they cost in accuracy.

    Args:
        head: the float32 file.
        variants: such as fp16 -> file.
        val: images with annotated ROIs.
        rows: which of them.

    Returns:
        Of each variant `{name}_bytes`, `{name}_size_ratio` to the float32 file, `{name}_miou_fg_roi` on these images, and
        `{name}_miou_fg_roi_loss`: by how much that is below the float32 file's.
    """
    whole = score(head, val, rows)
    found: dict[str, float] = {}
    for name, path in variants.items():
        size, reached = path.stat().st_size, score(path, val, rows)
        found |= {
            f"{name}_bytes": size,
            f"{name}_size_ratio": round(size / head.stat().st_size, 6),
            f"{name}_miou_fg_roi": round(reached, 6),
            f"{name}_miou_fg_roi_loss": round(whole - reached, 6),
        }
    return found


def score(path: Path, val: RoiDataset, rows: Sequence[int]) -> float:
    """`miou_fg_roi` of a head's file on some images, on the processor."""
    counted = Score.empty()
    for prediction in predictions(OnnxHead(path), val, torch.device("cpu"), Loading(IMAGES, 1, 1), rows=rows):
        counted.add(prediction)
    return counted.figures()["miou_fg_roi"]
