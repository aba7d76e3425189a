"""Section `extractor`: which ONNX, which tensors, and how an image becomes its input."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from roiseg.extractor.detections import DetectionRule
from roiseg.geometry import ResizeMode
from roiseg.network_input import InputRule
from roiseg.params import Section
from roiseg.types import Precision, Provider


def _layer_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name.endswith("_scale") or name in {"image", "image_id", "teacher", "boxes"}:
        raise ValueError("a layer is named by lower-case letters, digits and '_', is no reserved word, and doesn't end in '_scale'")
    return name


LayerName = Annotated[str, AfterValidator(_layer_name)]
Side = Annotated[int, Field(ge=32, le=8192)]


class DetectionParams(Section):
    """The detector's own boxes, where the ONNX has them."""

    output: str = Field(min_length=1)
    person_class: int = Field(ge=0)
    min_score: float = Field(ge=0, le=1)

    def rule(self) -> DetectionRule:
        """The same, away from params."""
        return DetectionRule(self.output, self.person_class, self.min_score)


class ExtractorParams(Section):
    """Section `extractor`."""

    onnx: str = Field(min_length=1)
    layers: dict[LayerName, str] = Field(min_length=1)
    input_hw: tuple[Side, Side]
    resize: ResizeMode
    color: Literal["rgb", "bgr"]
    pixel_max: float = Field(gt=0)
    batch_size: int = Field(ge=1, le=1024)
    provider: Provider
    precision: Precision
    detections: DetectionParams | None

    @model_validator(mode="after")
    def _tensors_differ(self) -> "ExtractorParams":
        if len(set(self.layers.values())) < len(self.layers):
            raise ValueError("two layers name the same tensor")
        return self

    def input_rule(self) -> InputRule:
        """What turns an image into the network input."""
        return InputRule(self.input_hw, self.resize, self.color, self.pixel_max)
