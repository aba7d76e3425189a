"""A tiny project for tests: two splits with index tables, a small detector, and the feature stores that it fills.

The pictures are those of `make_coco`. The network input and all maps are wider than high, so that swapped axes show.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from data_factory import CATEGORIES, image_record, make_coco
from head_factory import MODELS
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from roiseg.analyze.measure import measure_image
from roiseg.analyze.run import per_roi_table
from roiseg.cache.layout import stored_arrays
from roiseg.cache.params import CacheParams, ReaderParams, asked_fields
from roiseg.cache.reader import FeatureStore
from roiseg.cache.writer import StoreWriter
from roiseg.coco import People, load_people, people_per_image, to_coco
from roiseg.dataset import DatasetParams, RoiDataset
from roiseg.evaluate.detections import COLUMNS
from roiseg.extractor.graph import cut
from roiseg.extractor.params import ExtractorParams
from roiseg.extractor.session import Backbone
from roiseg.files import sha256_json, write_bytes, write_json, write_parquet
from roiseg.heads import parse_model
from roiseg.heads.base import HeadParams
from roiseg.index import Index, build_tables
from roiseg.network_input import to_input
from roiseg.prepare import choose_pictures
from roiseg.previews import PREVIEWS_FILE, write_previews
from roiseg.sampler import Sampler, SamplerParams
from roiseg.train.checkpoint import Checkpoint
from roiseg.trained import HeadSections
from roiseg.types import CutLayer, StoredType, array_name

NETWORK_HW = (64, 96)
TENSORS = {"layer_34": "/model.34/Concat_output_0", "layer_3": "/model.3/Concat_output_0"}
CHANNELS = {"layer_34": 6, "layer_3": 4}
STRIDES = {"layer_34": 8, "layer_3": 4}

MODEL = MODELS["roi_crop"]

DATASET: Mapping[str, Any] = {"roi_padding": 0.0}

SAMPLER: Mapping[str, Any] = {
    "rois_per_image": 3,
    "jitter_centre": 0.1,
    "jitter_scale": 0.1,
    "crop": 1.0,
    "extra_rois": 0,
    "extra_jitter": 0.3,
    "extra_iou": 0.5,
    "non_target_gamma": 0.0,
    "balance": "none",
    "feature_noise": 0.0,
    "views": None,
}

STATISTICS: Mapping[str, Any] = {
    "recommended_class_weights": {"background": 0.5, "target": 1.0, "non_target": 1.5},
    "recommended_log_class_weights": {"background": 0.8, "target": 1.0, "non_target": 1.2},
    "separation_aware_weights": {"background": 0.6, "target": 1.1, "non_target": 1.3},
}
"""What the loss reads of data_analyze.json."""


def extractor_params(**changes: object) -> ExtractorParams:
    """Section `extractor` for the tiny detector."""
    values: dict[str, object] = {
        "onnx": "detector.onnx",
        "layers": dict(TENSORS),
        "input_hw": list(NETWORK_HW),
        "resize": "stretch",
        "color": "rgb",
        "pixel_max": 1.0,
        "batch_size": 1,
        "provider": "cpu",
        "precision": "float32",
        "detections": None,
    }
    return ExtractorParams.parse(values | changes, "extractor")


def cache_params(dtype: StoredType = "float16", **changes: object) -> CacheParams:
    """Section `cache`; `changes` replace its values."""
    values = {"dtype": dtype, "codec": "lz4", "level": 1, "shuffle": "bitshuffle", "shard_mib": 1}
    return CacheParams.parse({**values, "tile_hw": None, "views": ["plain"], "image": False, **changes}, "cache")


def detector() -> onnx.ModelProto:
    """An ONNX of two convolutions with fixed random weights: each layer sees the image on its own."""
    rng = np.random.default_rng(5)
    nodes, weights = [], []
    for name, tensor in TENSORS.items():
        stride = STRIDES[name]
        kernel = rng.normal(0, 2 / stride, (CHANNELS[name], 3, stride, stride)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"{name}.weight"))
        nodes.append(
            helper.make_node("Conv", ["images", f"{name}.weight"], [tensor], name=f"{name}.conv", strides=[stride, stride])
        )
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, *NETWORK_HW])]
    outputs = [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None) for tensor in TENSORS.values()]
    graph = helper.make_graph(nodes, "detector", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_store(
    folder: Path,
    path: Path,
    features: Mapping[str, NDArray[Any]],
    image_ids: Sequence[int],
    *,
    asked: Mapping[str, Any],
    cache: CacheParams,
    scales: Mapping[str, NDArray[np.float32]] | None = None,
) -> Path:
    """A complete store at `path`.

    Args:
        folder: work folder of the writer.
        path: such as `features/train.zarr`.
        features: array -> (N, C, H, W) of the stored type; the arrays that `cache` asks for.
        image_ids: N ids in row order.
        asked: see `StoreWriter`.
        cache: section `cache`.
        scales: of int8 layers.
    """
    layers = tuple(
        CutLayer(name, TENSORS[name], values.shape[1], (values.shape[2], values.shape[3]))
        for name, values in features.items()
        if name in TENSORS
    )
    ids = np.array(image_ids, dtype=np.int64)
    arrays = stored_arrays(layers, NETWORK_HW, cache)
    writer = StoreWriter(folder, arrays, ids, cache, scales or {}, asked, {"provider": "cpu"})
    for shard in writer.missing():
        rows = writer.rows(shard)
        writer.write(shard, {name: values[rows.start : rows.stop] for name, values in features.items()})
    writer.finish()
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.path.replace(path)
    return path


@dataclass(frozen=True)
class Project:
    """Where everything lies.

    Attributes:
        root: folder of the project.
        dtype: stored type.
        scales: layer -> (C,) float32 for int8, else empty.
    """

    root: Path
    dtype: StoredType
    scales: Mapping[str, NDArray[np.float32]]

    @property
    def index(self) -> Path:
        """`{train,val}/*.parquet`, and `val/pictures`."""
        return self.root / "index"

    @property
    def features(self) -> Path:
        """`{train,val}.zarr`."""
        return self.root / "features"

    @property
    def backbone(self) -> Path:
        """The cut ONNX."""
        return self.root / "backbone.onnx"

    @property
    def statistics(self) -> Path:
        """data_analyze.json, as far as the loss reads it."""
        return self.root / "data_analyze.json"

    def annotations(self, split: str) -> Path:
        """The person-only JSON of a split."""
        return self.root / "annotations" / f"{split}.json"

    def detections(self, split: str) -> Path:
        """What extract writes of a detector that gives no boxes."""
        return self.root / "detections" / f"{split}.parquet"

    def image(self, split: str, name: str) -> Path:
        """An image file."""
        return self.root / split / "images" / name

    def people(self, split: str) -> People:
        """The annotations of a split."""
        return load_people(self.annotations(split), "person", "error")

    def sections(self, model: Mapping[str, Any] = MODEL, **dataset: object) -> HeadSections:
        """Sections of a head; `dataset` replaces values of `DATASET`."""
        return HeadSections(
            extractor_params(),
            cache_params(self.dtype),
            DatasetParams.parse({**DATASET, **dataset}, "dataset"),
            parse_model(model),
            ReaderParams(decode_threads=1, load_threads=1, ahead=2, concurrent_runs=1, checksums=True),
        )

    @property
    def rois(self) -> Path:
        """The table of training ROIs that `analyze` writes."""
        return self.root / "rois.parquet"

    def sampler(self, model: Mapping[str, Any] = MODEL, **changes: object) -> Sampler:
        """Draws from the training split; `changes` replace values of `SAMPLER`."""
        return Sampler(self.open("train", model), sampler_params(**changes), self.rois)

    def open(self, split: str, model: Mapping[str, Any] = MODEL, **dataset: object) -> RoiDataset:
        """A split as a data set."""
        return self.sections(model, **dataset).open_split(split, self.index, self.features)


def sampler_params(**changes: object) -> SamplerParams:
    """Section `sampler`, with changes to `SAMPLER`."""
    return SamplerParams.parse({**SAMPLER, **changes}, "sampler")


def model_params(**changes: object) -> HeadParams:
    """Section `model`, with changes to `MODEL`."""
    return parse_model({**MODEL, **changes})


def make_project(
    root: Path, dtype: StoredType = "float16", images: tuple[int, int] = (5, 4), min_box_px: float = 14.0, **stored: object
) -> Project:
    """Draw pictures, build tables, cut the detector and fill both stores.

    Args:
        root: where to write.
        dtype: stored type.
        images: of the training and validation split.
        min_box_px: people smaller than this have no ROI; 14 leaves some of both kinds.
        stored: changes to section `cache`, such as `views` and `image`.
    """
    extractor = extractor_params()
    detector_file = root / "detector.onnx"
    write_bytes(detector_file, detector().SerializeToString(deterministic=True))
    plain = _cut(root / "plain.onnx", "float16")
    batches: dict[str, tuple[list[int], list[NDArray[np.float32]]]] = {}
    for split, seed, count in zip(("train", "val"), (4, 6), images, strict=True):
        people = load_people(make_coco(root / split, count, seed=seed, people=(1, 5)), "person", "error")
        write_json(root / "annotations" / f"{split}.json", to_coco(people))
        tables = build_tables(people, NETWORK_HW, "stretch", min_box_px)
        for name, table in zip(("images", "people"), tables, strict=True):
            write_parquet(root / "index" / split / f"{name}.parquet", table)
        names = [str(item["file_name"]) for item in people.images]
        pixels = [np.asarray(cv2.imread(str(root / split / "images" / name)), dtype=np.uint8) for name in names]
        batches[split] = [int(item["id"]) for item in people.images], [to_input(item, extractor.input_rule()) for item in pixels]
        no_boxes = {name: np.zeros(0, dtype=kind) for name, kind in zip(COLUMNS, "qqddddd", strict=True)}
        write_parquet(root / "detections" / f"{split}.parquet", pd.DataFrame(no_boxes))
        if split == "val":
            write_previews(root / "index" / "val" / PREVIEWS_FILE, people, root / "val" / "images")
            for name in choose_pictures(people, ())[:2]:
                write_bytes(root / "index" / "val" / "pictures" / name, (root / split / "images" / name).read_bytes())
    scales = {} if dtype == "float16" else _scales(Backbone(plain, "cpu", "float32"), batches["train"][1])
    backbone = Backbone(_cut(root / "backbone.onnx", dtype), "cpu", "float32", scales)
    cache = cache_params(dtype, **stored)
    for split, (ids, inputs) in batches.items():
        features = _features(backbone, inputs, cache)
        asked = asked_fields(extractor, cache) | {"images": sha256_json([split, ids])}
        write_store(
            root / f"work_{split}", root / "features" / f"{split}.zarr", features, ids, asked=asked, cache=cache, scales=scales
        )
    (root / "data_analyze.json").write_text(json.dumps(STATISTICS))
    write_parquet(root / "rois.parquet", measured_rois(load_people(root / "annotations" / "train.json", "person", "error"), 0.0))
    return Project(root, dtype, scales)


def write_shares(path: Path, index: Index, shares: Mapping[int, Sequence[float]], padding: float = 0.0) -> Path:
    """A table of ROIs by hand; `shares` are the class-2 shares of the ROIs of each row, of 1000 pixels each."""
    ids = np.repeat(index.image_ids, index.rois_per_image)
    found = np.concatenate([np.asarray(shares[row], dtype=np.float64) for row in range(len(index))])
    others = np.rint(found * 1000).astype(np.int64)
    columns = {"image_id": ids, "annotation_id": index.roi_annotation_ids, "n_non_target": others, "area": 1000}
    write_parquet(path, pd.DataFrame(columns).assign(padding=padding))
    return path


def measured_rois(people: People, padding: float) -> pd.DataFrame:
    """The table of ROIs that `analyze` writes."""
    groups = people_per_image(people)
    return per_roi_table([measure_image(image, groups[int(image["id"])], padding) for image in people.images], padding)


def _features(backbone: Backbone, inputs: Sequence[NDArray[np.float32]], cache: CacheParams) -> dict[str, NDArray[Any]]:
    """All arrays of a store, by plain means."""
    features: dict[str, NDArray[Any]] = {}
    for view in cache.views:
        seen = [item if view == "plain" else item[..., ::-1] for item in inputs]
        found = [backbone(item[None]) for item in seen]
        features |= {array_name(name, view): np.concatenate([item[name] for item in found]) for name in TENSORS}
    if cache.image:
        features["image"] = np.rint(np.stack(inputs) * 255).astype(np.uint8)
    return features


def shared_project(folders: pytest.TempPathFactory, dtype: StoredType = "float16") -> Project:
    """One project for all tests that only read it."""
    return project_in(folders.getbasetemp(), dtype)


@functools.cache
def project_in(base: Path, dtype: StoredType) -> Project:
    return make_project(base / f"project_{dtype}", dtype)


def shared_views(folders: pytest.TempPathFactory) -> Project:
    """One project that holds mirrored features, and images."""
    return _views_in(folders.getbasetemp())


@functools.cache
def _views_in(base: Path) -> Project:
    return make_project(base / "project_views", "int8", views=["plain", "mirrored"], image=True)


def make_checkpoint(head: nn.Module, dataset: RoiDataset, params: HeadParams, epoch: int = 3) -> Checkpoint:
    """A checkpoint of a head, as if it had been trained."""
    specs = dataset.store.specs
    return Checkpoint(
        epoch=epoch,
        model=head.state_dict(),
        live=head.state_dict(),
        optimizer={},
        scaler={},
        rng={"cpu": [torch.Generator().manual_seed(0).get_state()]},
        loss=[{}],
        params={"model": json.loads(params.model_dump_json())},
        layers={name: [specs[name].channels, *specs[name].stride_hw] for name in dataset.layers},
        fingerprint=dataset.store.asked,
        metrics={"miou_fg_roi": 0.5},
        best=0.5,
        rate=0.1,
        rows=[{"epoch": epoch, "miou_fg_roi": 0.5}],
    )


def _cut(path: Path, dtype: StoredType) -> Path:
    model = cut(detector(), TENSORS, NETWORK_HW, dtype, None, "detector.onnx")
    write_bytes(path, model.SerializeToString(deterministic=True))
    return path


def _scales(backbone: Backbone, inputs: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Per-channel scales that take the largest training value to 127."""
    found = [backbone(item[None]) for item in inputs]
    return {
        name: np.max([np.abs(item[name][0]).max(axis=(1, 2)) for item in found], axis=0).astype(np.float32) / 127
        for name in TENSORS
    }


STILL: dict[str, Any] = {"jitter_centre": 0.0, "jitter_scale": 0.0}
"""Of section `sampler`."""


def hand_made(folder: Path, people: Sequence[dict[str, Any]], dataset: dict[str, Any] | None = None) -> RoiDataset:
    """One image of 32 rows and 64 columns and random features; the network input has the same size."""
    images = [image_record(7, (32, 64))]
    tables = build_tables(People(images, list(people), CATEGORIES[1]), (32, 64), "stretch", 8.0)
    for name, table in zip(("images", "people"), tables, strict=True):
        write_parquet(folder / f"{name}.parquet", table)
    features = {"layer_3": np.random.default_rng(0).normal(size=(1, 4, 8, 16)).astype(np.float16)}
    asked = {"input": {"hw": [32, 64]}, "dtype": "float16"}
    path = write_store(folder / "work", folder / "one.zarr", features, [7], asked=asked, cache=cache_params())
    params = DatasetParams.parse({**DATASET, **(dataset or {})}, "dataset")
    return RoiDataset(Index(folder, (32, 64), "stretch"), FeatureStore(path), params, ["layer_3"], (8, 16))
