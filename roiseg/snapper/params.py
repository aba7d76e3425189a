"""Section `snapper`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from roiseg.params import Section
from roiseg.types import View

Buffer = Annotated[float, Field(ge=1, le=4)]
Share = Annotated[float, Field(ge=0, le=1)]
Width = Annotated[int, Field(ge=1, le=4096)]
Deviation = Annotated[float, Field(gt=0)]
Prior = Literal["rough", "none"]


class JitterParams(Section):
    """Sub-section `snapper.data.jitter`: how far a rough box is off ("Find and Snap", section 3.4.2)."""

    centre: float = Field(ge=0, le=1)
    scale: float = Field(ge=0, lt=1)
    ratios: Literal["own", "shared"]


class ExtremeParams(Section):
    """Sub-section `snapper.data.extreme`: boxes whose rough box is far off."""

    policy: Literal["keep", "drop", "down_weight"]
    min_iou: Share
    weight: Share


class SnapDataParams(Section):
    """Sub-section `snapper.data`: which objects, and what of the image is looked at."""

    min_box_px: float = Field(ge=1)
    boxes_per_image: int = Field(ge=1)
    buffer: tuple[Buffer, Buffer]
    jitter: JitterParams
    extreme: ExtremeParams
    val_seed: int = Field(ge=0)
    views: Annotated[tuple[View, ...], Field(min_length=1)] | None

    @model_validator(mode="after")
    def _buffer_rises(self) -> "SnapDataParams":
        if self.buffer[1] < self.buffer[0]:
            raise ValueError(f"buffer is {list(self.buffer)}, expected [least, most]; twice the same for a fixed one")
        return self

    @property
    def val_buffer(self) -> float:
        """The one buffer of validation and use: the mean of the range."""
        return (self.buffer[0] + self.buffer[1]) / 2


class CachedModelParams(Section):
    """Sub-section `snapper.model` of the model on cached detector features."""

    kind: Literal["cached"]
    layers: tuple[str, ...] = Field(min_length=1)
    positions: int = Field(ge=8, le=1024)
    roi_hw: tuple[Annotated[int, Field(ge=4, le=224)], Annotated[int, Field(ge=4, le=224)]]
    sampling_ratio: int = Field(ge=1, le=4)
    layer_channels: Width
    mid_channels: Width
    convolutions: int = Field(ge=1, le=8)
    decoder_channels: tuple[Width, ...] = Field(min_length=1)
    groups: int = Field(ge=1)
    prior: Prior
    dropout: float = Field(ge=0, lt=1)


class CropModelParams(Section):
    """Sub-section `snapper.model` of the model on image crops (spec 21.6, 21.7).

    `mean` and `std` are those of the weights: RGB in [0, 1] is normalised by them, and by nothing else.
    """

    kind: Literal["crop"]
    backbone: Literal["resnet18", "resnet34", "resnet50"]
    weights: str = Field(min_length=1)
    crop_px: int = Field(ge=64, le=1024, multiple_of=32)
    positions: int = Field(ge=8, le=1024)
    sampling_ratio: int = Field(ge=1, le=4)
    scales: Literal["single", "concat", "per_scale", "fpn_a", "fpn_b"]
    stride: Literal[4, 8, 16, 32]
    upsample: Literal["linear", "learned"]
    decoder_channels: tuple[Width, ...] = Field(min_length=1)
    prior: Prior
    mean: tuple[float, float, float]
    std: tuple[Deviation, Deviation, Deviation]


SnapModelParams = CachedModelParams | CropModelParams


class SnapLossParams(Section):
    """Sub-section `snapper.loss`."""

    form: Literal["bce", "softmax"]
    target: Literal["onehot", "gaussian"]
    sigma: float = Field(gt=0, le=1)
    giou: float = Field(ge=0)


class DecisionParams(Section):
    """Sub-section `snapper.decision`: from a distribution over positions to an edge."""

    rule: Literal["argmax", "expectation"]
    reach: float = Field(gt=0, le=1)


class ConfidenceParams(Section):
    """Sub-section `snapper.confidence`: what it means that an edge is sure, and when it is sure enough."""

    tolerance: float = Field(gt=0, le=1)
    review_below: Share
    keep_below: Share

    @model_validator(mode="after")
    def _kept_is_reviewed(self) -> "ConfidenceParams":
        if self.keep_below > self.review_below:
            raise ValueError(
                f"keep_below is {self.keep_below:g} and review_below {self.review_below:g}; expected keep_below <= review_below: "
                "an edge that is too unsure to be moved is one to be looked at"
            )
        return self


class SnapExportParams(Section):
    """Sub-section `snapper.export`."""

    checkpoint: str = Field(min_length=1)
    opset: int = Field(ge=18, le=20)
    tolerance: float = Field(gt=0, le=1)
    images: int = Field(ge=1)
    variants: tuple[Literal["fp16", "int8"], ...]


class SnapperParams(Section):
    """Section `snapper`: the model that snaps rough boxes to objects of any class."""

    data: SnapDataParams
    model: Annotated[SnapModelParams, Field(discriminator="kind")]
    loss: SnapLossParams
    decision: DecisionParams
    confidence: ConfidenceParams
    train: dict[str, Any]
    export: SnapExportParams
