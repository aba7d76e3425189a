"""What stage `export` makes of a random head of the tiny project, for tests that read its files."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from head_factory import fresh_head
from store_factory import MODEL, Project, make_checkpoint, project_in
from torch import Tensor, nn

from roiseg.batches import dequantise, single_batch
from roiseg.dataset import RoiDataset
from roiseg.export.export import ExportInputs, ExportPaths, export
from roiseg.export.params import ExportParams
from roiseg.heads import parse_model
from roiseg.train.checkpoint import BEST, Checkpoint, save_checkpoint


@dataclass(frozen=True)
class Exported:
    """What the `export` stage made of a random head.

    Attributes:
        project: the project it belongs to.
        inputs: what was exported.
        folder: what it wrote.
        figures: flat JSON.
        times: JSON of the log.
    """

    project: Project
    inputs: ExportInputs
    folder: Path
    figures: Path
    times: Path


def export_params(**changes: object) -> ExportParams:
    """Section `export` without what takes time; `changes` replace its values."""
    values: dict[str, object] = {
        "checkpoint": BEST,
        "opset": 18,
        "tolerance": 1e-3,
        "images": 4,
        "include_aux": False,
        "simplify": True,
        "variants": [],
        "calibration_images": 2,
        "end_to_end": [],
        "preprocess": True,
        "filter": None,
    }
    return ExportParams.parse(values | changes, "export")


def export_inputs(project: Project, head: nn.Module, checkpoint: Checkpoint, file: Path, model: Mapping[str, Any]) -> ExportInputs:
    """A head of a project, ready to be exported."""
    return ExportInputs(
        head=head,
        checkpoint=checkpoint,
        file=file,
        sections=project.sections(model),
        train=project.open("train", model),
        val=project.open("val", model),
        pictures=project.index / "val/pictures",
        backbone=project.backbone,
        scales=project.scales,
    )


def run_export(project: Project, folder: Path, model: Mapping[str, Any] = MODEL, **changes: object) -> Exported:
    """Export a random head into `folder`; `changes` are those of `export_params`."""
    val = project.open("val", model)
    params = parse_model(model)
    head = fresh_head(params, val.store.specs)
    _balance(head, val)
    checkpoint, file = make_checkpoint(head, val, params), folder / BEST
    save_checkpoint(file, checkpoint)
    inputs = export_inputs(project, head, checkpoint, file, model)
    exported = Exported(project, inputs, folder / "head", folder / "export.json", folder / "times.json")
    export(inputs, export_params(**changes), ExportPaths(exported.folder, exported.figures, exported.times))
    return exported


def real_cases(val: RoiDataset, count: int) -> list[tuple[Tensor, ...]]:
    """Cached features and annotated boxes of the first images."""
    scales = {name: torch.from_numpy(values) for name, values in val.store.scales.items()}
    cases = []
    for row in val.rows[:count].tolist():
        batch = single_batch(val, row)
        features = dequantise(batch.features, scales, torch.device("cpu"))
        cases.append((*(features[name] for name in val.layers), batch.boxes))
    return cases


@torch.no_grad()
def _balance(head: nn.Module, val: RoiDataset) -> None:
    """Shift and scale the last layer so that each class wins somewhere: a mask that is always empty shows nothing."""
    cases = [(dict(zip(val.layers, case, strict=False)), case[-1]) for case in real_cases(val, len(val.rows))]
    logits = torch.cat([head(features, boxes).mask_logits for features, boxes in cases])
    classes = [module for module in head.modules() if isinstance(module, nn.Conv2d) and module.out_channels == logits.shape[1]]
    last = classes[-1]
    scale = 2 / logits.std(dim=(0, 2, 3))
    last.weight.mul_(scale.view(-1, 1, 1, 1))
    if last.bias is not None:
        last.bias.sub_(logits.mean(dim=(0, 2, 3))).mul_(scale)


def shared_export(folders: pytest.TempPathFactory) -> Exported:
    """One export for all tests that only read it: an export takes seconds."""
    return _export_in(folders.getbasetemp())


@functools.cache
def _export_in(base: Path) -> Exported:
    return run_export(project_in(base, "float16"), base / "export")
