"""Presets: named differences from params.yaml, shown, applied, or spelled for `dvc exp run -S`; and single ones, read."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import takewhile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from roiseg.errors import ParamsError
from roiseg.files import write_bytes
from roiseg.params import get_dotted, nearest, preset_path, read_yaml


class _Representer(RoundTripRepresenter):
    """Writes `null` as params.yaml spells it; ruamel leaves the place empty."""

    def represent_null(self, _: None) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _Representer.represent_null)


def what_it_is(name: str) -> str:
    """The first sentence of the comment that a preset begins with.

    Raises:
        ParamsError: no such preset.
    """
    lines = preset_path(name).read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines))
    return comment.split(". ")[0].rstrip(".") + "."


def what_it_sets(name: str) -> dict[str, str]:
    """Section -> the keys that a preset sets in it and their values, on a line.

    Raises:
        ParamsError: no such preset.
    """
    sections = read_yaml(preset_path(name))
    return {
        section: ", ".join(f"{key} {flow(value)}" for key, value in _unmarked(keys).items()) for section, keys in sections.items()
    }


def flow(value: object, gap: str = " ") -> str:
    """A value as YAML on one line, with `gap` after each comma and colon; without one it is an override as Hydra reads it."""
    if isinstance(value, Mapping):
        return "{" + f",{gap}".join(f"{key}:{gap}{flow(item, gap)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + f",{gap}".join(flow(item, gap) for item in value) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def apply_preset(name: str, params_file: Path) -> list[str]:
    """Write a preset into a params file; its comments and order stay.

    Args:
        name: of the preset.
        params_file: such as params.yaml.

    Returns:
        Dotted keys that were changed.

    Raises:
        ParamsError: no such preset.
    """
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    read_yaml(params_file)
    document = yaml.load(params_file.read_text(encoding="utf-8"))
    changed = list(_merge(document, read_yaml(preset_path(name)), ""))
    text = StringIO()
    yaml.dump(document, text)
    write_bytes(params_file, text.getvalue().encode())
    return changed


def _merge(document: Any, over: Mapping[str, Any], where: str) -> Iterator[str]:  # noqa: ANN401 - ruamel's own mapping
    for key, value in over.items():
        path = f"{where}{key}"
        below = document.get(key)
        if isinstance(value, Mapping) and isinstance(below, dict):
            if value.get("_replace"):
                for stale in [name for name in below if name not in value]:
                    del below[stale]
                    yield f"{path}.{stale}"
            yield from _merge(below, {name: item for name, item in value.items() if name != "_replace"}, f"{path}.")
        elif key not in document or below != value:
            if isinstance(value, list) and hasattr(below, "fa"):
                below[:] = value
            else:
                document[key] = _unmarked(value)
            yield path


def _unmarked(value: Any) -> Any:  # noqa: ANN401 - YAML holds anything
    """A preset's value without the mark that `overlay` reads."""
    if isinstance(value, Mapping):
        return {key: _unmarked(item) for key, item in value.items() if key != "_replace"}
    return value


def as_args(name: str, params_file: Path) -> list[str]:
    """A preset as arguments of `dvc exp run`.

    Args:
        name: of the preset.
        params_file: tells which keys are there already: `-S key=value` sets one, `-S +key=value` adds one, `-S ~key` removes one.

    Raises:
        ParamsError: no such preset.
    """
    return [part for text in _overrides(read_yaml(params_file), read_yaml(preset_path(name)), "") for part in ("-S", text)]


def _overrides(values: Mapping[str, Any], over: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, value in over.items():
        path, below = f"{where}{key}", values.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            if value.get("_replace"):
                yield from (f"~{path}.{name}" for name in below if name not in value)
            yield from _overrides(below, {name: item for name, item in value.items() if name != "_replace"}, f"{path}.")
        elif key not in values or below != value:
            yield f"{'' if key in values else '+'}{path}={flow(_unmarked(value), gap='')}"


@dataclass(frozen=True)
class Override:
    """A change to one key of the params.

    Attributes:
        key: dotted.
        value: what it becomes.
        removed: whether the key goes instead.
    """

    key: str
    value: Any
    removed: bool


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """Changes spelled as for `dvc exp run -S`: `key=value`, `+key=value`, `~key`; Hydra's parser reads them, as there.

    Raises:
        ParamsError: one that can't be read, or that stands for several values.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    found, parser = [], OverridesParser.create()
    for text in texts:
        try:
            read = parser.parse_override(text)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ParamsError(f"--set {text!r}: {reason}; expected key=value, such as evaluate.images_per_batch=2") from error
        if read.is_sweep_override():
            raise ParamsError(
                f"--set {text!r}: stands for several values, expected one; put a list in brackets and a text in quotes"
            )
        found.append(Override(read.key_or_group, read.value(), bool(read.is_delete())))
    return found


def with_overrides(values: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """Params with some keys changed; whether a key is one that its section knows is left to the section.

    Raises:
        ParamsError: a key below something that has none, or one to remove that isn't there.
    """
    changed = copy.deepcopy(dict(values))
    for override in overrides:
        *parents, key = override.key.split(".")
        place = get_dotted(changed, ".".join(parents)) if parents else changed
        if not isinstance(place, dict):
            raise ParamsError(f"--set {override.key}: {'.'.join(parents)} is {place!r}, which has no keys; set it whole")
        if override.removed and key not in place:
            raise ParamsError(f"--set ~{override.key}: not there, so that it can't be removed; {nearest(key, place)}")
        if override.removed:
            del place[key]
        else:
            place[key] = override.value
    return changed
