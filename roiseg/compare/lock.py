"""Whether figures were made with the params and weights that lie beside them, by what `dvc repro` wrote into dvc.lock."""

from collections.abc import Iterator, Mapping
from typing import Any

from roiseg.params import PARAMS_FILE

LOCK = "dvc.lock"
RGB = "rgb"
"""The head that has a section and stages of its own; `roiseg.rgb.NAME`, without the seconds that importing torch takes."""
NAMED = 3
"""Keys that a remark names."""


def outdated(lock: Mapping[str, Any], params: Mapping[str, Any], head: str) -> str | None:
    """What shows that the figures of a head are of an earlier state; None: nothing does.

    Args:
        lock: dvc.lock.
        params: params.yaml, without the head's preset.
        head: name of the head.
    """
    names = [f"{head}_{stage}" if head == RGB else f"{stage}@{head}" for stage in ("train", "evaluate")]
    stages = [(lock.get("stages") or {}).get(name) or {} for name in names]
    keys = sorted({key for stage in stages for key in _changed((stage.get("params") or {}).get(str(PARAMS_FILE)) or {}, params)})
    if keys:
        more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
        return f"figures are of other params than {PARAMS_FILE} ({', '.join(keys[:NAMED])}{more}); `dvc repro` makes them anew"
    made, read = (
        {item["path"]: item.get("md5") for item in stage.get(kind) or []}
        for stage, kind in zip(stages, ("outs", "deps"), strict=True)
    )
    if any(made[path] != read[path] for path in made.keys() & read.keys()):
        return "figures are of other weights than were trained last; `dvc repro` makes them anew"
    return None


def _changed(recorded: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[str]:
    """Keys of which DVC recorded another value; it writes those of a part of a section with dots."""
    now = dict(flatten(params))
    for name, value in recorded.items():
        before = dict(flatten({name: value}))
        after = {key: item for key, item in now.items() if key == name or key.startswith(f"{name}.")}
        yield from (key for key in {*before, *after} if before.get(key) != after.get(key))


def flatten(params: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; but for `heads`, which says what else ran beside a head."""
    for key, value in params.items():
        path = f"{where}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{path}.")
        elif path != "heads":
            yield path, value
