"""Walks over params: every key of a section's class, and what two trees of values differ in."""

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, get_args

from roiseg.params import Section


def knobs(cls: type[Section], where: str = "") -> Iterator[str]:
    """Dotted keys of a section and of those within; of a section within only where it can be null."""
    for name, field in cls.model_fields.items():
        path, inner = f"{where}{name}", list(_sections(field.annotation))
        if not inner or NoneType in get_args(field.annotation):
            yield path
        for section in inner:
            yield from knobs(section, f"{path}.")


def _sections(annotation: object) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def nested(path: str, value: object) -> dict[str, Any]:
    """A mapping that holds the value at a dotted path, and nothing else."""
    key, _, rest = path.partition(".")
    return {key: nested(rest, value) if rest else value}


def differences(one: Mapping[str, Any], other: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Dotted keys at which two trees of values differ."""
    for name in sorted({*one, *other}):
        first, second = one.get(name), other.get(name)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from differences(first, second, f"{where}{name}.")
        elif first != second:
            yield f"{where}{name}"
