"""A head's file in INT8, calibrated on cached features: a quarter of the bytes, and integer arithmetic where a processor has it.

Weights are symmetric and per channel, activations symmetric and per tensor, which is the form that TensorRT takes too.
Weights use 7 of the 8 bits: a processor without VNNI adds two products in 16 bits, which 8 bits overflow, and the file would say
something else there.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from roiseg.batches import Loading, dequantise, whole_batches
from roiseg.dataset import RoiDataset
from roiseg.errors import GraphError
from roiseg.evaluate.infer import pass_sizes
from roiseg.export.variants import WEIGHTED, coordinates_of, of_boxes, read_head, weight_of, write_variant
from roiseg.onnx_names import BOXES, feature_input

LAST_SHARE = 0.01
"""Share of all weights up to which the last layers stay float32: 8 bits of a logit are steps of some per cent."""

Feeds = Mapping[str, NDArray[np.float32]]


def make_int8(head: Path, out: Path, calibration: Iterable[Feeds]) -> None:
    """Write the INT8 variant of a head's file: the same inputs and outputs, float32 too.

    Quantised are convolutions and products with trained weights, on both sides, to a moving average of the smallest and largest
    value of each feed of the calibration; ROI align, norms, softmax, what is computed from boxes and the last layers stay float32.

    Args:
        head: file of `export_head`, float32.
        out: the variant; its metadata say `precision: int8` and how it was calibrated.
        calibration: inputs of the head, see `calibration_feeds`; held one at a time.

    Raises:
        GraphError: nothing to calibrate on or to quantise, or the graph isn't one of a head.
    """
    model, feeds = read_head(head), _Feeds(calibration, head)
    for place, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{place}"
    nodes = _quantised(model, head)
    with TemporaryDirectory() as folder:
        # onnxruntime writes beside what it reads.
        source, made = Path(folder) / "head.onnx", Path(folder) / "int8.onnx"
        add_pre_process_metadata(model)
        onnx.save(model, source)
        quantize_static(
            source,
            made,
            feeds,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted(WEIGHTED),
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # One feed with a value far from all others would stretch the steps of every other one.
            extra_options={"ActivationSymmetric": True, "CalibMovingAverage": True},
        )
        quantised = onnx.load(made)
    _halve_planes(quantised.graph)
    _compact(quantised.graph)
    write_variant(
        head, quantised, out, {"precision": "int8", "calibration": {"method": "moving average of minmax", "passes": feeds.given}}
    )


class _Feeds(CalibrationDataReader):  # type: ignore[misc] # onnxruntime is untyped
    """Inputs one after the other, as onnxruntime asks for them."""

    def __init__(self, feeds: Iterable[Feeds], path: Path) -> None:
        remaining = iter(feeds)
        first = next(remaining, None)
        if first is None:
            raise GraphError(
                f"{path}: there is no ROI to calibrate INT8 on, expected at least one; "
                "raise export.calibration_images, or take int8 out of export.variants"
            )
        self._feeds, self.given = chain([first], remaining), 0

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next inputs; None after the last."""
        found = next(self._feeds, None)
        self.given += found is not None
        return None if found is None else dict(found)


def _quantised(model: onnx.ModelProto, path: Path) -> list[str]:
    """Names of the nodes with weights, without the last ones and those that read coordinates."""
    constants = {item.name: item for item in model.graph.initializer}
    coordinates = {name for place in of_boxes(model.graph) for name in model.graph.node[place].output}
    coordinates |= coordinates_of(model.graph)
    nodes = [node for node in model.graph.node if node.input and node.input[0] not in coordinates]
    weights = {node.name: weight_of(node, constants) for node in nodes}
    sizes = {name: int(np.prod(item.dims)) for name, item in weights.items() if item is not None}
    spare = LAST_SHARE * sum(sizes.values())
    for name in _last(model.graph, sizes):
        spare -= sizes[name]
        if spare >= 0:
            del sizes[name]
    if not sizes:
        raise GraphError(
            f"{path}: has no node with weights among {', '.join(sorted(WEIGHTED))}, which INT8 is about; "
            "take int8 out of export.variants"
        )
    return list(sizes)


def _last(graph: onnx.GraphProto, weighted: Iterable[str]) -> list[str]:
    """Names of the weighted nodes that no other one follows on some way to an output, the nearest first."""
    made_by = {name: node for node in graph.node for name in node.output}
    names, found = set(weighted), dict[str, None]()
    waiting, seen = [item.name for item in graph.output], set[str]()
    while waiting:
        node = made_by.get(waiting.pop(0))
        if node is None or node.name in seen or node.op_type == "Shape":
            continue
        seen.add(node.name)
        if node.name in names:
            found[node.name] = None
        else:
            waiting += node.input
    return list(found)


def _halve_planes(graph: onnx.GraphProto) -> None:
    """Keep planes that every ROI sees alike in float16: where each cell lies is read in steps of 8 bits anyway."""
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    nodes = []
    for item in graph.initializer:
        if item.data_type == TensorProto.FLOAT and readers.get(item.name) == {"Expand"}:
            name = item.name
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), f"{name}_half"))
            nodes.append(helper.make_node("Cast", [item.name], [name], to=TensorProto.FLOAT))
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)


def _compact(graph: onnx.GraphProto) -> None:
    """Merge equal constants, and shorten the names that quantisation adds: in a small head they weigh as much as a layer."""
    first, same = dict[bytes, str](), dict[str, str]()
    for item in graph.initializer:
        name, item.name = item.name, ""
        same[name] = first.setdefault(item.SerializeToString(deterministic=True), name)
        item.name = name
    kept = [item for item in graph.initializer if same[item.name] == item.name]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    fixed = {item.name for item in (*graph.input, *graph.output)} | {item.name for item in kept if "_scale" not in item.name}
    short = dict[str, str]()
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.ClearField("name")
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                one = same.get(name, name)
                names[place] = one if not one or one in fixed else short.setdefault(one, f"t{len(short)}")
    for item in graph.initializer:
        item.name = short.get(item.name, item.name)


def calibration_rows(train: RoiDataset, count: int, seed: int) -> Sequence[int]:
    """Rows of a sample of the images that have ROIs, in row order; all where there are fewer than `count`."""
    drawn = np.random.default_rng(seed).choice(train.rows, min(count, len(train.rows)), replace=False)
    return [int(row) for row in np.sort(drawn)]


def calibration_feeds(train: RoiDataset, rows: Sequence[int]) -> Iterable[dict[str, NDArray[np.float32]]]:
    """Cached features of some images with their annotated ROIs, as a head's file takes them, one image in memory at a time.

    Args:
        train: layers of the head.
        rows: images that have ROIs.

    Yields:
        `features_{layer}` (1, C, H, W) and `boxes` (R, 5); they hold until the next is asked for.
    """
    scales = {name: torch.from_numpy(values) for name, values in train.store.scales.items()}
    floats: dict[str, torch.Tensor] = {}
    for batch in whole_batches(train, Loading(1, 1, 1), rows):
        features = dequantise(batch.features, scales, torch.device("cpu"), floats)
        maps = {feature_input(name): features[name].numpy() for name in train.layers}
        for boxes in torch.split(batch.boxes, pass_sizes(batch.boxes[:, 0])):
            yield maps | {BOXES: boxes.numpy()}
