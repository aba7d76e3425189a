"""What learns in a phase of a run: a head, its optimiser, and the running average of its weights."""

from collections.abc import Mapping
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from roiseg.batches import dequantise
from roiseg.errors import TrainingError
from roiseg.train.average import WeightAverage
from roiseg.train.checkpoint import Checkpoint
from roiseg.train.memory import lack_of_memory_is_said
from roiseg.train.optimizer import make_optimizer
from roiseg.train.params import TrainParams
from roiseg.train.run import Phase
from roiseg.train.step import Stepper
from roiseg.train.task import AnyBatch
from roiseg.train.world import World, random_states, restore_random_states

# Its root is what a backend that can't compile raises; torch has no public name for it.
CompilerError = torch._dynamo.exc.TorchDynamoException


class Learner:
    """Head, optimiser and average of a phase, on their device."""

    def __init__(self, fabric: Fabric, world: World, phase: Phase, params: TrainParams, before: "Learner | None" = None) -> None:
        """Build the head with fresh weights.

        Args:
            fabric: launched.
            world: its processes.
            phase: what learns on what.
            params: section `train`.
            before: learner of the phase before; what fits is taken over.

        Raises:
            TrainingError: see `make_optimizer`.
        """
        self.phase, self._fabric, self._world, self._params = phase, fabric, world, params
        self.task = phase.task
        self.task.load_state({})  # a run that begins anew in the same process has seen nothing
        self.head = self.task.build()
        self._epoch = 0
        self._plain = make_optimizer(self.head, params)
        self.average = WeightAverage(self.head, params.average_decay)
        if before is not None:
            self._take_over(before)
        # The number of ROIs differs from batch to batch.
        head = torch.compile(self.head, dynamic=True) if params.compile else self.head
        self.wrapped, self.optimizer = fabric.setup(cast("nn.Module", head), self._plain)
        self.average.head.to(fabric.device)
        self._scales = {name: torch.from_numpy(values) for name, values in self.task.stores["train"].scales.items()}
        self._floats: dict[str, Tensor] = {}
        self.stepper = Stepper(fabric, world, self.wrapped, self.optimizer, self.losses, params.clip_norm)

    def losses(self, batch: AnyBatch) -> dict[str, Tensor]:
        """Forward pass and loss of a batch, `total` among the parts."""
        device = self._fabric.device
        features = dequantise(batch.features, self._scales, device, self._floats)
        return self.task.losses(self.wrapped, features, batch, device)

    def begin_epoch(self, epoch: int) -> bool:
        """Let the weights join that learn from some epoch on; those of earlier epochs have, or do now.

        What joins forms groups of its own, so that the optimiser keeps what it knows of the others.

        Returns:
            Whether any joined, so that a step takes more memory than before.
        """
        groups = [group for number in range(self._epoch + 1, epoch + 1) for group in self.task.joining(self.head, number)]
        for group in groups:
            self._plain.add_param_group(group)
        self._epoch = max(self._epoch, epoch)
        return bool(groups)

    def set_rate(self, rate: float) -> None:
        """Learning rate of the next step, before the factors of the groups."""
        for group in self._plain.param_groups:
            group["lr"] = rate * group["factor"]

    def rehearse(self) -> None:
        """A step at the largest batch that leaves nothing but its memory: a lack of it shows now, and later steps need no more.

        Raises:
            TrainingError: the batch doesn't fit, or `train.compile` is on and nothing here can compile.
        """
        device = self._fabric.device
        batch = self.task.largest(-(-self._params.images_per_batch // self._world.size))
        buffers, seen = [(buffer, buffer.clone()) for buffer in self.head.buffers()], self.task.state()
        generators = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(generators), lack_of_memory_is_said(self.task, self._params, batch, device):
            self.wrapped.train()
            try:
                self._fabric.backward(self.losses(batch)["total"])
            except CompilerError as error:
                raise TrainingError(
                    f"{self._params.key('compile')} is true, but the model can't be compiled here ({str(error).splitlines()[0]}); "
                    "the processor needs a C++ compiler, CUDA needs triton; or set it to false"
                ) from error
        for buffer, before in buffers:  # statistics of norms
            buffer.copy_(before)
        self.task.load_state(seen)
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> Mapping[str, object]:
        """The fields of a `Checkpoint` that say how far the learning is; all processes must ask."""
        return {
            "model": self.average.head.state_dict(),
            "live": self.head.state_dict(),
            "optimizer": self._plain.state_dict(),
            "scaler": self._fabric.strategy.precision.state_dict(),
            "rng": random_states(self._world, self._fabric.device),
            "loss": self._world.gather(self.task.state()),
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same phase."""
        self.begin_epoch(checkpoint.epoch)
        self.head.load_state_dict(dict(checkpoint.live))
        self.average.head.load_state_dict(dict(checkpoint.model))
        self._plain.load_state_dict(dict(checkpoint.optimizer))
        self._fabric.strategy.precision.load_state_dict(dict(checkpoint.scaler))
        restore_random_states(dict(checkpoint.rng), self._world, self._fabric.device)
        self.task.load_state(checkpoint.loss[self._world.rank])

    def _take_over(self, before: "Learner") -> None:
        """Weights of equal name and shape, with what the optimiser knows of them; all others start fresh."""
        for mine, theirs in ((self.head, before.head), (self.average.head, before.average.head)):
            mine.load_state_dict(mine.state_dict() | _fitting(mine, theirs))
        old = dict(before.head.named_parameters())
        known = before._plain.state
        for name, weight in self.head.named_parameters():
            if name in old and old[name].shape == weight.shape and old[name] in known:
                self._plain.state[weight] = {
                    key: value.clone() if isinstance(value, Tensor) else value for key, value in known[old[name]].items()
                }


def _fitting(mine: nn.Module, theirs: nn.Module) -> dict[str, Tensor]:
    shapes = {name: value.shape for name, value in mine.state_dict().items()}
    return {name: value for name, value in theirs.state_dict().items() if shapes.get(name) == value.shape}
