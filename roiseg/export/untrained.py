"""Heads as ONNX files away from the DAG: with fresh weights before anything is extracted or trained, or of any checkpoint.

A deployment is tried out in good time that way: the files have the interface, the size and the speed of the trained ones. All that
it needs is the cut detector (`dvc repro backbone`).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from roiseg.cache.params import asked_fields
from roiseg.cache.scales import load_scales
from roiseg.cut_graph import CutGraph
from roiseg.errors import CheckpointError, GraphError, ParamsError, StoreError, UnwritableError
from roiseg.evaluate.checkpoints import Asked, own_values
from roiseg.export.files import Source, write_files
from roiseg.export.metadata import Learnt, head_metadata
from roiseg.export.params import ExportParams
from roiseg.export.parity import Parity, RealRois
from roiseg.extractor.graph import load_graph, read_metadata
from roiseg.files import new_folder
from roiseg.heads import build_head
from roiseg.onnx_names import METADATA_FILE
from roiseg.params import load_params, load_section
from roiseg.train.checkpoint import BEST, Checkpoint, differing, load_checkpoint
from roiseg.train.train import TrainSections
from roiseg.trained import FEATURES, INDEX, HeadSections, checkpoint_file, with_weights
from roiseg.types import IMAGE, INT8_MAX, FeatureSpec

BACKBONE, SCALES = Path("data/backbone.onnx"), Path("data/scales.npz")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deployed:
    """What `deploy` wrote.

    Attributes:
        folder: as stage `export` fills it, but for the variants of the head.
        learnt: where the weights come from.
        parity: of the head's file with torch.
        real_images: how many images it was compared on, besides random input.
    """

    folder: Path
    learnt: Learnt
    parity: Parity
    real_images: int

    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        weights = f"weights after epoch {self.learnt.epoch}" if self.learnt.epoch else "fresh weights"
        on = f"random input and {self.real_images} validation images" if self.real_images else "random input"
        return [
            f"{self.folder}: {', '.join(sorted(path.name for path in self.folder.iterdir()))} ({weights})",
            f"  largest difference from torch {self.parity.max_abs:.1e}, on {on}",
        ]


@dataclass(frozen=True)
class _Head:
    head: nn.Module
    sections: HeadSections
    learnt: Learnt


def deploy(head: str | None, checkpoint: Path | None, out: Path) -> Deployed:
    """Export a head into a folder of its own.

    Args:
        head: entry of `heads` in params.yaml; None: `default`.
        checkpoint: file, or folder of a head, whose `best_model.pth` is meant: its weights and the params that it holds; None:
            fresh weights, those that training would begin with.
        out: folder, which is replaced where an export made it.

    Raises:
        GraphError: there is no cut detector, or it lacks what the head reads.
        CheckpointError: see `load_checkpoint`, `own_values` and `with_weights`.
        ParamsError: a fault in the params, both a head and a checkpoint, or the detector's boxes are asked for and it has none.
        ParityError: the file disagrees with torch; nothing is written then.
        UnwritableError: `out` holds something else.
    """
    if head is not None and checkpoint is not None:
        raise ParamsError(f"--head is {head!r} and --checkpoint {checkpoint}, which brings its own; expected at most one of them")
    values = load_params(head or "default")
    _check_replaceable(out)
    if not BACKBONE.is_file():
        raise GraphError(f"{BACKBONE}: isn't there, expected the cut detector; run `dvc repro backbone`, or `dvc pull {BACKBONE}`")
    graph = load_graph(BACKBONE)
    info = read_metadata(graph, BACKBONE)
    chosen = _fresh(values, info) if checkpoint is None else _trained(values, checkpoint, info)
    sections, params = chosen.sections, load_section(ExportParams, "export", values)
    params.check_detections(sections.extractor.detections)
    named = layer_specs(info, sections)
    specs = [named[name] for name in sections.model.layers]
    scales = _scales(info, trained=checkpoint is not None)
    images = {IMAGE: np.full(3, 1 / 255, dtype=np.float32)}
    metadata = head_metadata(sections, specs, scales | images, chosen.learnt, BACKBONE)
    real = _real_rois(sections, specs, params.images)
    source = Source(chosen.head, specs, info.input_hw, metadata, graph, scales)
    with new_folder(out) as folder:
        written = write_files(source, params, real, folder)
    return Deployed(out, chosen.learnt, written.parity, len(real.rows) if real else 0)


def layer_specs(info: CutGraph, sections: HeadSections) -> dict[str, FeatureSpec]:
    """What a head may read, from what the cut detector says of itself.

    Args:
        info: of the cut detector.
        sections: of the head.

    Raises:
        GraphError: the detector was cut by other params, or lacks a layer of the head.
    """
    extractor = sections.extractor
    asked = {"input_hw": extractor.input_hw, "dtype": sections.cache.dtype, "layers": dict(extractor.layers)}
    cut = {"input_hw": info.input_hw, "dtype": info.dtype, "layers": {layer.name: layer.tensor for layer in info.layers}}
    wrong = [f"{key} {cut[key]} there, {asked[key]} in params.yaml" for key in asked if cut[key] != asked[key]]
    if wrong:
        raise GraphError(f"{BACKBONE}: was cut by other params ({'; '.join(wrong)}); run `dvc repro backbone`")
    strides = {layer.name: (info.input_hw[0] / layer.hw[0], info.input_hw[1] / layer.hw[1]) for layer in info.layers}
    specs = {layer.name: FeatureSpec(layer.name, layer.channels, strides[layer.name]) for layer in info.layers}
    specs[IMAGE] = FeatureSpec(IMAGE, 3, (1.0, 1.0))
    lacking = [name for name in sections.model.layers if name not in specs]
    if lacking:
        raise GraphError(
            f"{BACKBONE}: lacks {', '.join(lacking)}, which model.layers names, and has {', '.join(specs)}; add it to "
            "extractor.layers and run `dvc repro backbone`"
        )
    return specs


def _fresh(values: Mapping[str, Any], info: CutGraph) -> _Head:
    """The head as `untrained_model.pth` holds it: the model that a run ends with, in the weights of `train.seed`."""
    _, sections = TrainSections.load(values).phases()[-1]
    specs = layer_specs(info, sections.head)
    with torch.random.fork_rng([]):
        torch.manual_seed(sections.train.seed)
        head = build_head(sections.head.model, specs).eval()
    return _Head(head, sections.head, Learnt.nothing(sections.described()))


def _trained(values: Mapping[str, Any], path: Path, info: CutGraph) -> _Head:
    place = path / BEST if path.is_dir() else path
    file = checkpoint_file(place.parent, place.name)
    checkpoint = load_checkpoint(file)
    asked = Asked(values, (), "val", "all", torch.device("cpu"), Path(), pictures=False)
    sections = HeadSections.load(own_values(file, checkpoint, asked))
    _check_features(file, checkpoint, sections)
    head = with_weights(checkpoint, file, sections.model, layer_specs(info, sections))
    return _Head(head, sections, Learnt.of(checkpoint, file))


def _check_features(file: Path, checkpoint: Checkpoint, sections: HeadSections) -> None:
    """See that params.yaml names the features that a head learnt on: they are what the backbone beside it will give.

    Raises:
        CheckpointError: each field that differs, with both values.
    """
    names = sections.model.layers
    then, now = (
        {"layers": {name: fields["layers"].get(name) for name in names}, "input": fields["input"], "dtype": fields["dtype"]}
        for fields in (checkpoint.fingerprint, asked_fields(sections.extractor, sections.cache))
    )
    lines = differing(then, now)
    if lines:
        raise CheckpointError(
            f"{file}: was trained on other features than params.yaml names (then -> now); take the params that it was trained with "
            "and `dvc repro backbone`:\n  " + "\n  ".join(lines)
        )


def _scales(info: CutGraph, *, trained: bool) -> dict[str, NDArray[np.float32]]:
    """Int8 scales as `calibrate` wrote them; before it has, those that hold any value up to 1, which is enough for fresh weights.

    Raises:
        GraphError: they aren't there, and weights have learnt on them.
    """
    if info.dtype != "int8":
        return {}
    if SCALES.is_file():
        return load_scales(SCALES)
    if trained:
        raise GraphError(f"{SCALES}: isn't there, expected the scales that the head learnt on; run `dvc repro calibrate`")
    logger.warning("%s: isn't there yet; the backbone's layers are clipped to [-1, 1], run `dvc repro calibrate`", SCALES)
    return {layer.name: np.full(layer.channels, 1 / INT8_MAX, dtype=np.float32) for layer in info.layers}


def _real_rois(sections: HeadSections, specs: list[FeatureSpec], images: int) -> RealRois | None:
    """Cached features of validation images; None where there are none that the head can read."""
    if not ((FEATURES / "val.zarr").is_dir() and (INDEX / "val").is_dir()):
        return None
    try:
        val = sections.open_split("val")
    except StoreError as error:
        logger.warning("compared on random input alone: %s", error)
        return None
    return RealRois.spread(val, images, sections.reader) if specs == [val.store.specs[name] for name in val.layers] else None


def _check_replaceable(out: Path) -> None:
    if out.exists() and not (out.is_dir() and ((out / METADATA_FILE).is_file() or not any(out.iterdir()))):
        raise UnwritableError(f"{out}: holds what no export wrote, expected a new folder or one of an export; give another --out")
