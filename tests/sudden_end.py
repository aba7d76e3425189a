"""What stands for `kill -9` within a test's own process: it comes at any moment, and from then on nothing changes on the disk."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

FILE_CALLS = ("fsync", "replace", "link", "unlink")
"""Functions of `os` by which files come to be whole, and go; the last argument names the file, though `fsync` has its number."""

Place = tuple[str, int]
"""What is being done, and for which time, counted from 1 over all processes of a run."""


class SuddenEnd(BaseException):
    """The end of a process; nothing but the test that asked for it may catch it."""


class Fate:
    """Counts what the processes of a run do, ends them at given places, and notes the rates that they learn at.

    Attributes:
        counts: of all that was done.
        met: places at which a process ended.
        rates: of each process, the learning rates of its steps, before the factors of parameter groups.
    """

    def __init__(self, head: type[nn.Module], places: Collection[Place] = ()) -> None:
        """Set the places.

        Args:
            head: class of the head that is trained.
            places: none only counts.
        """
        self._head, self._places = head, frozenset(places)
        self._running = self._ended = False
        self.counts: Counter[str] = Counter()
        self.met: list[Place] = []
        self.rates: list[list[float]] = []

    @contextmanager
    def process(self) -> Iterator[None]:
        """What runs in the block is one process."""
        self._running, self._ended = True, False
        self.rates.append([])
        hooks = [
            nn.modules.module.register_module_forward_pre_hook(self._forward),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(lambda *_: self._reach("after a step")),
        ]
        with pytest.MonkeyPatch.context() as patch:
            for name in FILE_CALLS:
                patch.setattr(os, name, self._watched(name, getattr(os, name)))
            try:
                yield
            finally:
                self._running = False  # a module that was imported meanwhile may have kept one of the functions
                for hook in hooks:
                    hook.remove()

    def _reach(self, what: str) -> None:
        if not self._ended:
            self.counts[what] += 1
            place = what, self.counts[what]
            if place not in self._places:
                return
            self._ended = True
            self.met.append(place)
        raise SuddenEnd

    def _forward(self, module: nn.Module, _: object) -> None:
        if isinstance(module, self._head):
            self._reach("forward in training" if module.training else "forward of the average")

    def _before_step(self, optimizer: Optimizer, *_: object) -> None:
        self._reach("before a step")
        (rate,) = {group["lr"] / group["factor"] for group in optimizer.param_groups}
        self.rates[-1].append(rate)

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which counts and may be the last one; after the end it does nothing, so that no `finally` has an effect."""

        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if not self._running:
                return function(*args, **kwargs)
            if self._ended:
                return None
            if str(args[-1]).endswith(".partial"):  # it has been renamed: nothing goes
                return function(*args, **kwargs)
            what = f"{name} {_kind(args[-1])}".rstrip()
            try:
                self._reach(f"before {what}")
            except SuddenEnd:
                if name == "fsync":  # half of the bytes have come to the disk
                    os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
                raise
            value = function(*args, **kwargs)
            self._reach(f"after {what}")
            return value

        return call


def _kind(file: object) -> str:
    """Name of a file without its numbers, so that those of all epochs have one."""
    return re.sub(r"\d+", "N", Path(str(file)).name) if isinstance(file, str | os.PathLike) else ""
