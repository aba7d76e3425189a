"""What a phase of a run learns on, and how it is judged: the contract between the loop and whatever is trained by it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from roiseg.batches import Loading
from roiseg.cache.source import FeatureSource
from roiseg.evaluate.overlays import Picture
from roiseg.types import HW


class AnyBatch(Protocol):
    """A batch, as far as the loop looks at it."""

    @property
    def rows(self) -> Sequence[int]:
        """Rows of the index."""

    @property
    def features(self) -> Mapping[str, Tensor]:
        """Layer -> (B, C, H, W) of the stored type."""

    @property
    def counted(self) -> bool:
        """False where another process's images are computed once more, which must not weigh."""

    @property
    def size(self) -> int:
        """How many there are of what the losses are means over: ROIs, or images."""


class Task(ABC):
    """What is learnt.

    Attributes:
        lead: validation figure that picks the best epoch, higher is better, and names checkpoints.
        unit: what the losses are means over, for the log.
        thrift: what else than images to lower where a batch doesn't fit into memory, for the message.
    """

    lead: str
    unit: str
    thrift: str

    @property
    @abstractmethod
    def stores(self) -> Mapping[str, FeatureSource]:
        """`train` and `val`: what is learnt from, and what it is judged on."""

    @property
    @abstractmethod
    def layers(self) -> Sequence[str]:
        """What is read of the store."""

    @property
    @abstractmethod
    def mask_hw(self) -> HW:
        """(h, w) of what is predicted, for the names of checkpoints."""

    @property
    @abstractmethod
    def images(self) -> int:
        """Turns of images in an epoch."""

    @abstractmethod
    def build(self) -> nn.Module:
        """What learns, with fresh weights from torch's global generator."""

    @abstractmethod
    def batches(self, loading: Loading, seed: int, epoch: int) -> Iterator[AnyBatch]:
        """One epoch in a seeded order, whatever the number of threads and processes; features hold until the next batch.

        Args:
            loading: batch size, threads, share.
            seed: of the run.
            epoch: counted from 1.
        """

    @abstractmethod
    def largest(self, images: int) -> AnyBatch:
        """A batch of `images` as large as any that training may draw, of features that are zero."""

    @abstractmethod
    def losses(self, module: nn.Module, features: dict[str, Tensor], batch: Any, device: torch.device) -> dict[str, Tensor]:  # noqa: ANN401 - each task has batches of its own
        """Forward pass and loss of a batch.

        Args:
            module: what `build` made, as the loop wrapped it.
            features: layer -> (B, C, H, W) float32 on the device; may be changed.
            batch: one of `batches`.
            device: of the module.

        Returns:
            `total`, each part by name, and the weights in force as `weight_*`.
        """

    @property
    @abstractmethod
    def known_figures(self) -> Sequence[str]:
        """Names of the validation figures that there always are."""

    @abstractmethod
    def score(self, module: nn.Module, device: torch.device, loading: Loading) -> Any:  # noqa: ANN401 - goes to `figures` of the same task
        """What a process has counted on its share of the validation split; plain enough to be sent to another process.

        Args:
            module: averaged weights, in eval mode, not wrapped.
            device: of the module.
            loading: batch size, threads, share.
        """

    @abstractmethod
    def figures(self, parts: Sequence[Any]) -> dict[str, float]:
        """Validation figures of what all processes have counted."""

    def draw(self, module: nn.Module, device: torch.device, title: str) -> Picture | None:
        """The fixed validation pictures; None where there are none.

        Args:
            module: averaged weights, in eval mode.
            device: of the module.
            title: of the sheet.
        """
        del module, device, title
        return None

    def begin_epoch(self, progress: float, epoch: int) -> None:
        """Weights that change over the run take their values.

        Args:
            progress: 0 in the first epoch, 1 in the last.
            epoch: counted from 1.
        """
        del progress, epoch

    def rate_scale(self, epoch: int) -> float:
        """Factor on the learning rate of everything in an epoch.

        Args:
            epoch: counted from 1.
        """
        del epoch
        return 1.0

    def joining(self, module: nn.Module, epoch: int) -> list[dict[str, Any]]:
        """Groups of weights that learn from an epoch on and didn't before, for the optimiser.

        Those that want a gradient from the start are in groups already (`roiseg.train.optimizer`). Asked once for every epoch, also
        for those that a run goes on after.

        Args:
            module: what `build` made.
            epoch: counted from 1.

        Returns:
            Groups with their `params`, `factor` and `weight_decay`.
        """
        del module, epoch
        return []

    def judged(self, figures: Mapping[str, float]) -> None:
        """Told of an epoch's validation figures, before `state` is asked for."""
        del figures

    def state(self) -> Mapping[str, float]:
        """What the loss has seen, for a run that goes on."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from what `state` gave; from the beginning where it is empty."""
        del state
