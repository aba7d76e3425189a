"""The `export` stage: a folder with all that prediction needs, and the proof that it agrees with what was trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from roiseg.dataset import RoiDataset
from roiseg.evaluate.complexity import counted_figures, examples
from roiseg.evaluate.pictures import load_fixed
from roiseg.export.end_to_end_parity import end_to_end_parity
from roiseg.export.files import Source, write_files
from roiseg.export.half import make_half
from roiseg.export.metadata import Learnt, head_metadata
from roiseg.export.params import ExportParams
from roiseg.export.parity import RealRois
from roiseg.export.quantize import calibration_feeds, calibration_rows, make_int8
from roiseg.export.timing import measure
from roiseg.export.variants import variant_figures
from roiseg.extractor.graph import load_graph
from roiseg.files import new_folder, write_json
from roiseg.network_input import InputRule
from roiseg.onnx_names import END_TO_END_FILES, FILTER_FILE, HEAD_FILE, VARIANT_FILES
from roiseg.predict import Predictor
from roiseg.train.checkpoint import Checkpoint
from roiseg.trained import HeadSections

CALIBRATION_SEED = 0
"""Of the draw of images to calibrate on."""


@dataclass(frozen=True)
class ExportInputs:
    """What is exported.

    Attributes:
        head: trained, in eval mode, on the CPU.
        checkpoint: where its weights came from.
        file: that it was read from.
        sections: of the head.
        train: training split, to calibrate on.
        val: validation split, to compare on.
        pictures: folder of some validation images, for the files that begin with an image.
        backbone: the cut ONNX.
        scales: of int8 layers.
    """

    head: nn.Module
    checkpoint: Checkpoint
    file: Path
    sections: HeadSections
    train: RoiDataset
    val: RoiDataset
    pictures: Path
    backbone: Path
    scales: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ExportPaths:
    """What the stage writes.

    Attributes:
        out: out, folder.
        figures: out, flat JSON.
        times: JSON with what differs from run to run, and so no out.
    """

    out: Path
    figures: Path
    times: Path


def export(inputs: ExportInputs, params: ExportParams, paths: ExportPaths) -> dict[str, float]:
    """Write the files of a head into a folder, the figures of their check and cost, and their times.

    Args:
        inputs: head, checkpoint, data.
        params: section `export`.
        paths: where to.

    Returns:
        The figures, before they are rounded.

    Raises:
        ParityError: a file disagrees with torch, or with the files that it is made of; nothing is written then.
        GraphError: a graph that can't be made.
        ParamsError: the detector's boxes are asked for, and it has none.
    """
    params.check_detections(inputs.sections.extractor.detections)
    specs = [inputs.val.store.specs[name] for name in inputs.val.layers]
    learnt = Learnt.of(inputs.checkpoint, inputs.file)
    metadata = head_metadata(inputs.sections, specs, inputs.val.store.scales, learnt, inputs.backbone)
    input_hw = inputs.sections.extractor.input_hw
    source = Source(inputs.head, specs, input_hw, metadata, load_graph(inputs.backbone), inputs.scales)
    real = RealRois.spread(inputs.val, params.images, inputs.sections.reader)
    with new_folder(paths.out) as folder:
        written = write_files(source, params, real, folder)
        figures: dict[str, float] = {
            "parity_max_abs": written.parity.max_abs,
            "parity_miou_difference": written.parity.miou_difference,
            **counted_figures(inputs.head, specs, input_hw),
            "checkpoint_bytes": inputs.file.stat().st_size,
            "onnx_bytes": (folder / HEAD_FILE).stat().st_size,
            "onnx_nodes": len(written.head.model.graph.node),
            "onnx_nodes_before_simplification": written.head.traced_nodes,
            **_variants(inputs, params, real, folder),
            **_end_to_end(inputs, params, folder),
        }
    # Rounded up to three digits: the last bits of a float32 sum aren't a property of the head.
    write_json(paths.figures, figures | {"parity_max_abs": float(f"{written.parity.max_abs:.3g}")})
    variants: dict[str, Path] = {name: paths.out / VARIANT_FILES[name] for name in params.variants}
    write_json(paths.times, measure(inputs.head, specs, examples(specs, input_hw), paths.out / HEAD_FILE, variants))
    return figures


def _variants(inputs: ExportInputs, params: ExportParams, real: RealRois, folder: Path) -> dict[str, float]:
    """Write the smaller files; what they weigh and cost in accuracy."""
    head = folder / HEAD_FILE
    files: dict[str, Path] = {name: folder / VARIANT_FILES[name] for name in params.variants}
    if "fp16" in files:
        make_half(head, files["fp16"])
    if "int8" in files:
        rows = calibration_rows(inputs.train, params.calibration_images, CALIBRATION_SEED)
        make_int8(head, files["int8"], calibration_feeds(inputs.train, rows))
    return variant_figures(head, files, inputs.val, real.rows) if files else {}


def _end_to_end(inputs: ExportInputs, params: ExportParams, folder: Path) -> dict[str, float]:
    """Compare the files from images to masks with the single steps, on whole images with their annotated people."""
    fixed = load_fixed(inputs.pictures, inputs.val)
    if not params.end_to_end or not fixed:
        return {}
    filter_file = folder / FILTER_FILE if params.filter is not None else None
    steps = Predictor(folder, "cpu", filter_file=filter_file)
    rule = InputRule.from_plain(steps.metadata["input"])
    people = [inputs.val.index.people(picture.row) for picture in fixed]
    boxes = [inputs.val.index.resize(item.row).boxes_to_image(item.boxes[item.roi_numbers]) for item in people]
    pixels = [np.ascontiguousarray(picture.pixels) for picture in fixed]
    shares = [end_to_end_parity(folder / END_TO_END_FILES[name], steps, rule, pixels, boxes) for name in params.end_to_end]
    return {"end_to_end_differing_share": max(shares)}
