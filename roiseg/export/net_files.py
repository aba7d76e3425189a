"""The files of a people net: ONNX, smaller copies, and the cut graph that the teacher's store is made by; checked and timed."""

import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from roiseg.batches import spread
from roiseg.errors import GraphError
from roiseg.export.metadata import Learnt
from roiseg.export.net_onnx import NET_FILE, as_backbone, export_net, net_metadata
from roiseg.export.onnx_net import OnnxNet, net_parity, net_variants
from roiseg.export.params import Variant
from roiseg.files import new_folder, write_bytes, write_json
from roiseg.network_input import Pixels
from roiseg.onnx_names import BACKBONE_FILE, METADATA_KEY
from roiseg.stored import StoredSections
from roiseg.train.checkpoint import BEST, load_checkpoint
from roiseg.types import IMAGE, TEACHER
from roiseg.unet.data import PersonDataset
from roiseg.unet.metrics import LEAD, PersonMetrics
from roiseg.unet.params import NetExportParams
from roiseg.unet.person_unet import PersonUnet
from roiseg.unet.person_unet_params import UnetModelParams
from roiseg.unet.train import open_people

IMAGES_PER_BATCH = 2
PASSES = 5
"""Timed passes of each net, in turn."""


@dataclass(frozen=True)
class NetPaths:
    """Where a net's files lie.

    Attributes:
        models: its folder of checkpoints.
        out: out, folder of ONNX files.
        figures: out, flat JSON.
        times: JSON with what differs from run to run, and so no out.
        teacher: folder of ONNX files of the net that it learnt from; None for one that has no teacher.
    """

    models: Path
    out: Path
    figures: Path
    times: Path
    teacher: Path | None = None


def images_of(dataset: PersonDataset, rows: Sequence[int]) -> Iterator[Pixels]:
    """Batches (N, 3, H, W) uint8 RGB of cached images, one at a time in memory."""
    for start in range(0, len(rows), IMAGES_PER_BATCH):
        part = rows[start : start + IMAGES_PER_BATCH]
        yield np.stack([dataset.store.read(row, [IMAGE])[IMAGE] for row in part])


def export_net_files(
    net: PersonUnet, model: UnetModelParams, params: NetExportParams, stored: StoredSections, paths: NetPaths
) -> dict[str, float]:
    """Write a net's files into a folder, the figures of net and files, and their times.

    Args:
        net: the best one, in eval mode, on the CPU.
        model: what it is.
        params: sub-section `export`.
        stored: sections of the feature store.
        paths: where to.

    Returns:
        The figures: those of the best epoch, `parity_max_abs`, counts and sizes, and of each variant `{name}_bytes`,
        `{name}_size_ratio` and `{name}_miou_2class_loss` on the images compared.

    Raises:
        ParityError: a file disagrees with torch; nothing is written then.
        GraphError: a graph that can't be made, or the file of the net that it learnt from isn't there.
    """
    if paths.teacher is not None and not (paths.teacher / NET_FILE).is_file():
        raise GraphError(f"{paths.teacher / NET_FILE}: no such file, to hold the net against; run `dvc repro unet`, or `dvc pull`")
    file = paths.models / BEST
    checkpoint = load_checkpoint(file)
    train, val = (open_people(stored, split, [IMAGE], model) for split in ("train", "val"))
    rows = spread(val.rows.tolist(), params.images)
    metadata = net_metadata(model, stored.extractor.input_rule(), Learnt.of(checkpoint, file)) | {"parameters": parameters(net)}
    with new_folder(paths.out) as folder:
        path = folder / NET_FILE
        written = export_net(net, params.opset, metadata, path)
        parity = net_parity(net, path, images_of(val, rows), params.tolerance)
        calibration = images_of(train, spread(train.rows.tolist(), params.images))
        variants = net_variants(path, params.variants, calibration)
        if paths.teacher is None:
            backbone = as_backbone(written.model, TEACHER, stored.extractor)
            write_bytes(folder / BACKBONE_FILE, backbone.SerializeToString(deterministic=True))
        figures: dict[str, float] = {
            **{name: round(value, 6) for name, value in checkpoint.metrics.items()},
            "parity_max_abs": float(f"{parity.max_abs:.3g}"),
            "parameters": parameters(net),
            "gflops_per_image": round(gflops(net), 6),
            "checkpoint_bytes": file.stat().st_size,
            "onnx_bytes": path.stat().st_size,
            "onnx_nodes": len(written.model.graph.node),
            **_variant_figures(path, variants, val, rows),
        }
        if paths.teacher is not None:
            figures["size_ratio"] = round(parameters(net) / _said_parameters(paths.teacher / NET_FILE), 6)
        files = {"onnx": path} | {str(name): file for name, file in variants.items()}
        if paths.teacher is not None:
            files["teacher_onnx"] = paths.teacher / NET_FILE
        times = milliseconds(net, files)
    write_json(paths.figures, figures)
    write_json(paths.times, times)
    return figures


def parameters(net: nn.Module) -> int:
    """Numbers that are learnt or could be."""
    return sum(item.numel() for item in net.parameters())


def _said_parameters(path: Path) -> int:
    """`parameters` of a net's file."""
    properties = {item.key: item.value for item in onnx.load(path).metadata_props}
    return int(json.loads(properties[METADATA_KEY])["parameters"])


@torch.no_grad()
def gflops(net: PersonUnet) -> float:
    """1e9 operations of one image."""
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, *net.image_hw))
    return float(counter.get_total_flops() / 1e9)


@torch.no_grad()
def _variant_figures(path: Path, variants: Mapping[Variant, Path], val: PersonDataset, rows: Sequence[int]) -> dict[str, float]:
    """What smaller files weigh, and what they cost in accuracy."""
    whole = _score(OnnxNet(path), val, rows) if variants else 0.0
    found: dict[str, float] = {}
    for name, file in variants.items():
        found |= {
            f"{name}_bytes": file.stat().st_size,
            f"{name}_size_ratio": round(file.stat().st_size / path.stat().st_size, 6),
            f"{name}_{LEAD}_loss": round(whole - _score(OnnxNet(file), val, rows), 6),
        }
    return found


def _score(net: nn.Module, val: PersonDataset, rows: Sequence[int]) -> float:
    metrics = PersonMetrics()
    for number, pixels in zip(rows, (images for row in rows for images in images_of(val, [row])), strict=True):
        mask = torch.from_numpy(val.sample(number).mask.astype(np.float32))[None, None]
        metrics.add(net(torch.from_numpy(pixels.astype(np.float32)) / 255), mask)
    return metrics.figures()[LEAD]


@torch.no_grad()
def milliseconds(net: PersonUnet, files: dict[str, Path]) -> dict[str, float]:
    """Median time of an image, of torch and of each file, side by side; and the teacher's over the net's where there is one.

    Args:
        net: in eval mode.
        files: name -> ONNX.
    """
    nets: dict[str, nn.Module] = {"torch": net, **{name: OnnxNet(path) for name, path in files.items()}}
    image, taken = torch.rand(1, 3, *net.image_hw), {name: list[float]() for name in nets}
    for turn in range(PASSES + 1):
        for name, each in nets.items():
            began = time.perf_counter()
            each(image)
            if turn:
                taken[name].append(1000 * (time.perf_counter() - began))
    found = {f"ms_{name}": round(statistics.median(times), 3) for name, times in taken.items()}
    if "teacher_onnx" in files:
        found["speed_ratio"] = round(found["ms_teacher_onnx"] / found["ms_onnx"], 3)
    return found
