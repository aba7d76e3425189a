"""Section `export`: which files a trained head becomes."""

from typing import Literal

from pydantic import Field, field_validator

from roiseg.errors import ParamsError
from roiseg.export.end_to_end import BoxSource
from roiseg.extractor.params import DetectionParams
from roiseg.filters import FilterParams
from roiseg.params import Section
from roiseg.train.checkpoint import CHECKPOINT_FILE

Variant = Literal["fp16", "int8"]

LATEST_OPSET = 20
"""onnxruntime's INT8 quantisation writes no valid graph of 21, and its processor code has no `RoiAlign` of 22."""


class ExportParams(Section):
    """Section `export`."""

    checkpoint: str = Field(pattern=CHECKPOINT_FILE)
    opset: int = Field(ge=18, le=LATEST_OPSET)
    tolerance: float = Field(gt=0)
    images: int = Field(ge=1)
    include_aux: bool
    simplify: bool
    variants: tuple[Variant, ...]
    calibration_images: int = Field(ge=1)
    end_to_end: tuple[BoxSource, ...]
    preprocess: bool
    filter: FilterParams | None

    @field_validator("variants", "end_to_end")
    @classmethod
    def _named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is named twice, expected each name at most once")
        return names

    def check_detections(self, detections: DetectionParams | None) -> None:
        """See that the detector has the boxes that `end_to_end` asks for.

        Args:
            detections: `extractor.detections`.

        Raises:
            ParamsError: it hasn't.
        """
        if "detector" in self.end_to_end and detections is None:
            raise ParamsError(
                "export.end_to_end: 'detector' is there and extractor.detections is null; name the detector's output of boxes in "
                "extractor.detections, or take 'detector' out"
            )
