"""Surgery on the detector's ONNX: cut it to the wanted tensors, and cast them to the stored type inside the graph.

Symbols: N images, C channels, (H, W) cells of a layer.
"""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from roiseg.cut_graph import CutGraph
from roiseg.errors import GraphError
from roiseg.extractor.params import DetectionParams
from roiseg.onnx_names import METADATA_KEY
from roiseg.params import nearest
from roiseg.runtime import ORT_ERRORS
from roiseg.types import HW, INT8_MAX, CutLayer, StoredType

ONNX_ERRORS = (
    onnx.shape_inference.InferenceError,
    onnx.checker.ValidationError,
    DecodeError,
    AssertionError,
    TypeError,
    ValueError,
    RuntimeError,
)
"""All that the onnx package raises at a graph that can be read but makes no sense."""


def load_graph(path: Path) -> onnx.ModelProto:
    """An ONNX file, with the weights that it keeps in files beside it.

    Nothing is read that isn't in the folder of the file or below, whatever the file says.

    Raises:
        GraphError: missing, not an ONNX, damaged, or with weights that aren't plain files there.
    """
    if not path.is_file():
        raise GraphError(f"{path}: no such ONNX file; set extractor.onnx in params.yaml to your detector")
    try:
        # By its own name only: by the ending of the path, onnx would take a text for a graph.
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise GraphError(f"{path}: not an ONNX file ({error}); is the download whole?") from error
    except OSError as error:
        raise GraphError(f"{path}: can't be read ({error.strerror}); give yourself the right to") from error
    if not model.graph.node:
        raise GraphError(f"{path}: holds no graph, expected a detector's ONNX")
    graph = model.graph
    names = [*(name for node in graph.node for name in (node.op_type, *node.input, *node.output))]
    names += [item.name for items in (graph.initializer, graph.input, graph.output) for item in items]
    # Protobuf hands out bytes where a text isn't UTF-8.
    damaged = [name for name in names if not isinstance(name, str)]
    if damaged:
        raise GraphError(f"{path}: {damaged[0]!r} is no name, expected text; is the download whole?")
    _load_weights(model, path)
    return model


def _load_weights(model: onnx.ModelProto, path: Path) -> None:
    apart = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    named = sorted({entry.value for tensor in apart for entry in tensor.external_data if entry.key == "location"})
    try:
        load_external_data_for_model(model, str(path.parent))
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        shown = ", ".join(repr(item) for item in named[:3]) + (" and others" if len(named) > 3 else "")
        raise GraphError(
            f"{path}: keeps weights in {shown or 'another file'}, which can't be taken ({error}); expected plain files in "
            f"{path.parent} or below, no links: put copies of them there, or export the detector as one file"
        ) from error
    for tensor in apart:
        # Said or not, it means the same, but the bytes of the cut would tell how the weights came.
        tensor.ClearField("data_location")


def read_metadata(model: onnx.ModelProto, path: Path) -> CutGraph:
    """The description that `cut` left in a model.

    Raises:
        GraphError: the file wasn't made by `cut`.
    """
    for item in model.metadata_props:
        if item.key == METADATA_KEY:
            return CutGraph.from_json(item.value)
    raise GraphError(f"{path}: has no {METADATA_KEY!r} metadata, expected the output of the `backbone` stage")


def find_input(model: onnx.ModelProto, input_hw: HW, source: str) -> tuple[str, int | None]:
    """Name and fixed batch size of the image input.

    Args:
        model: the detector.
        input_hw: size that images will have.
        source: file name for messages.

    Raises:
        GraphError: not one input of float32 (N, 3, H, W) that takes `input_hw`.
    """
    constants = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    if len(inputs) != 1:
        raise GraphError(f"{source}: has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}), expected one image input")
    tensor = inputs[0].type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    shown = [dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "?") for dim in tensor.shape.dim]
    kind = TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type in TensorProto.DataType.values() else tensor.elem_type
    told = f"{source}: input {inputs[0].name!r} is {kind} {shown}"
    if len(shape) == 4 and shape[1] != 3 and shape[3] == 3:
        raise GraphError(f"{told}, channels last; expected channels first (N, 3, H, W): export the detector as NCHW")
    if len(shape) != 4 or shape[1] not in (3, None):
        raise GraphError(f"{told}, expected float32 (N, 3, H, W)")
    if tensor.elem_type != TensorProto.FLOAT:
        raise GraphError(f"{told}, expected FLOAT: export the detector in float32")
    if any(have not in (None, want) for have, want in zip(shape[2:], input_hw, strict=True)):
        raise GraphError(f"{told}, but extractor.input_hw is {list(input_hw)}; set it to the size that the ONNX has")
    return inputs[0].name, shape[0] or None


