"""Device and precision of a run, and the processes that share its batches: Lightning Fabric, and sums over all processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from torch import Tensor

from roiseg.errors import ProviderError, TrainingError
from roiseg.train.params import TrainParams

T = TypeVar("T")


def make_fabric(params: TrainParams) -> Fabric:
    """Device, precision and number of processes of a run.

    Raises:
        ProviderError: a CUDA device was asked for and there is none, or fewer than `train.devices`.
        TrainingError: fewer images in a batch than processes that share it.
    """
    if params.device == "cuda" and not torch.cuda.is_available():
        raise ProviderError(f"{params.key('device')} is 'cuda', but torch finds no CUDA device here; set it to 'auto' or 'cpu'")
    accelerator = "cuda" if params.device != "cpu" and torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and params.devices > torch.cuda.device_count():
        raise ProviderError(
            f"{params.key('devices')} is {params.devices}, but torch finds {torch.cuda.device_count()} CUDA devices here; lower it"
        )
    if params.devices > params.images_per_batch:
        raise TrainingError(
            f"{params.key('devices')} is {params.devices}, but a batch has {params.images_per_batch} images, expected at least one "
            f"for each process; lower it or raise {params.key('images_per_batch')}"
        )
    strategy = "ddp" if params.devices > 1 else "auto"
    return Fabric(accelerator=accelerator, devices=params.devices, strategy=strategy, plugins=[_precision(params, accelerator)])


def _precision(params: TrainParams, accelerator: str) -> Precision:
    if params.precision == "32-true":
        return Precision()
    return MixedPrecision(params.precision, accelerator)


@contextmanager
def deterministic() -> Iterator[None]:
    """Operators that give the same bits each time, or fail."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class World:
    """The processes of a run. Each has a share of every batch; the first one alone writes files."""

    def __init__(self, fabric: Fabric) -> None:
        """Look at the processes that `fabric.launch()` has started; without it there is one."""
        self._fabric = fabric
        self.rank, self.size = fabric.global_rank, fabric.world_size

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def total(self, value: float) -> float:
        """Sum of a number over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self._fabric.device)
        torch.distributed.all_reduce(tensor)
        return float(tensor)

    def all_finite(self, value: Tensor) -> bool:
        """Whether a scalar is finite in every process."""
        finite = bool(torch.isfinite(value.detach()))
        return finite if self.size == 1 else self.total(float(not finite)) == 0.0

    def gather(self, value: T) -> list[T]:
        """A value of each process, in their order; it must be one that pickle knows."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until all processes are here."""
        self._fabric.barrier()


def random_states(world: World, device: torch.device) -> dict[str, list[Tensor]]:
    """States of torch's generators, on the CPU and on the device, of each process."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    found = world.gather(states)
    return {name: [item[name] for item in found] for name in states}


def restore_random_states(states: dict[str, list[Tensor]], world: World, device: torch.device) -> None:
    """Set the generators of this process to a state that `random_states` gave; a device that wasn't there keeps its own."""
    torch.set_rng_state(states["cpu"][world.rank])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"][world.rank], device)
