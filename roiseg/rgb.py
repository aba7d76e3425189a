"""Section `rgb`: the head on pixels and the U-net's map, through everything that heads go through."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roiseg.defaults import filled
from roiseg.errors import ParamsError
from roiseg.onnx_names import PERSON_LOGITS
from roiseg.params import nearest
from roiseg.trained import HeadSections
from roiseg.types import TEACHER

NAME = "rgb"
"""What the head's files are called."""

PARTS = ("dataset", "sampler", "model", "loss", "train", "evaluate", "export")
"""Sub-sections; each has the keys of the section of its name."""

MODELS = Path("models/rgb")


def rgb_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The params with the sub-sections of `rgb` in the place of the sections of heads.

    Args:
        values: params.yaml as plain values.

    Raises:
        ParamsError: the section is missing, or holds something else.
    """
    given = values.get(NAME)
    if not isinstance(given, Mapping):
        raise ParamsError(f"{NAME}: value is {given!r}, expected a mapping of {', '.join(PARTS)}")
    unknown = [name for name in given if name not in PARTS]
    if unknown:
        raise ParamsError("\n".join(f"{NAME}.{name}: unknown key; {nearest(name, PARTS)}" for name in unknown))
    if not isinstance(given.get("model"), Mapping):
        raise ParamsError(f"{NAME}.model: value is {given.get('model')!r}, expected a mapping of keys of `model`")
    parts = {name: filled(name, given.get(name, {}), f"{NAME}.{name}") for name in PARTS if name != "model"}
    return {**values, **parts, "model": dict(given["model"])}


def as_backbone(sections: HeadSections) -> HeadSections:
    """The sections as they describe files of the head: its one cached layer is what the U-net gives, as float16.

    Args:
        sections: that the head is trained by.
    """
    extractor = sections.extractor.model_copy(update={"layers": {TEACHER: PERSON_LOGITS}, "detections": None})
    cache = sections.cache.model_copy(update={"dtype": "float16"})
    return HeadSections(extractor, cache, sections.dataset, sections.model, sections.reader)
