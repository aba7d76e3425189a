"""One step of the optimiser: gradients of one batch or several, clipped, taken in unless they aren't finite."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn

from roiseg.train.task import AnyBatch
from roiseg.train.world import World

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

    def over(self, world: World) -> "Sums":
        """The same of all processes together."""
        if world.size == 1:
            return self
        found = world.gather((self.rois, self._sums))
        names = dict.fromkeys(name for _, sums in found for name in sums)
        return Sums(
            sum(rois for rois, _ in found), self.skipped, {name: sum(sums.get(name, 0.0) for _, sums in found) for name in names}
        )


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
        self,
        fabric: Fabric,
        world: World,
        head: nn.Module,
        optimizer: torch.optim.Optimizer,
        losses: Callable[[AnyBatch], Losses],
        clip_norm: float,
    ) -> None:
        """Hold what a step needs.

        Args:
            fabric: device and precision.
            world: processes that share each batch.
            head: as `fabric` wrapped it.
            optimizer: as `fabric` wrapped it.
            losses: forward pass and loss of a batch, `total` among its parts.
            clip_norm: largest norm of all gradients together.
        """
        self._fabric, self._world, self._head, self._optimizer = fabric, world, head, optimizer
        self._losses, self._clip_norm = losses, clip_norm

    def step(self, batches: Sequence[AnyBatch], sums: Sums) -> NotFinite | None:
        """Learn from some batches together; their gradients are averaged.

        A step whose loss or gradients aren't finite changes nothing, neither weights nor the optimiser's memory of past gradients.
        With float16 gradients, infinite ones are how the scaler finds its factor: it lowers it, and that is no fault until the
        factor is down to 1.

        Args:
            batches: one, or more where gradients are accumulated.
            sums: counts the figures.

        Returns:
            What was wrong, or None.
        """
        rows = [row for batch in batches for row in batch.rows]
        found: list[tuple[Losses, int]] = []
        for number, batch in enumerate(batches):
            with self._fabric.no_backward_sync(self._head, enabled=number + 1 < len(batches)):  # type: ignore[arg-type]
                losses = self._losses(batch)
                if not self._world.all_finite(losses["total"]):
                    return self._skip("loss", losses["total"], rows, sums)
                rois = batch.size if batch.counted else 0
                self._backward(losses["total"], rois, len(batches))
            found.append((losses, rois))
        norm = self._fabric.clip_gradients(self._head, self._optimizer, max_norm=self._clip_norm, error_if_nonfinite=False)
        if norm is not None and not torch.isfinite(norm):
            return None if self._scaler_gives_way() else self._skip("norm of the gradients", norm, rows, sums)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)  # now, so that gradients don't lie between what the next step allocates
        for losses, count in found:
            sums.add({**losses, **({} if norm is None else {"grad_norm": norm})}, count)
        return None

    def _backward(self, loss: Tensor, rois: int, parts: int) -> None:
        """Gradients of a mean over the ROIs of all processes; torch averages over processes, whose ROIs differ in number."""
        if self._world.size > 1:
            loss = loss * (rois * self._world.size / max(self._world.total(rois), 1.0))
        self._fabric.backward(loss / parts if parts > 1 else loss)

    def _scaler_gives_way(self) -> bool:
        """Let the scaler of float16 lower its factor; whether there is one, and it was above 1."""
        precision = self._fabric.strategy.precision
        if not isinstance(precision, MixedPrecision) or precision.scaler is None:
            return False
        before = precision.scaler.get_scale()
        self._optimizer.step()  # the scaler leaves it out, as it has seen the gradients
        self._optimizer.zero_grad(set_to_none=True)
        return bool(before > 1.0)

    def _skip(self, what: str, value: Tensor, rows: Sequence[int], sums: Sums) -> NotFinite:
        self._optimizer.zero_grad(set_to_none=True)
        sums.skipped += 1
        return NotFinite(what, float(value.detach()), rows)
