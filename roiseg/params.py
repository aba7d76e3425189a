"""Strict typed params: one file, and every fault in it at once.

The classes of the sections live beside the code that they configure; this module only knows how to read them.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from roiseg.errors import ParamsError

PARAMS_FILE = Path("params.yaml")
PRESET_DIR = Path(__file__).parent / "presets"

NOTHING_KEPT = "models/kept/nothing"
"""What a param says that names kept weights where there are none: a file that git holds, for DVC wants each dep to be there."""

NOBODY = "models/kept/nobody"
"""The same for a head to learn from: DVC takes no dep twice."""


class Section(BaseModel):
    """Base of every params section: unknown keys, implicit casts and later changes are refused.

    Values come from params.yaml alone, so sections declare no defaults; but for `model`, of which params.yaml holds the keys of one
    family.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=False)

    @classmethod
    def parse(cls, values: object, where: str) -> Self:
        """Build the section from plain YAML values.

        Args:
            values: the mapping found in the file.
            where: dotted path of the section, for messages.

        Raises:
            ParamsError: naming every key that is unknown, missing, of the wrong type or out of range.
        """
        try:
            return cls.model_validate(_tuples(values))
        except ValidationError as error:
            raise ParamsError("\n".join(_faults(cls, error, where))) from error


SectionT = TypeVar("SectionT", bound=Section)


def _tuples(values: object) -> object:
    """YAML lists as tuples: strict pydantic takes a tuple for `tuple[...]` and for `Sequence`, but no list for a tuple."""
    if isinstance(values, Mapping):
        return {key: _tuples(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return tuple(_tuples(value) for value in values)
    return values


def _models(annotation: object) -> list[type[BaseModel]]:
    """Sections that an annotation can hold, also inside `dict`, `tuple`, `| None` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _known_keys(cls: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Keys allowed at `path` below `cls`; parts that name no field are keys of a mapping or places in a list."""
    models = [cls]
    for part in path:
        fields = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        if fields:
            models = [model for annotation in fields for model in _models(annotation)]
    return sorted({key for model in models for key in model.model_fields})


def nearest(name: str, known: Iterable[str]) -> str:
    """A "did you mean" clause, or the list of what is known where nothing is near.

    Args:
        name: what was written.
        known: what could have been meant.
    """
    names = [str(item) for item in known]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(item) for item in close)}?"
    return f"known: {', '.join(sorted(names))}" if names else "nothing is known here"


def _faults(cls: type[BaseModel], error: ValidationError, where: str) -> list[str]:
    lines = []
    for fault in error.errors():
        path = ".".join([where, *(str(part) for part in fault["loc"])])
        if fault["type"] == "extra_forbidden":
            hint = nearest(str(fault["loc"][-1]), _known_keys(cls, fault["loc"][:-1]))
            lines.append(f"{path}: unknown key; {hint}")
        elif fault["type"] == "missing":
            lines.append(f"{path}: missing; add it (the shipped params.yaml shows and explains every key)")
        else:
            lines.append(f"{path}: value is {fault['input']!r}; {fault['msg'][0].lower()}{fault['msg'][1:]}")
    return lines


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping as plain dicts, lists and scalars.

    Raises:
        ParamsError: the file is missing, isn't YAML, or isn't a mapping.
    """
    if not path.is_file():
        raise ParamsError(f"{path}: no such file; run from the root of the repository, or name the right file")
    try:
        data = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ParamsError(f"{path}: holds a {type(data).__name__}, expected a mapping of sections")
    return data


def preset_path(name: str, folder: Path = PRESET_DIR) -> Path:
    """File of the preset `name`.

    Raises:
        ParamsError: there is no such preset; the message lists near names.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ParamsError(f"preset {name!r}: no file {path.name}; {nearest(name, preset_names(folder))}")
    return path


def preset_names(folder: Path = PRESET_DIR) -> list[str]:
    """Names of all presets, sorted."""
    return sorted(item.stem for item in folder.glob("*.yaml"))


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`: mappings merge, everything else replaces; keys that `base` lacks are refused by the sections.

    A mapping that gives `_replace: true` replaces the one below it whole (lists of layers have no keys in common).
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and value.get("_replace"):
            merged[key] = {name: item for name, item in value.items() if name != "_replace"}
        elif isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = overlay(below, value)
        else:
            merged[key] = value
    return merged


def get_dotted(values: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - YAML holds anything
    """The value at a dotted path.

    Raises:
        ParamsError: some part of the path is missing; names the nearest key.
    """
    current: Any = values
    seen: list[str] = []
    for part in path.split("."):
        if not isinstance(current, Mapping) or part not in current:
            known = current.keys() if isinstance(current, Mapping) else []
            raise ParamsError(f"params.yaml: {'.'.join([*seen, part])} is missing; {nearest(part, known)}")
        current = current[part]
        seen.append(part)
    return current


def load_sections(values: Mapping[str, Any], wanted: Mapping[str, type[Section]]) -> dict[str, Section]:
    """Every wanted section, or one error with all the faults of all of them.

    Args:
        values: the whole params file.
        wanted: section name to its class.

    Raises:
        ParamsError: a line per fault.
    """
    faults: list[str] = []
    sections: dict[str, Section] = {}
    for name, cls in wanted.items():
        if name not in values:
            faults.append(f"{name}: the section is missing; {nearest(name, values)}")
            continue
        try:
            sections[name] = cls.parse(values[name], name)
        except ParamsError as error:
            faults.append(str(error))
    if faults:
        lines = "\n".join(faults).splitlines()
        raise ParamsError(f"{len(lines)} fault{'s' * (len(lines) > 1)} in the params:\n  " + "\n  ".join(lines))
    return sections


def load_section(cls: type[SectionT], name: str, values: Mapping[str, Any] | None = None) -> SectionT:
    """One section of params.yaml (or of `values`).

    Raises:
        ParamsError: as `load_sections`.
    """
    section = load_sections(read_yaml(PARAMS_FILE) if values is None else values, {name: cls})[name]
    if not isinstance(section, cls):
        raise TypeError(f"section {name!r} is a {type(section).__name__}, expected a {cls.__name__}")
    return section


def load_params(head: str = "default") -> dict[str, Any]:
    """params.yaml as plain values, with the preset of `head` laid over it.

    Args:
        head: an entry of `heads`; `default` is params.yaml as it stands.

    Raises:
        ParamsError: no such preset, or one that touches sections that don't belong to a head.
    """
    return with_preset(read_yaml(PARAMS_FILE), head)


def with_preset(values: Mapping[str, Any], head: str) -> dict[str, Any]:
    """The preset of `head` laid over the params `values`.

    Raises:
        ParamsError: as `load_params`.
    """
    over = read_yaml(preset_path(head, PRESET_DIR))
    alien = sorted(set(over) - HEAD_SECTIONS)
    if alien:
        raise ParamsError(
            f"heads: preset {head!r} sets {', '.join(alien)}, expected only {', '.join(sorted(HEAD_SECTIONS))}; "
            f"a preset of data or extractor is written into params.yaml by `roiseg preset apply {head}`"
        )
    return overlay(values, over)


HEAD_SECTIONS = frozenset({"dataset", "sampler", "model", "loss", "train", "evaluate", "export"})
"""Sections that differ between the heads of one DAG."""
