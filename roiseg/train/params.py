"""Section `train`."""

from typing import Annotated, Literal

from pydantic import Field

from roiseg.params import Section

Milestone = Annotated[int, Field(ge=1)]
Factor = Annotated[float, Field(gt=0, le=100)]


class EarlyStopParams(Section):
    """Section `train.early_stop`: the validation figure that a run is judged by while it goes on."""

    metric: str = Field(min_length=1)
    mode: Literal["max", "min"]
    patience: int | None = Field(ge=1)


class TrainParams(Section):
    """Section `train`."""

    seed: int = Field(ge=0)
    epochs: int = Field(ge=1)
    images_per_batch: int = Field(ge=1)
    accumulate: int = Field(ge=1)
    optimizer: Literal["adamw", "adam", "sgd"]
    lr: float = Field(gt=0)
    lr_factors: dict[str, Factor]
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    scheduler: Literal["cosine", "cosine_restarts", "step", "exponential", "plateau", "none"]
    min_lr: float = Field(ge=0)
    warmup_epochs: float = Field(ge=0)
    restart_epochs: int = Field(ge=1)
    restart_factor: int = Field(ge=1)
    step_epochs: tuple[Milestone, ...]
    decay_factor: float = Field(gt=0, lt=1)
    plateau_epochs: int = Field(ge=0)
    early_stop: EarlyStopParams
    clip_norm: float = Field(gt=0)
    max_skipped_steps: int = Field(ge=0)
    average_decay: float = Field(ge=0, lt=1)
    keep_checkpoints: int | None = Field(ge=0)
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["32-true", "bf16-mixed"]
