"""A folder in which the stages backbone, calibrate and extract run on eleven small images, and slow ways to the same features."""

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import zarr
from numpy.typing import NDArray
from onnx_factory import INPUT_HW, LAYERS, READER, read_bgr

from roiseg.backbone import make_backbone
from roiseg.cache.params import CacheParams
from roiseg.cache.scales import save_scales
from roiseg.calibrate import CalibrateParams, calibrate
from roiseg.extractor.extract import ExtractPaths, extract
from roiseg.extractor.params import ExtractorParams

IMAGES = 11
SHARD_BYTES = 8192
"""What stands for a MiB here: two images of layer_3 in float16, four in int8."""

PER_SHARD = 4

SCALES, DETECTIONS = Path("scales.npz"), Path("d.parquet")
PATHS = ExtractPaths(Path("images"), Path("index/train/images.parquet"), Path("backbone.onnx"), SCALES, Path("f.zarr"), DETECTIONS)


def run(extractor: ExtractorParams, cache: CacheParams, detector: str = "detector.onnx") -> dict[str, float]:
    """Stages backbone, calibrate and extract@train in the working folder."""
    layers = dict(extractor.layers)
    make_backbone(Path(detector), layers, extractor.input_hw, cache.dtype, extractor.detections, PATHS.backbone)
    scales = calibrate(CalibrateParams(images=100, seed=0), extractor, PATHS.backbone, PATHS.index, PATHS.images, 2)
    save_scales(SCALES, scales)
    return extract("extract@train", PATHS, extractor, cache, READER)


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    files = sorted(item for item in folder.rglob("*") if item.is_file())
    return {item.relative_to(folder).as_posix(): hashlib.sha256(item.read_bytes()).hexdigest() for item in files}


def shard_files(work: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every shard in a work folder that counts as written."""
    numbers = {item.stem for item in (work / "shards").glob("*.json")}
    files = [item for item in (work / "store.zarr").glob("layer_*/c.*.0.0.0") if item.name.split(".")[1] in numbers]
    return {item.relative_to(work).as_posix(): (item.stat().st_ino, item.stat().st_mtime_ns) for item in files}


def work_folder() -> Path:
    """The only work folder."""
    (folder,) = Path(".work").iterdir()
    return folder


def expected_floats(detector: Path) -> dict[str, NDArray[np.float32]]:
    """Features of all images by a slow way of its own: the whole detector, one image at a time, RGB in 0-255."""
    model = onnx.load(detector)
    for tensor in LAYERS.values():
        model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values: dict[str, list[NDArray[np.float32]]] = {name: [] for name in LAYERS}
    for name in pd.read_parquet(PATHS.index)["file_name"]:
        pixels = cv2.cvtColor(read_bgr(f"images/{name}"), cv2.COLOR_BGR2RGB)
        image = cv2.resize(pixels, INPUT_HW[::-1]).transpose(2, 0, 1)[None].astype(np.float32)
        for layer, value in zip(LAYERS, session.run(list(LAYERS.values()), {"images": image}), strict=True):
            values[layer].append(value[0])
    return {name: np.stack(items) for name, items in values.items()}


def stored(path: Path = PATHS.store) -> dict[str, NDArray[Any]]:
    """All layers by plain zarr."""
    group = zarr.open_group(path, mode="r")
    return {name: np.asarray(group[name][:]) for name in LAYERS}  # type: ignore[index]
