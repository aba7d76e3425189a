"""Section `train`."""

from typing import Literal

from pydantic import Field

from roiseg.params import Section


class TrainParams(Section):
    """Section `train`."""

    seed: int = Field(ge=0)
    epochs: int = Field(ge=1)
    images_per_batch: int = Field(ge=1)
    lr: float = Field(gt=0)
    min_lr: float = Field(ge=0)
    warmup_epochs: float = Field(ge=0)
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)
    average_decay: float = Field(ge=0, lt=1)
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["32-true", "bf16-mixed"]
