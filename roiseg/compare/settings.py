"""Which params differ between runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roiseg.compare.lock import flatten
from roiseg.compare.runs import Run

NOT_THERE = object()
"""Value of a key that a run's params don't have."""


@dataclass(frozen=True)
class Setting:
    """A key that not all runs agree on.

    Attributes:
        key: dotted.
        values: of each run whose params are known, by its place; `NOT_THERE` where it hasn't got the key.
    """

    key: str
    values: Mapping[int, object]


def differing(runs: Sequence[Run]) -> list[Setting]:
    """Keys whose values differ between the runs whose params are known, section by section."""
    flat = {place: dict(flatten(run.params)) for place, run in enumerate(runs) if run.params is not None}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    sections = list(dict.fromkeys(key.split(".")[0] for key in keys))
    # Heads have keys of their own: without this those of the later runs would stand behind all sections.
    keys.sort(key=lambda key: sections.index(key.split(".")[0]))
    found = [Setting(key, {place: values.get(key, NOT_THERE) for place, values in flat.items()}) for key in keys]
    return [item for item in found if any(value != next(iter(item.values.values())) for value in item.values.values())]
