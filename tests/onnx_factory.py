"""Tiny detectors as ONNX files, the params that go with them, and stores without a detector.

All weights are small integers and all factors powers of two: with pixels as whole numbers (`pixel_max=255`) every sum is exact in
float32, so that any processor, any order of summing and any batch size give the same bits.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from roiseg.cache.layout import stored_arrays
from roiseg.cache.params import CacheParams, ReaderParams, asked_fields
from roiseg.cache.writer import StoreWriter
from roiseg.extractor.params import ExtractorParams
from roiseg.types import HW, CutLayer

LAYER_3, LAYER_34 = "/model.3/Concat_output_0", "/model.34/Concat_output_0"
LAYERS = {"layer_34": LAYER_34, "layer_3": LAYER_3}
CHANNELS = {"layer_34": 12, "layer_3": 8}
STRIDES = {"layer_34": 8, "layer_3": 4}
FLAT = "/head/Flatten_output_0"
INPUT_HW: HW = (32, 64)
PERSON_BOX, DOG_BOX = (4.0, 8.0, 20.0, 24.0), (0.0, 0.0, 8.0, 8.0)
"""Boxes that the detector finds in every image, in network pixels."""


def weights(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Whole numbers from -2 to 2."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


def make_detector(
    path: Path,
    *,
    batch: int | None = None,
    input_hw: HW | None = None,
    channels_last: bool = False,
    inputs: int = 1,
    input_type: int = TensorProto.FLOAT,
    detections: bool = False,
    gain: float = 2.0**-8,
) -> Path:
    """Write a detector: stem of stride 4, `LAYER_3` (8 channels), `LAYER_34` (12 channels, stride 8), then a head.

    Args:
        path: file to write.
        batch: the fixed batch size, or None for a dynamic one.
        input_hw: the fixed size, or None for a dynamic one.
        channels_last: the input is (N, H, W, 3).
        inputs: 2 adds a float that nothing needs but the head.
        input_type: ONNX type of the input.
        detections: adds an output `detections` [n, 7] with `PERSON_BOX` (class 0, score = brightest pixel / 512) and `DOG_BOX`
            (class 1, score 0.75) in every image.
        gain: factor behind the stem; 64 makes features that overflow float16.

    Returns:
        `path`.
    """
    height, width = input_hw or ("h", "w")
    shape = [batch or "N", height, width, 3] if channels_last else [batch or "N", 3, height, width]
    graph_inputs = [helper.make_tensor_value_info("images", input_type, shape)]
    constants: dict[str, NDArray[Any]] = {
        "stem.weight": weights((4, 3, 4, 4), 1),
        "stem.bias": weights((4,), 2),
        "down.weight": weights((4, 8, 2, 2), 3),
        "gain": np.array(gain, dtype=np.float32),
    }
    nodes = []
    last = "images"
    if input_type != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [last], ["as_float"], to=TensorProto.FLOAT))
        last = "as_float"
    if channels_last:
        nodes.append(helper.make_node("Transpose", [last], ["planes"], perm=[0, 3, 1, 2]))
        last = "planes"
    nodes += [
        helper.make_node("Conv", [last, "stem.weight", "stem.bias"], ["stem"], strides=[4, 4], kernel_shape=[4, 4]),
        helper.make_node("Mul", ["stem", "gain"], ["scaled"]),
        helper.make_node("Relu", ["scaled"], ["relu"]),
        helper.make_node("Concat", ["scaled", "relu"], [LAYER_3], axis=1),
        helper.make_node("Conv", [LAYER_3, "down.weight"], ["down"], strides=[2, 2], kernel_shape=[2, 2]),
        helper.make_node("MaxPool", [LAYER_3], ["pool"], strides=[2, 2], kernel_shape=[2, 2]),
        helper.make_node("Concat", ["down", "pool"], [LAYER_34], axis=1),
        helper.make_node("Flatten", [LAYER_34], [FLAT], axis=1),
    ]
    if inputs == 2:
        graph_inputs.append(helper.make_tensor_value_info("threshold", TensorProto.FLOAT, []))
        nodes.append(helper.make_node("Mul", [FLAT, "threshold"], ["output0"]))
    else:
        nodes.append(helper.make_node("Neg", [FLAT], ["output0"]))
    outputs = [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [None, None])]
    if detections:
        nodes += _detection_nodes(last, constants)
        outputs.append(helper.make_tensor_value_info("detections", TensorProto.FLOAT, [None, 7]))
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "detector", graph_inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def _detection_nodes(images: str, constants: dict[str, NDArray[Any]]) -> list[onnx.NodeProto]:
    """Two rows per image: (batch number, 1, brightest pixel) times a matrix (3, 7) each."""
    person, dog = np.zeros((3, 7), dtype=np.float32), np.zeros((3, 7), dtype=np.float32)
    person[0, 0] = dog[0, 0] = dog[1, 1] = 1
    person[2, 2], dog[1, 2] = 1 / 512, 0.75
    person[1, 3:], dog[1, 3:] = PERSON_BOX, DOG_BOX
    constants |= {
        "person": person,
        "dog": dog,
        "exponent": np.array(0, dtype=np.float32),
        "zero": np.array(0, dtype=np.int64),
        "one": np.array(1, dtype=np.int64),
        "column": np.array([-1, 1], dtype=np.int64),
    }
    return [
        helper.make_node("Shape", [images], ["count"], start=0, end=1),
        helper.make_node("Squeeze", ["count"], ["n"]),
        helper.make_node("Range", ["zero", "n", "one"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["number_floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["number_floats", "column"], ["number_column"]),
        helper.make_node("ReduceMax", [images], ["peak"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Reshape", ["peak", "column"], ["peak_column"]),
        helper.make_node("Pow", ["peak_column", "exponent"], ["ones"]),
        helper.make_node("Concat", ["number_column", "ones", "peak_column"], ["facts"], axis=1),
        helper.make_node("MatMul", ["facts", "person"], ["people"]),
        helper.make_node("MatMul", ["facts", "dog"], ["dogs"]),
        helper.make_node("Concat", ["dogs", "people"], ["detections"], axis=0),
    ]


def read_bgr(path: Path | str) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of an image file."""
    pixels = cv2.imread(str(path))
    assert pixels is not None, path
    return np.asarray(pixels, dtype=np.uint8)


