"""What a training run is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roiseg.cache.params import ReaderParams
from roiseg.train.checkpoint import Checkpoint
from roiseg.train.params import TrainParams
from roiseg.train.task import Task


@dataclass(frozen=True)
class Phase:
    """Some epochs of a run with one task; most runs have a single one.

    Attributes:
        name: of an item of `train.phases`; None for the last phase, whose task is that of the params.
        until: its last epoch; None for the last phase.
        task: model, loss and data.
        described: sections as plain values, kept in every checkpoint.
    """

    name: str | None
    until: int | None
    task: Task
    described: Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """What a run goes on from, though its work folder is gone.

    Attributes:
        last: the checkpoint of its last epoch.
        best: the file of its best one; None where no epoch of the last phase was done.
    """

    last: Checkpoint
    best: Path | None


@dataclass(frozen=True)
class Run:
    """All that a training run is made of.

    Attributes:
        phases: in their order, at least one.
        params: section `train`.
        reader: section `reader`.
        kept: what it goes on from, or None.
    """

    phases: Sequence[Phase]
    params: TrainParams
    reader: ReaderParams
    kept: Kept | None = None

    @property
    def epochs(self) -> int:
        """Epochs of the whole run, those of a kept one among them."""
        if self.kept is not None and self.params.additional_epochs is not None:
            return self.kept.last.epoch + self.params.additional_epochs
        return self.params.epochs

    def phase_of(self, epoch: int) -> Phase:
        """The phase that an epoch, counted from 1, belongs to."""
        return next(phase for phase in self.phases if phase.until is None or epoch <= phase.until)

    def first_epoch(self, phase: Phase) -> int:
        """The first epoch of a phase, counted from 1."""
        number = [item is phase for item in self.phases].index(True)
        return (self.phases[number - 1].until or 0) + 1 if number else 1
