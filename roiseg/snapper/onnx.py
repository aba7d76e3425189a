"""The Snapper's ONNX: features and windows in, boxes and confidences out; decision, placing and calibration are part of the graph.

Symbols: N images, R boxes, C channels, (H, W) cells of a layer, n positions along a window.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from roiseg.errors import ParityError
from roiseg.export.onnx import IMAGES, ExportedHead, described, example_inputs, write_model
from roiseg.export.simplify import simplify
from roiseg.export.trace import count_axes_from_front, trace
from roiseg.onnx_names import BOXES, CONFIDENCES, WINDOWS, feature_input
from roiseg.runtime import ORT_ERRORS, make_session
from roiseg.snapper.calibration import PEAK_MARGIN, Calibration
from roiseg.snapper.edges import decide, place_edges, rough_edges
from roiseg.snapper.params import DecisionParams
from roiseg.types import HW, FeatureSpec

ROIS = "rois"
"""Name of the free size R."""


class SnapInference(nn.Module):
    """A model with all that comes behind it, of positional inputs: what the file says."""

    def __init__(self, module: nn.Module, layers: Sequence[str], decision: DecisionParams, calibration: Calibration) -> None:
        """Put what decides behind a model.

        Args:
            module: layer -> (N, C, H, W), and windows (R, 9), to logits (R, 4, n).
            layers: in the order of the inputs.
            decision: sub-section `snapper.decision`.
            calibration: from peak and entropy to confidences.
        """
        super().__init__()
        self.module, self.layers = module, tuple(layers)
        self._decision, self._weights = decision, calibration.weights

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (R, 4) xyxy in the unit frame and confidences (R, 4); of a (N, C, H, W) for each layer, and windows (R, 9)."""
        return self.answers(self.logits(*inputs), inputs[-1])

    def answers(self, logits: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        """What comes behind the model: boxes and confidences of logits (R, 4, n) and windows (R, 9)."""
        decided = decide(logits, self._decision)
        peak = decided.peak.clamp(PEAK_MARGIN, 1 - PEAK_MARGIN)
        of_peak, of_entropy, bias = self._weights
        scores = (peak.log() - (1 - peak).log()) * of_peak + decided.entropy * of_entropy + bias
        return place_edges(decided.edges, windows[:, 1:5]), scores.sigmoid()

    def logits(self, *inputs: Tensor) -> Tensor:
        """What the model itself says (R, 4, n)."""
        found: Tensor = self.module(dict(zip(self.layers, inputs[:-1], strict=True)), inputs[-1])
        return found


def export_snapper(
    inference: SnapInference, specs: Sequence[FeatureSpec], input_hw: HW, opset: int, metadata: Mapping[str, Any], path: Path
) -> ExportedHead:
    """Write the ONNX of a Snapper.

    Inputs `features_{layer}` (N, C, H, W) float32 and `windows` (R, 9) of image number, the window's xyxy and the rough box's,
    unit frame; outputs `boxes` (R, 4) xyxy in the unit frame and `confidences` (R, 4). N and R are free, everything else is fixed.

    Args:
        inference: in eval mode, on the CPU.
        specs: its layers, in order.
        input_hw: size of the network input.
        opset: ONNX operator set.
        metadata: plain values; what the graph says of itself is added: `inputs`, `outputs` and `opset`.
        path: out.

    Raises:
        ParityError: see `trace`.
        GraphError: see `simplify`.
    """
    free = {IMAGES: torch.export.Dim(IMAGES), ROIS: torch.export.Dim(ROIS)}
    inputs = {feature_input(spec.name): {0: free[IMAGES]} for spec in specs} | {WINDOWS: {0: free[ROIS]}}
    # Sizes 2 and 3: torch.export takes a size of 0 or 1 for a constant.
    example = with_rough(example_inputs(specs, input_hw, images=2, rois=3, seed=0))
    model = trace(inference, example, (list(inputs), [BOXES, CONFIDENCES]), (tuple(inputs.values()),), opset, str(path))
    count_axes_from_front(model)
    for item in model.graph.output:
        item.type.tensor_type.shape.dim[0].dim_param = ROIS
    nodes = len(model.graph.node)
    model = simplify(model, str(path))
    own = {"inputs": described(model.graph.input), "opset": opset, "outputs": described(model.graph.output)}
    whole = dict(metadata) | own
    write_model(model, whole, path)
    return ExportedHead(model, whole, nodes)


def with_rough(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Inputs whose last are windows (R, 9), with rough boxes in the middle of them: (R, 9)."""
    *maps, windows = inputs
    rough = place_edges(rough_edges(windows), windows[:, 1:5])
    return (*maps, torch.cat([windows, rough], dim=1))


class OnnxSnapper:
    """A Snapper's file in onnxruntime, called like `SnapInference`."""

    def __init__(self, path: Path) -> None:
        """Open a file that `export_snapper` made, or a variant of it, on the processor.

        Raises:
            GraphError: onnxruntime doesn't take the file.
        """
        self.path = path
        self._session, _ = make_session(path, "cpu", "float32", whole=False)
        self._inputs = [item.name for item in self._session.get_inputs()]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See `SnapInference.forward`.

        Raises:
            ParityError: onnxruntime fails.
        """
        feeds = {name: values.numpy() for name, values in zip(self._inputs, inputs, strict=True)}
        try:
            boxes, confidences = self._session.run([BOXES, CONFIDENCES], feeds)
        except ORT_ERRORS as error:
            raise ParityError(
                f"{self.path}: onnxruntime fails on {len(inputs[0])} images and {len(inputs[-1])} boxes, expected boxes as torch "
                f"gives them ({error}); try another snapper.export.opset"
            ) from error
        return torch.from_numpy(boxes), torch.from_numpy(confidences)
