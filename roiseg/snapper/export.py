"""The `snapper_export` stage: a folder with all that snapping needs, and the proof that it agrees with what was trained."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from roiseg.cache.params import asked_fields
from roiseg.errors import CheckpointError
from roiseg.evaluate.complexity import counted_figures, examples
from roiseg.export.half import make_half
from roiseg.export.metadata import FRAMES, PREPROCESSING, Learnt
from roiseg.export.quantize import make_int8
from roiseg.export.timing import measure
from roiseg.extractor.graph import bake_scales, keep_layers, load_graph
from roiseg.files import new_folder, sha256_file, write_bytes, write_json
from roiseg.onnx_names import (
    BACKBONE_FILE,
    BOXES,
    CONFIDENCES,
    SNAPPER_FILE,
    SNAPPER_METADATA_FILE,
    SNAPPER_VARIANT_FILES,
    WINDOWS,
    feature_input,
)
from roiseg.snapper.calibration import Calibration
from roiseg.snapper.data import SnapDataset
from roiseg.snapper.onnx import OnnxSnapper, SnapInference, export_snapper, with_rough
from roiseg.snapper.params import SnapperParams
from roiseg.snapper.parity import RealBoxes, mean_iou, snap_parity
from roiseg.snapper.windows import EDGES
from roiseg.stored import StoredSections
from roiseg.train.checkpoint import Checkpoint
from roiseg.types import IMAGE, FeatureSpec

CONVENTION = {
    "windows": "float32 (R, 9): image number, x0, y0, x1, y1 of the window and of the rough box, in the unit frame; see window",
    "boxes": "float32 (R, 4): x0, y0, x1, y1 in the unit frame, inside their windows; left and right, top and bottom may cross",
    "confidences": (
        "float32 (R, 4) in [0, 1], in the order of edges: the probability that an edge lies within confidence.tolerance of the "
        "window's side from the truth"
    ),
    "features": "float32 (N, C, H, W) as backbone.onnx gives them, features_image RGB of 0 to 255 without one; both times scales",
}

WINDOW = (
    "the box clipped to the image, its width and height times buffer about its centre, clipped to the image again; then through "
    "input.resize to the unit frame"
)


@dataclass(frozen=True)
class SnapExportInputs:
    """What is exported.

    Attributes:
        module: trained, in eval mode, on the CPU.
        params: section `snapper`.
        checkpoint: where its weights came from.
        file: that it was read from.
        calibration: from peak and entropy to confidences.
        tolerance: that the calibration was fitted for.
        stored: sections of the store.
        train: training split, to calibrate INT8 on.
        val: validation split, to compare on.
        backbone: the cut ONNX.
        scales: layer -> (C,) of int8 layers.
    """

    module: nn.Module
    params: SnapperParams
    checkpoint: Checkpoint
    file: Path
    calibration: Calibration
    tolerance: float
    stored: StoredSections
    train: SnapDataset
    val: SnapDataset
    backbone: Path
    scales: Mapping[str, NDArray[np.float32]]

    @property
    def specs(self) -> list[FeatureSpec]:
        """The model's layers, in order."""
        return [self.val.store.specs[name] for name in self.val.layers]


@dataclass(frozen=True)
class SnapExportPaths:
    """What the stage writes.

    Attributes:
        out: out, folder.
        figures: out, flat JSON.
        times: JSON with what differs from run to run, and so no out.
    """

    out: Path
    figures: Path
    times: Path


def snapper_metadata(inputs: SnapExportInputs) -> dict[str, Any]:
    """What a Snapper's files say of it, but for what the graph says of itself."""
    params, learnt = inputs.params, Learnt.of(inputs.checkpoint, inputs.file)
    asked = asked_fields(inputs.stored.extractor, inputs.stored.cache)
    names, scales = [spec.name for spec in inputs.specs], inputs.val.store.scales
    return {
        "kind": params.model.kind,
        "edges": list(EDGES),
        "frames": FRAMES,
        "convention": CONVENTION,
        "window": WINDOW,
        "buffer": params.data.val_buffer,
        "min_box_px": params.data.min_box_px,
        "preprocessing": PREPROCESSING,
        "input": asked["input"],
        "layers": {spec.name: {"channels": spec.channels, "stride_hw": list(spec.stride_hw)} for spec in inputs.specs},
        "tensors": {name: asked["layers"][name] for name in names if name in asked["layers"]},
        "dtype": asked["dtype"],
        "scales": {name: [float(value) for value in scales[name]] for name in names if name in scales},
        "decision": params.decision.model_dump(mode="json"),
        "calibration": {"weights": list(inputs.calibration.weights)},
        "confidence": params.confidence.model_dump(mode="json"),
        "parameters": sum(item.numel() for item in inputs.module.parameters()),
        "epoch": learnt.epoch,
        "metrics": dict(learnt.metrics),
        "params": dict(learnt.params),
        "fingerprints": {
            "backbone_sha256": sha256_file(inputs.backbone),
            "checkpoint_sha256": learnt.checkpoint_sha256,
            "store_sha256": learnt.store_sha256,
        },
    }


