"""Bytes that are alive while operators run, counted from shapes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch doesn't type it
    """Within it, each operator's results count from when they are made until nothing holds them.

    What is counted is storage, so that views are free and a tensor counts once. Scratch memory of an operator's own isn't seen, nor
    what an allocator rounds up or keeps.

    Attributes:
        peak: most bytes that were alive at once, so far.
    """

    def __init__(self, held: Iterable[Tensor], apart: Iterable[Tensor]) -> None:
        """Begin with nothing run.

        Args:
            held: there from the beginning, and counted.
            apart: never counted, nor are views of them; the caller keeps them alive.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._apart = WeakIdKeyDictionary({item.untyped_storage(): True for item in apart})
        self._alive: MutableMapping[UntypedStorage, int] = WeakIdKeyDictionary()
        self.peak = 0
        self._see(held)

    def _see(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage not in self._apart:
                self._alive[storage] = storage.nbytes()
        self.peak = max(self.peak, sum(self._alive.values()))

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - any operator
        """Run an operator and count what it made beside what it was given."""
        made = func(*args, **(kwargs or {}))
        self._see(_tensors(made))
        return made


def _tensors(made: object) -> Iterator[Tensor]:
    if isinstance(made, Tensor):
        yield made
    elif isinstance(made, list | tuple):
        for item in made:
            yield from _tensors(item)
