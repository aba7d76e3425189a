"""A comparison as plain values, for programs."""

import json
from dataclasses import asdict
from typing import Any

from roiseg.compare.comparison import Comparison
from roiseg.compare.differences import Change
from roiseg.compare.runs import Figure
from roiseg.compare.settings import NOT_THERE


def document(comparison: Comparison) -> dict[str, Any]:
    """Everything, with runs named by their labels; what JSON can hold.

    Params of a run are null where they aren't known; a key that a run hasn't got is left out of its values.
    """
    labels = comparison.labels
    return {
        "base": labels[comparison.base],
        "metrics": list(comparison.metrics),
        "runs": [
            {
                "label": label,
                "run": run.name,
                "head": run.head,
                "figures": {metric: _figure(run.figure(metric)) for metric in comparison.metrics},
                "costs": dict(run.costs),
            }
            for label, run in zip(labels, comparison.runs, strict=True)
        ],
        "differences": [
            {"label": labels[place], **_change(change)} for place, changes in comparison.changes.items() for change in changes
        ],
        "strata": [
            {"label": labels[place], "group": item.group, "stratum": item.stratum, "rois": item.rois, **_change(item.change)}
            for place, items in comparison.strata.items()
            for item in items
        ],
        "params": [
            {
                "key": item.key,
                "values": {labels[place]: _value(value) for place, value in item.values.items() if value is not NOT_THERE},
            }
            for item in comparison.settings
        ],
        "features": [asdict(item) for item in comparison.impacts],
        "notes": list(comparison.notes),
    }


def _figure(figure: Figure | None) -> dict[str, float | None] | None:
    return None if figure is None else asdict(figure)


def _change(change: Change) -> dict[str, Any]:
    return {**asdict(change), "clear": change.clear}


def _value(value: object) -> Any:  # noqa: ANN401 - YAML holds anything
    """What YAML has and JSON hasn't, dates and infinities, as text."""
    return json.loads(json.dumps(value, default=str), parse_constant=str)