def export_snapper_files(inputs: SnapExportInputs, paths: SnapExportPaths) -> dict[str, float]:
    """Write the files of a Snapper into a folder, the figures of their check and cost, and their times.

    Args:
        inputs: model, checkpoint, calibration, data.
        paths: where to.

    Returns:
        The figures: `parity_max_abs`, `parity_edges`, `parity_undecided_edges`, counts, sizes, `mean_iou` of the file on the images
        compared, and of each variant `{name}_bytes`, `{name}_size_ratio`, `{name}_mean_iou` and `{name}_mean_iou_loss`.

    Raises:
        CheckpointError: the calibration is for another tolerance than params.yaml has.
        ParityError: the file disagrees with torch; nothing is written then.
        GraphError: a graph that can't be made.
    """
    params = inputs.params.export
    if inputs.tolerance != inputs.params.confidence.tolerance:
        raise CheckpointError(
            f"the calibration is for edges within {inputs.tolerance:g} of a window, but snapper.confidence.tolerance is "
            f"{inputs.params.confidence.tolerance:g}; run `dvc repro snapper_evaluate`, which fits it"
        )
    specs, input_hw = inputs.specs, inputs.stored.extractor.input_hw
    inference = SnapInference(inputs.module, [spec.name for spec in specs], inputs.params.decision, inputs.calibration).eval()
    real = RealBoxes.spread(inputs.val, params.images, inputs.stored.reader)
    with new_folder(paths.out) as folder:
        path = folder / SNAPPER_FILE
        written = export_snapper(inference, specs, input_hw, params.opset, snapper_metadata(inputs), path)
        parity = snap_parity(inference, OnnxSnapper(path), specs, input_hw, params.tolerance, real)
        variants = _write_variants(inputs, path)
        if any(spec.name != IMAGE for spec in specs):
            _write_backbone(inputs, folder / BACKBONE_FILE)
        write_json(folder / SNAPPER_METADATA_FILE, written.metadata)
        figures: dict[str, float] = {
            "parity_max_abs": float(f"{parity.max_abs:.3g}"),
            "parity_edges": parity.edges,
            "parity_undecided_edges": parity.undecided,
            "mean_iou": round(parity.mean_iou, 6),
            **counted_figures(inputs.module, specs, input_hw),
            "checkpoint_bytes": inputs.file.stat().st_size,
            "onnx_bytes": path.stat().st_size,
            "onnx_nodes": len(written.model.graph.node),
            "onnx_nodes_before_simplification": written.traced_nodes,
            **_variant_figures(path, parity.mean_iou, variants, real),
        }
        given = {count: with_rough(inputs) for count, inputs in examples(specs, input_hw).items()}
        times = measure(inputs.module, specs, given, path, variants, regions=WINDOWS, outputs=(BOXES, CONFIDENCES))
    write_json(paths.figures, figures)
    write_json(paths.times, times)
    return figures


def _write_backbone(inputs: SnapExportInputs, path: Path) -> None:
    """The cut detector, without what leads to no layer of the model."""
    layers = [spec.name for spec in inputs.specs if spec.name != IMAGE]
    baked = bake_scales(load_graph(inputs.backbone), inputs.scales)
    write_bytes(path, keep_layers(baked, layers, str(inputs.backbone)).SerializeToString(deterministic=True))


def _write_variants(inputs: SnapExportInputs, path: Path) -> dict[str, Path]:
    """Smaller files beside the float32 one, by name."""
    wanted = inputs.params.export.variants
    files: dict[str, Path] = {name: path.with_name(SNAPPER_VARIANT_FILES[name]) for name in wanted}
    if "fp16" in files:
        make_half(path, files["fp16"], exact_answers=True)
    if "int8" in files:
        calibration = RealBoxes.spread(inputs.train, inputs.params.export.images, inputs.stored.reader)
        make_int8(path, files["int8"], _feeds(calibration, [spec.name for spec in inputs.specs]))
    return files


def _feeds(real: RealBoxes, layers: Sequence[str]) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Inputs of the file; they hold until the next are asked for."""
    names = [*map(feature_input, layers), WINDOWS]
    for inputs, _ in real.inputs():
        yield {name: _array(values) for name, values in zip(names, inputs, strict=True)}


def _array(values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.numpy()
    return found


def _variant_figures(path: Path, whole: float, variants: Mapping[str, Path], real: RealBoxes) -> dict[str, float]:
    """What smaller files weigh, and what they cost in accuracy."""
    found: dict[str, float] = {}
    for name, file in variants.items():
        size, reached = file.stat().st_size, mean_iou(OnnxSnapper(file), real)
        found |= {
            f"{name}_bytes": size,
            f"{name}_size_ratio": round(size / path.stat().st_size, 6),
            f"{name}_mean_iou": round(reached, 6),
            f"{name}_mean_iou_loss": round(whole - reached, 6),
        }
    return found