def check_tensors(model: onnx.ModelProto, tensors: Mapping[str, str], source: str) -> None:
    """See that every wanted tensor is in the graph.

    Args:
        model: the detector.
        tensors: what a param calls it -> tensor name.
        source: file name for messages.

    Raises:
        GraphError: names the missing tensors and those that are called alike.
    """
    known = [output for node in model.graph.node for output in node.output]
    lines = [
        f"{name}: no tensor {tensor!r}; {_near_tensors(tensor, known)}" for name, tensor in tensors.items() if tensor not in known
    ]
    if lines:
        raise GraphError(f"{source}: {len(lines)} wanted tensor(s) aren't in the graph:\n  " + "\n  ".join(lines))


def _near_tensors(tensor: str, known: Sequence[str]) -> str:
    alike = nearest(tensor, known)
    if alike.startswith("did you"):
        return alike
    concats = [name for name in known if "Concat" in name]
    return f"the graph's Concat outputs are {', '.join(concats[:20])}" if concats else alike[:400]


def cut(
    model: onnx.ModelProto,
    layers: Mapping[str, str],
    input_hw: HW,
    dtype: StoredType,
    detections: DetectionParams | None,
    source: str,
) -> onnx.ModelProto:
    """Keep what leads to the wanted tensors, and end each in a cast to its stored type.

    Args:
        model: the detector.
        layers: layer name -> tensor name.
        input_hw: size of the network input in pixels.
        dtype: `float16`, or `int8` as clip(round(x / scale), -127, 127) with one more input `{layer}_scale`
            float32 (1, C, 1, 1) per layer, so that the scales aren't part of the graph.
        detections: the detector's own boxes, kept as an output of their own, or None.
        source: file name for messages.

    Returns:
        A model with outputs named like the layers, and a `CutGraph` in its metadata.

    Raises:
        GraphError: see `find_input`, `check_tensors`; or a tensor that isn't float32 (N, C, H, W).
    """
    input_name, batch_size = find_input(model, input_hw, source)
    wanted = dict(layers) | ({"detections": detections.output} if detections else {})
    check_tensors(model, wanted, source)
    part = _extract(model, input_name, list(wanted.values()), source)
    _check_names(part, layers, source)
    shapes = _probe(part, input_name, (batch_size or 1, 3, *input_hw), source)
    cut_layers = []
    for name, tensor in layers.items():
        shape, kind = shapes[tensor]
        if len(shape) != 4 or kind != np.float32:
            raise GraphError(f"{source}: tensor {tensor!r} is {kind} {list(shape)}, expected a float32 map (N, C, H, W)")
        cut_layers.append(CutLayer(name, tensor, shape[1], (shape[2], shape[3])))
    for layer in cut_layers:
        _append_cast(part, layer, dtype)
    outputs = [_output(layer.name, dtype, [None, layer.channels, *layer.hw]) for layer in cut_layers]
    if detections:
        outputs.append(next(item for item in part.graph.output if item.name == detections.output))
    del part.graph.output[:]
    part.graph.output.extend(outputs)
    info = CutGraph(input_name, input_hw, batch_size, dtype, tuple(cut_layers), detections.output if detections else None)
    del part.metadata_props[:]
    helper.set_model_props(part, {METADATA_KEY: info.to_json()})
    return part


def _extract(model: onnx.ModelProto, input_name: str, tensors: list[str], source: str) -> onnx.ModelProto:
    """`onnx.utils.extract_model` works on files, and so do we, in a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        whole, part = Path(folder) / "whole.onnx", Path(folder) / "part.onnx"
        try:
            inferred = onnx.shape_inference.infer_shapes(model)
            known = {item.name for item in (*inferred.graph.value_info, *inferred.graph.output)}
            for tensor in tensors:
                if tensor not in known:
                    inferred.graph.value_info.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
            onnx.save(inferred, whole)
            onnx.utils.extract_model(whole, part, [input_name], tensors, check_model=False, infer_shapes=False)
            cut_model = onnx.load(part)
        except ONNX_ERRORS as error:
            raise GraphError(
                f"{source}: its graph contradicts itself ({error}); is the file whole? export the detector anew"
            ) from error
    del cut_model.graph.value_info[:]
    cut_model.doc_string = ""
    return cut_model


def _check_names(model: onnx.ModelProto, layers: Mapping[str, str], source: str) -> None:
    """See that no layer takes the name of a tensor, which would then have two makers."""
    taken = {output for node in model.graph.node for output in node.output} | {item.name for item in model.graph.input}
    for name in layers:
        if name in taken:
            raise GraphError(
                f"{source}: layer {name!r} has the name of a tensor of the graph; call it otherwise in extractor.layers"
            )


def _probe(model: onnx.ModelProto, input_name: str, shape: tuple[int, ...], source: str) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shapes and types of the outputs, found by one run on a grey image: no inference of shapes is as sure as that."""
    try:
        # Without a second try on the same provider, which onnxruntime would announce on the console.
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"], enable_fallback=0)
        names = [item.name for item in session.get_outputs()]
        values = session.run(names, {input_name: np.full(shape, 0.5, dtype=np.float32)})
    except ORT_ERRORS as error:
        raise GraphError(f"{source}: onnxruntime can't run the cut graph on an input of {list(shape)}: {error}") from error
    return {name: (tuple(value.shape), value.dtype) for name, value in zip(names, values, strict=True)}


