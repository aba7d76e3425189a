"""A Snapper that needs no training: it sees bright rectangles on dark ground, and is exported like any other."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import roi_align

from roiseg.files import write_json
from roiseg.network_input import InputRule
from roiseg.onnx_names import SNAPPER_FILE, SNAPPER_METADATA_FILE
from roiseg.snapper.calibration import Calibration
from roiseg.snapper.onnx import SnapInference, export_snapper
from roiseg.snapper.params import DecisionParams
from roiseg.types import IMAGE, FeatureSpec

INPUT_HW = (96, 128)
POSITIONS = 49
BUFFER = 1.5
SPEC = FeatureSpec(IMAGE, 3, (1.0, 1.0))
RULE = InputRule(INPUT_HW, "letterbox", "rgb", 1.0)
DECISION = DecisionParams(rule="expectation", reach=0.1)
CALIBRATION = Calibration((0.4, -2.0, 1.0))
CONFIDENCE = {"tolerance": 0.02, "keep_below": 0.3, "review_below": 0.6}


class Steps(nn.Module):
    """Logits (R, 4, n): how much brighter it gets towards the middle at each position, by convolutions of fixed weights."""

    def __init__(self) -> None:
        """Fixed weights."""
        super().__init__()
        self.rise = nn.Conv1d(1, 2, 2, padding=0, bias=False)
        with torch.no_grad():
            self.rise.weight.copy_(torch.tensor([[[-1.0, 1.0]], [[1.0, -1.0]]]))

    def forward(self, features: dict[str, Tensor], windows: Tensor) -> Tensor:
        """See the contract of `roiseg.snapper.build`."""
        image = features[IMAGE]
        size = torch.tensor([1.0, INPUT_HW[1], INPUT_HW[0], INPUT_HW[1], INPUT_HW[0]])
        cells = roi_align(image, windows[:, :5] * size, (POSITIONS + 1, POSITIONS + 1), 1.0, 2, aligned=True)
        bright = cells.mean(dim=1) / 255
        profiles = [bright.mean(dim=1), bright.mean(dim=2)]  # over rows: along x; over columns: along y
        steps = [self.rise(profile[:, None]) for profile in profiles]
        return torch.stack([steps[0][:, 0], steps[1][:, 0], steps[0][:, 1], steps[1][:, 1]], dim=1) * 60


def snapper_told(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any value of metadata
    """Metadata that use reads."""
    return {
        "layers": {IMAGE: {"channels": 3, "stride_hw": [1.0, 1.0]}},
        "input": RULE.plain(),
        "scales": {},
        "buffer": BUFFER,
        "min_box_px": 4.0,
        "confidence": CONFIDENCE,
        "fingerprints": {"backbone_sha256": "b" * 64, "checkpoint_sha256": "c" * 64},
        **changes,
    }


def steps_inference() -> SnapInference:
    """The model with decision and calibration."""
    return SnapInference(Steps(), [IMAGE], DECISION, CALIBRATION).eval()


def write_snapper(folder: Path, **changes: Any) -> Path:  # noqa: ANN401 - any value of metadata
    """A folder as `snapper_export` writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    written = export_snapper(steps_inference(), [SPEC], INPUT_HW, 20, snapper_told(**changes), folder / SNAPPER_FILE)
    write_json(folder / SNAPPER_METADATA_FILE, written.metadata)
    return folder


def bright_boxes(hw: tuple[int, int], boxes: list[tuple[int, int, int, int]]) -> NDArray[np.uint8]:
    """A dark picture (H, W, 3) with bright xyxy boxes."""
    pixels = np.full((*hw, 3), 20, dtype=np.uint8)
    for x0, y0, x1, y1 in boxes:
        cv2.rectangle(pixels, (x0, y0), (x1 - 1, y1 - 1), (230, 240, 220), -1)
    return pixels
