"""Does the exported head say what the trained head says?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from roiseg.errors import ParityError
from roiseg.export.onnx import example_inputs
from roiseg.onnx_names import BOXES, OUTPUT, feature_input
from roiseg.runtime import make_session
from roiseg.types import HW, FeatureSpec

SIZES = ((1, 1), (2, 5), (3, 0), (1, 17))
"""(images, ROIs) that are compared: one, several, none, many."""


@torch.no_grad()
def parity(
    head: nn.Module,
    specs: Sequence[FeatureSpec],
    input_hw: HW,
    path: Path,
    tolerance: float,
    real: Sequence[tuple[Tensor, ...]],
) -> float:
    """Largest difference of probabilities between torch and onnxruntime, over random and real inputs.

    Args:
        head: in eval mode, on the CPU.
        specs: its layers, in order.
        input_hw: size of the network input.
        path: the exported file.
        tolerance: largest allowed difference.
        real: further inputs: features of the layers in order, then boxes.

    Raises:
        ParityError: the difference is above the tolerance, with its place.
    """
    session, _ = make_session(path, "cpu", "float32")
    names = [*(feature_input(spec.name) for spec in specs), BOXES]
    cases = [example_inputs(specs, input_hw, images, rois, seed=images * 100 + rois) for images, rois in SIZES]
    worst = 0.0
    for case in (*cases, *real):
        features = {spec.name: value for spec, value in zip(specs, case, strict=False)}
        expected = head(features, case[-1]).mask_logits.softmax(dim=1).numpy()
        (got,) = session.run([OUTPUT], {name: value.numpy() for name, value in zip(names, case, strict=True)})
        if got.shape != expected.shape:
            raise ParityError(f"{path}: gives {got.shape} for {len(case[-1])} ROIs, expected {expected.shape}")
        difference = float(np.abs(got - expected).max(initial=0.0))
        worst = max(worst, difference)
        if not difference <= tolerance:
            raise ParityError(
                f"{path}: differs from torch by {difference:.3g} on {len(case[0])} images and {len(case[-1])} ROIs, "
                f"expected at most {tolerance:g} (export.tolerance)"
            )
    return worst
