"""Section `train`."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr

from roiseg.evaluate.pictures import Layout
from roiseg.params import Section

Milestone = Annotated[int, Field(ge=1)]
Factor = Annotated[float, Field(gt=0, le=100)]


class EarlyStopParams(Section):
    """Section `train.early_stop`: the validation figure that a run is judged by while it goes on."""

    metric: str = Field(min_length=1)
    mode: Literal["max", "min"]
    patience: int | None = Field(ge=1)


class PhaseParams(Section):
    """An item of `train.phases`: a simpler model or loss that the run has until some epoch."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    until: int = Field(ge=1)
    model: dict[str, Any]
    loss: dict[str, Any]


class TrainParams(Section):
    """Section `train`, or one with its keys, such as `unet.train`."""

    _where: str = PrivateAttr(default="train")

    seed: int = Field(ge=0)
    epochs: int = Field(ge=1)
    resume_from: str = Field(min_length=1)
    additional_epochs: int | None = Field(ge=1)
    extend_policy: Literal["stretch", "restart", "hold"]
    distill_from: str = Field(min_length=1)
    phases: tuple[PhaseParams, ...]
    phase_warmup_epochs: float = Field(ge=0)
    phase_warmup_factor: float = Field(gt=0, le=1)
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
    pictures: Layout
    device: Literal["auto", "cpu", "cuda"]
    devices: int = Field(ge=1)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    compile: bool

    @classmethod
    def parse(cls, values: object, where: str) -> Self:
        """See `Section.parse`; the section remembers where it stands."""
        found = super().parse(values, where)
        found._where = where
        return found

    def key(self, name: str) -> str:
        """A key's dotted path, for messages.

        Args:
            name: of the key.
        """
        return f"{self._where}.{name}"


CONTINUATION = frozenset(
    {
        "epochs",
        "resume_from",
        "additional_epochs",
        "extend_policy",
        "early_stop",
        "keep_checkpoints",
        "max_skipped_steps",
        "pictures",
    }
)
"""Keys of `train` that say how far a run goes and what is kept of it; a run that goes on may have others than the one before."""