def extractor_params(**changes: object) -> ExtractorParams:
    """Section `extractor` for these detectors; `changes` replace its values."""
    values: dict[str, object] = {
        "onnx": "detector.onnx",
        "layers": LAYERS,
        "input_hw": INPUT_HW,
        "resize": "stretch",
        "color": "rgb",
        "pixel_max": 255.0,
        "batch_size": 3,
        "provider": "cpu",
        "precision": "float32",
        "detections": None,
    }
    return ExtractorParams.parse(values | changes, "extractor")


def cache_params(**changes: object) -> CacheParams:
    """Section `cache`; `changes` replace its values."""
    values: dict[str, object] = {"dtype": "float16", "codec": "none", "level": 1, "shuffle": "bitshuffle", "shard_mib": 1}
    values |= {"tile_hw": None, "views": ["plain"], "image": False}
    return CacheParams.parse(values | changes, "cache")


READER = ReaderParams(decode_threads=2, load_threads=1, ahead=1, concurrent_runs=2, checksums=True)


STORE_LAYERS = (CutLayer("layer_34", "/34", 6, (4, 8)), CutLayer("layer_3", "/3", 4, (8, 16)))
STORE_IMAGES = 7
STORE_IDS = np.array([50, 3, 41, 12, 9, 77, 1], dtype=np.int64)
STORE_FOUND = {"provider": "cpu", "precision": "float32", "onnxruntime": "1.0", "device": "cpu"}


@dataclass
class Recipe:
    """A store to be written straight by the writer, and its values."""

    folder: Path
    cache: CacheParams
    features: dict[str, NDArray[Any]]
    scales: dict[str, NDArray[np.float32]]
    asked: dict[str, Any]

    def writer(self) -> StoreWriter:
        self.folder.mkdir(exist_ok=True)
        arrays = stored_arrays(STORE_LAYERS, INPUT_HW, self.cache)
        return StoreWriter(self.folder, arrays, STORE_IDS, self.cache, self.scales, self.asked, STORE_FOUND)

    def write(self, writer: StoreWriter, shard: int) -> None:
        rows = writer.rows(shard)
        writer.write(shard, {name: values[rows.start : rows.stop] for name, values in self.features.items()})

    def make(self) -> Path:
        """Write all of it; its path."""
        writer = self.writer()
        for shard in writer.missing():
            self.write(writer, shard)
        writer.finish()
        return writer.path


def make_recipe(folder: Path, codec: str, dtype: str) -> Recipe:
    """Random features of whole numbers; row 2 is all zeros, which zarr would leave out if it were let."""
    cache = cache_params(codec=codec, dtype=dtype)
    rng = np.random.default_rng(8)
    features, scales = {}, {}
    for layer in STORE_LAYERS:
        shape = (STORE_IMAGES, layer.channels, *layer.hw)
        features[layer.name] = rng.integers(-127, 128, shape).astype(dtype)
        features[layer.name][2] = 0
        if dtype == "int8":
            scales[layer.name] = rng.uniform(0.1, 1, layer.channels).astype(np.float32)
    extractor = extractor_params(layers={layer.name: layer.tensor for layer in STORE_LAYERS})
    made_by = {"graph": "00ff", "scales": "12" if scales else None, "batch_size": 3, "image_ids": "34", "images": "56"}
    asked = asked_fields(extractor, cache) | cache.form() | made_by
    return Recipe(folder, cache, features, scales, asked)
