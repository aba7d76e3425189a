"""Small models that snap boxes, boxes to learn from, and folders in which their stages run."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from data_factory import Json
from net_factory import stored_sections
from store_factory import Project, shared_views
from torch import Tensor, nn

from roiseg.cache.reader import FeatureStore
from roiseg.files import write_parquet
from roiseg.geometry import Floats
from roiseg.index import Index
from roiseg.objects import COLUMNS, Objects
from roiseg.params import overlay
from roiseg.snapper.build import build_snapper
from roiseg.snapper.checks import snapper_layers
from roiseg.snapper.data import SnapDataset
from roiseg.snapper.params import SnapDataParams, SnapLossParams, SnapModelParams, SnapperParams
from roiseg.snapper.train import train_snapper
from roiseg.types import IMAGE, FeatureSpec

NETWORK_HW = (64, 96)
"""Size of the network input of `store_factory`."""

SPECS: Mapping[str, FeatureSpec] = {
    "layer_34": FeatureSpec("layer_34", 6, (8, 8)),
    "layer_3": FeatureSpec("layer_3", 4, (4, 4)),
    IMAGE: FeatureSpec(IMAGE, 3, (1, 1)),
}
"""What the stores of `store_factory` hold, where images are stored."""

DATA: Mapping[str, Any] = {
    "min_box_px": 8.0,
    "boxes_per_image": 3,
    "buffer": [1.3, 1.4],
    "jitter": {"centre": 0.1, "scale": 0.1, "ratios": "own"},
    "extreme": {"policy": "keep", "min_iou": 0.5, "weight": 0.25},
    "val_seed": 0,
    "views": None,
}

CACHED: Mapping[str, Any] = {
    "kind": "cached",
    "layers": ["layer_34", "layer_3"],
    "positions": 24,
    "roi_hw": [10, 12],
    "sampling_ratio": 2,
    "layer_channels": 4,
    "mid_channels": 8,
    "convolutions": 1,
    "decoder_channels": [8],
    "groups": 2,
    "prior": "rough",
    "dropout": 0.0,
}

CROP: Mapping[str, Any] = {
    "kind": "crop",
    "backbone": "resnet18",
    "weights": "none",
    "crop_px": 64,
    "positions": 64,
    "sampling_ratio": 1,
    "scales": "single",
    "stride": 8,
    "upsample": "linear",
    "decoder_channels": [8],
    "prior": "none",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}

TRAIN: Mapping[str, Any] = {
    "epochs": 3,
    "images_per_batch": 2,
    "lr": 0.01,
    "average_decay": 0.5,
    "clip_norm": 5.0,
    "device": "cpu",
}

SNAPPER: Mapping[str, Any] = {
    "data": DATA,
    "model": CACHED,
    "loss": {"form": "softmax", "target": "gaussian", "sigma": 0.03, "giou": 0.0},
    "decision": {"rule": "expectation", "reach": 0.1},
    "confidence": {"tolerance": 0.05, "review_below": 0.5, "keep_below": 0.2},
    "train": TRAIN,
    "export": {"checkpoint": "best_model.pth", "opset": 18, "tolerance": 1e-3, "images": 3, "variants": []},
}


def snapper_section(**changes: Any) -> SnapperParams:  # noqa: ANN401 - values of a section
    """Section `snapper`, with changes laid over `SNAPPER`."""
    return SnapperParams.parse(overlay(SNAPPER, changes), "snapper")


def crop_section(**model: object) -> SnapperParams:
    """Section `snapper` with a crop model; `model` replaces its values."""
    return snapper_section(model={"_replace": True, **CROP, **model})


def snap_data(**changes: Any) -> SnapDataParams:  # noqa: ANN401 - values of a section
    """Sub-section `snapper.data`, with changes laid over `DATA`."""
    return snapper_section(data=changes).data


def snap_loss(**changes: Any) -> SnapLossParams:  # noqa: ANN401 - values of a section
    """Sub-section `snapper.loss`, with changes."""
    return snapper_section(loss=changes).loss


def fresh_snapper(model: SnapModelParams, seed: int = 0) -> nn.Module:
    """A model of fresh weights for the stores of `store_factory`."""
    torch.manual_seed(seed)
    return build_snapper(model, SPECS, NETWORK_HW)


def snap_inputs(model: SnapModelParams, images: int = 2, boxes: int = 3, seed: int = 1) -> tuple[dict[str, Tensor], Tensor]:
    """Random features, and windows (boxes, 5) all over the images."""
    rng = torch.Generator().manual_seed(seed)
    features = {}
    for name in snapper_layers(model):
        height, width = (round(size / stride) for size, stride in zip(NETWORK_HW, SPECS[name].stride_hw, strict=True))
        features[name] = torch.rand(images, SPECS[name].channels, height, width, generator=rng)
    low, size = torch.rand(boxes, 2, generator=rng) * 0.4, 0.2 + torch.rand(boxes, 2, generator=rng) * 0.4
    number = torch.arange(boxes)[:, None] % images
    return features, torch.cat([number.float(), low, low + size], dim=1)


def objects_table(boxes: Mapping[int, Sequence[Sequence[float]]], first_id: int = 100) -> pd.DataFrame:
    """A table of objects by hand: row -> its boxes xyxy, image frame; ids count up from `first_id`."""
    found = [(row, row, category, *box) for row in sorted(boxes) for category, box in enumerate(boxes[row], start=1)]
    lines = [(row, image, first_id + place, *rest) for place, (row, image, *rest) in enumerate(found)]
    table = pd.DataFrame(lines, columns=list(COLUMNS)).astype(dict.fromkeys(COLUMNS[:4], np.int64))
    return table.astype(dict.fromkeys(COLUMNS[4:], np.float64))


def people_as_objects(index: Index) -> pd.DataFrame:
    """Everybody in an index as a table of objects of one category."""
    lines: list[tuple[float, ...]] = []
    for row in range(len(index)):
        people = index.people(row)
        boxes = index.resize(row).boxes_to_image(people.boxes)
        lines += [
            (row, people.image_id, number, 1, *box.tolist()) for number, box in zip(people.annotation_ids, boxes, strict=True)
        ]
    table = pd.DataFrame(lines, columns=list(COLUMNS)).astype(dict.fromkeys(COLUMNS[:4], np.int64))
    return table.sort_values(["row", "annotation_id"], ignore_index=True)


def link_snapper(root: Path, project: Project) -> None:
    """What the stages of this track read, in a folder: links to index and features, and tables of objects."""
    (root / "data" / "objects").mkdir(parents=True)
    (root / "data" / "index").symlink_to(project.index)
    (root / "data" / "features").symlink_to(project.features)
    for split in ("train", "val"):
        table = people_as_objects(Index(project.index / split, NETWORK_HW, "stretch"))
        write_parquet(root / "data" / "objects" / f"{split}.parquet", table)


def snap_dataset(root: Path, params: SnapperParams, split: str = "train") -> SnapDataset:
    """A split of a folder of `link_snapper`."""
    index = Index(root / "data/index" / split, NETWORK_HW, "stretch")
    objects = Objects(root / "data/objects" / f"{split}.parquet", params.data.min_box_px)
    store = FeatureStore(root / "data/features" / f"{split}.zarr")
    return SnapDataset(index, objects, store, snapper_layers(params.model), params.data)


def shared_snapper(folders: pytest.TempPathFactory, kind: str = "cached") -> Path:
    """A folder in which a small model has been trained: `data/`, `models/snapper`, `metrics/train/snapper`.

    Args:
        folders: of the tests.
        kind: `cached` or `crop`.
    """
    return _trained_in(folders.getbasetemp() / f"snapper_{kind}", shared_views(folders).root, kind)


def shared_section(kind: str = "cached") -> SnapperParams:
    """The section that `shared_snapper` was trained by."""
    if kind == "cached":
        return snapper_section()
    return crop_section().model_copy(update={"train": {**TRAIN, "epochs": 1}})


@functools.cache
def _trained_in(root: Path, project: Path, kind: str) -> Path:
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        link_snapper(root, Project(project, "int8", {}))
        train_snapper(shared_section(kind), stored_sections())
    return root


def coco_objects(image_id: int, boxes: Floats, first_id: int = 1) -> list[Json]:
    """COCO annotations of boxes (R, 4) xyxy, each of a category of its own."""
    return [
        {
            "id": first_id + place,
            "image_id": image_id,
            "category_id": place + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            "iscrowd": 0,
        }
        for place, (x0, y0, x1, y1) in enumerate(boxes.tolist())
    ]
