"""One step of the optimiser: gradients of one batch or several, clipped, taken in unless they aren't finite."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from roiseg.batches import Batch

Losses = Mapping[str, Tensor]


@dataclass
class Sums:
    """Figures of an epoch so far, weighted by ROIs: batches have different numbers of them.

    Attributes:
        rois: that were learnt from.
        skipped: steps that were left out.
    """

    rois: int = 0
    skipped: int = 0
    _sums: dict[str, float] = field(default_factory=dict)

    def add(self, values: Losses, rois: int) -> None:
        """Count a batch."""
        self.rois += rois
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach()) * rois

    def means(self) -> dict[str, float]:
        """Name -> mean over all ROIs; empty if every step was left out."""
        return {name: value / self.rois for name, value in self._sums.items()} if self.rois else {}


@dataclass(frozen=True)
class NotFinite:
    """Why a step was left out.

    Attributes:
        what: `loss` or `norm of the gradients`.
        value: infinite or not a number.
        rows: images of the step.
    """

    what: str
    value: float
    rows: Sequence[int]


class Stepper:
    """Makes steps of a head and its optimiser."""

    def __init__(
        self, fabric: Fabric, head: nn.Module, optimizer: torch.optim.Optimizer, losses: Callable[[Batch], Losses], clip_norm: float
    ) -> None:
        """Hold what a step needs.

        Args:
            fabric: device and precision.
            head: as `fabric` wrapped it.
            optimizer: as `fabric` wrapped it.
            losses: forward pass and loss of a batch, `total` among its parts.
            clip_norm: largest norm of all gradients together.
        """
        self._fabric, self._head, self._optimizer = fabric, head, optimizer
        self._losses, self._clip_norm = losses, clip_norm

    def step(self, batches: Sequence[Batch], sums: Sums) -> NotFinite | None:
        """Learn from some batches together; their gradients are averaged.

        A step whose loss or gradients aren't finite changes nothing, neither weights nor the optimiser's memory of past gradients.

        Args:
            batches: one, or more where gradients are accumulated.
            sums: counts the figures.

        Returns:
            What was wrong, or None.
        """
        rows = [row for batch in batches for row in batch.rows]
        found: list[tuple[Losses, int]] = []
        for batch in batches:
            losses = self._losses(batch)
            if not torch.isfinite(losses["total"]):
                return self._skip("loss", losses["total"], rows, sums)
            self._fabric.backward(losses["total"] / len(batches) if len(batches) > 1 else losses["total"])
            found.append((losses, len(batch.boxes)))
        norm = self._fabric.clip_gradients(self._head, self._optimizer, max_norm=self._clip_norm, error_if_nonfinite=False)
        if norm is not None and not torch.isfinite(norm):
            return self._skip("norm of the gradients", norm, rows, sums)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)  # now, so that gradients don't lie between what the next step allocates
        for losses, count in found:
            sums.add({**losses, **({} if norm is None else {"grad_norm": norm})}, count)
        return None

    def _skip(self, what: str, value: Tensor, rows: Sequence[int], sums: Sums) -> NotFinite:
        self._optimizer.zero_grad(set_to_none=True)
        sums.skipped += 1
        return NotFinite(what, float(value.detach()), rows)
