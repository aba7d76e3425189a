"""A trained head with the data it belongs to, as `train`, `evaluate` and `export` open them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from roiseg.cache.joined import JoinedStore
from roiseg.cache.layout import check_match
from roiseg.cache.params import CacheParams, ReaderParams, asked_fields
from roiseg.cache.reader import FeatureStore
from roiseg.cache.source import FeatureSource
from roiseg.dataset import DatasetParams, RoiDataset
from roiseg.errors import CheckpointError, StoreError
from roiseg.extractor.params import ExtractorParams
from roiseg.heads import build_head, parse_model
from roiseg.heads.base import HeadParams
from roiseg.index import Index
from roiseg.params import load_section, nearest
from roiseg.train.checkpoint import SHOWN, Checkpoint, differing, load_checkpoint
from roiseg.types import TEACHER, FeatureSpec

INDEX, FEATURES, HEADS = Path("data/index"), Path("data/features"), Path("models/heads")


def open_tables(
    extractor: ExtractorParams,
    cache: CacheParams,
    reader: ReaderParams,
    split: str,
    *,
    index: Path = INDEX,
    features: Path = FEATURES,
    teacher: bool = False,
) -> tuple[Index, FeatureSource]:
    """Index and store of a split, the store checked against the params.

    Args:
        extractor: section of that name.
        cache: section of that name.
        reader: section of that name.
        split: `train` or `val`.
        index: folder of the tables.
        features: folder of the stores; `teacher`, beside it, has those of the U-net.
        teacher: whether the U-net's map is read too, as layer `teacher`.

    Raises:
        StoreError, StoreMismatchError, StoreDamagedError: see `FeatureStore`.
    """
    store = FeatureStore(features / f"{split}.zarr", checksums=reader.checksums)
    store.check(asked_fields(extractor, cache))
    table = Index(index / split, extractor.input_hw, extractor.resize)
    if not teacher:
        return table, store
    path = features.parent / TEACHER / store.path.name
    if not path.is_dir():
        raise StoreError(f"{path}: there is no store of the U-net's map; run `dvc repro teacher`, or `dvc pull`")
    maps = FeatureStore(path, checksums=reader.checksums)
    same = ("input", "images")
    check_match(str(path), {name: maps.asked[name] for name in same}, {name: store.asked[name] for name in same})
    return table, JoinedStore(store, maps)


@dataclass(frozen=True)
class HeadSections:
    """The sections that say what a head reads and what it is."""

    extractor: ExtractorParams
    cache: CacheParams
    dataset: DatasetParams
    model: HeadParams
    reader: ReaderParams

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> "HeadSections":
        """From the whole params, a head's preset laid over them.

        Raises:
            ParamsError: any fault.
        """
        return cls(
            load_section(ExtractorParams, "extractor", values),
            load_section(CacheParams, "cache", values),
            load_section(DatasetParams, "dataset", values),
            parse_model(values.get("model") or {}),
            load_section(ReaderParams, "reader", values),
        )

    def open_split(self, split: str, index: Path = INDEX, features: Path = FEATURES) -> RoiDataset:
        """Index and store of a split, checked against each other and the params; with the teacher's map where the head reads it.

        Raises:
            StoreError, StoreMismatchError, StoreDamagedError: see `FeatureStore`.
        """
        table, store = open_tables(
            self.extractor, self.cache, self.reader, split, index=index, features=features, teacher=TEACHER in self.model.layers
        )
        return RoiDataset(table, store, self.dataset, self.model.layers, self.model.mask_hw)


def load_head(path: Path, name: str, sections: HeadSections, dataset: RoiDataset) -> tuple[nn.Module, Checkpoint]:
    """A trained head in eval mode, and its checkpoint.

    Args:
        path: folder of the head, such as `models/heads/default`.
        name: of the checkpoint in it, such as `best_model.pth`.
        sections: params of today.
        dataset: what it will be run on.

    Raises:
        CheckpointError: it isn't there, or was trained with another model section than today's.
    """
    file = checkpoint_file(path, name)
    checkpoint = load_checkpoint(file)
    now = json.loads(sections.model.model_dump_json())
    if checkpoint.params["model"] != now:
        keys = [key for key in now if checkpoint.params["model"].get(key) != now[key]]
        raise CheckpointError(f"{file}: was trained with another model ({', '.join(keys)} differ); train it again (`dvc repro`)")
    return with_weights(checkpoint, file, sections.model, dataset.store.specs), checkpoint


def checkpoint_file(folder: Path, name: str) -> Path:
    """A checkpoint in the folder of a head.

    Args:
        folder: such as `models/heads/default`.
        name: such as `best_model.pth`.

    Raises:
        CheckpointError: the folder is there and it isn't; names what is near.
    """
    if folder.is_dir() and not (folder / name).is_file():
        there = sorted(item.relative_to(folder).as_posix() for item in folder.rglob("*.pth"))
        raise CheckpointError(f"{folder / name}: no such checkpoint; {nearest(name, there)}")
    return folder / name


def with_weights(checkpoint: Checkpoint, file: Path, model: HeadParams, specs: Mapping[str, FeatureSpec]) -> nn.Module:
    """A head with the weights of a checkpoint, in eval mode, on the CPU.

    Args:
        checkpoint: whose averaged weights are taken.
        file: that it was read from, for messages.
        model: section `model`.
        specs: what the store holds.

    Raises:
        CheckpointError: the weights belong to a head of other parts or sizes.
    """
    head = build_head(model, specs)
    load_weights(head, checkpoint.model, file, "take the section `model` that it was trained with")
    return head.eval()


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], file: Path, remedy: str) -> None:
    """Give a module the weights of a checkpoint.

    Args:
        module: gets them.
        weights: by name.
        file: that they were read from, for messages.
        remedy: for messages.

    Raises:
        CheckpointError: they belong to a module of other parts or sizes.
    """
    then, now = ({name: list(item.shape) for name, item in items.items()} for items in (weights, module.state_dict()))
    lines = differing(then, now)
    if lines:
        more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        raise CheckpointError(
            f"{file}: its weights don't fit the model (shapes, checkpoint -> model):\n  "
            + "\n  ".join(lines[:SHOWN])
            + f"{more}\n{remedy}"
        )
    module.load_state_dict(dict(weights))