_ONNX_TYPES = {"float16": TensorProto.FLOAT16, "int8": TensorProto.INT8}


def _output(name: str, dtype: StoredType, shape: list[int | None]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _ONNX_TYPES[dtype], ["N" if item is None else item for item in shape])


def _append_cast(model: onnx.ModelProto, layer: CutLayer, dtype: StoredType) -> None:
    name, last = layer.name, layer.tensor
    if dtype == "int8":
        scale = f"{name}_scale"
        model.graph.input.append(helper.make_tensor_value_info(scale, TensorProto.FLOAT, [1, layer.channels, 1, 1]))
        bounds = {f"{name}/low": -float(INT8_MAX), f"{name}/high": float(INT8_MAX)}
        for key, value in bounds.items():
            model.graph.initializer.append(helper.make_tensor(key, TensorProto.FLOAT, [], [value]))
        model.graph.node.append(helper.make_node("Div", [last, scale], [f"{name}/scaled"], name=f"{name}/Div"))
        model.graph.node.append(helper.make_node("Round", [f"{name}/scaled"], [f"{name}/rounded"], name=f"{name}/Round"))
        model.graph.node.append(helper.make_node("Clip", [f"{name}/rounded", *bounds], [f"{name}/clipped"], name=f"{name}/Clip"))
        last = f"{name}/clipped"
    model.graph.node.append(helper.make_node("Cast", [last], [name], name=f"{name}/Cast", to=_ONNX_TYPES[dtype]))


def uncast(model: onnx.ModelProto, info: CutGraph) -> onnx.ModelProto:
    """The cut graph with its layers as they leave the detector, float32, under their tensor names."""
    ours = {f"{layer.name}/{part}" for layer in info.layers for part in ("Div", "Round", "Clip", "Cast")}
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    nodes = [node for node in plain.graph.node if node.name not in ours]
    inputs = [item for item in plain.graph.input if item.name == info.input_name]
    outputs = [helper.make_tensor_value_info(layer.tensor, TensorProto.FLOAT, None) for layer in info.layers]
    for field, items in (("node", nodes), ("input", inputs), ("output", outputs)):
        kept = [type(item).FromString(item.SerializeToString()) for item in items]
        plain.graph.ClearField(field)
        getattr(plain.graph, field).extend(kept)
    return plain


def bake_scales(model: onnx.ModelProto, scales: Mapping[str, np.ndarray[Any, np.dtype[np.float32]]]) -> onnx.ModelProto:
    """An int8 graph whose scales are constants instead of inputs, for use away from the DAG.

    Args:
        model: output of `cut`.
        scales: layer name -> (C,) float32; empty for float16, which changes nothing.
    """
    baked = onnx.ModelProto()
    baked.CopyFrom(model)
    names = {f"{name}_scale" for name in scales}
    inputs = [onnx.ValueInfoProto.FromString(i.SerializeToString()) for i in baked.graph.input if i.name not in names]
    baked.graph.ClearField("input")
    baked.graph.input.extend(inputs)
    for name, values in scales.items():
        tensor = helper.make_tensor(f"{name}_scale", TensorProto.FLOAT, [1, len(values), 1, 1], values.astype(float).tolist())
        baked.graph.initializer.append(tensor)
    return baked


def keep_layers(model: onnx.ModelProto, layers: Sequence[str], source: str) -> onnx.ModelProto:
    """A cut graph of fewer layers: what doesn't lead to them is left out, so that a run costs less.

    Args:
        model: output of `cut`, or of `bake_scales`.
        layers: those that stay, at least one.
        source: file name for messages.

    Raises:
        GraphError: it hasn't got one of them, or is no cut graph.
    """
    info = read_metadata(model, Path(source))
    there = {item.name: item for item in model.graph.output}
    missing = [name for name in layers if name not in there]
    if missing:
        raise GraphError(f"{source}: has no layer {', '.join(missing)}, only {', '.join(there)}; add it to extractor.layers")
    part = _extract(model, info.input_name, list(layers), source)
    del part.graph.output[:], part.metadata_props[:]
    part.graph.output.extend(there[name] for name in layers)
    kept = replace(info, layers=tuple(layer for layer in info.layers if layer.name in layers), detections=None)
    helper.set_model_props(part, {METADATA_KEY: kept.to_json()})
    return part


def tensor_digest(model: onnx.ModelProto, tensor: str) -> str:
    """SHA-256 of all nodes and weights that a tensor comes from, whatever else the graph holds.

    Args:
        model: a detector, or a part of one.
        tensor: its name.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    weights = {item.name: item for item in model.graph.initializer}
    whole, seen, todo = hashlib.sha256(), set[str](), [tensor]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        item = makers.get(name) or weights.get(name)
        whole.update(name.encode() + b"\0" + (b"" if item is None else item.SerializeToString(deterministic=True)))
        if name in makers:
            todo += makers[name].input
    return whole.hexdigest()
