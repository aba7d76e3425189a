"""Figures of an evaluation once more, cell by cell in plain Python, for tests to compare with."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grid = list[list[int]]
Maybe = float | None


def grid(mask: NDArray[Any]) -> Grid:
    """A mask as lists of 0 and 1, or of labels."""
    rows: Grid = mask.astype(int).tolist()
    return rows


def quotient(part: float, whole: float) -> Maybe:
    """None where there is nothing to measure."""
    return part / whole if whole else None


def mean(values: Sequence[Maybe]) -> Maybe:
    """Of those that are there."""
    kept = [value for value in values if value is not None]
    return sum(kept) / len(kept) if kept else None


def slow_iou(predicted: NDArray[Any], labels: NDArray[Any], label: int) -> Maybe:
    """Of one class, over whatever is given."""
    shared = union = 0
    for guess, truth in zip(predicted.ravel().tolist(), labels.ravel().tolist(), strict=True):
        shared += guess == truth == label
        union += label in (guess, truth)
    return quotient(shared, union)


def slow_mask_figures(predicted: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """What follows from R masks (R, h, w)."""
    pairs = list(zip(predicted, labels, strict=True))
    target, other = ([slow_iou(guess, truth, label) for guess, truth in pairs] for label in (1, 2))
    whole = [slow_iou(predicted, labels, label) for label in (0, 1, 2)]
    cells = list(zip(predicted.ravel().tolist(), labels.ravel().tolist(), strict=True))
    found: dict[str, Maybe] = {
        "miou_fg_roi": mean([mean(target), mean(other)]),
        "iou_target_roi": mean(target),
        "iou_nontarget_roi": mean(other),
        "miou_fg_pooled": mean(target + other),
        "miou_fg_dataset": mean(whole[1:]),
        "iou_bg": whole[0],
        "miou_3class": mean(whole),
        "pixel_accuracy": mean([float(guess == truth) for guess, truth in cells]),
        "detection_rate_50": mean([None if value is None else float(value >= 0.5) for value in target]),
        "detection_rate_70": mean([None if value is None else float(value >= 0.7) for value in target]),
    }
    for label, name in enumerate(("bg", "target", "nontarget")):
        precision = mean([float(truth == label) for guess, truth in cells if guess == label])
        recall = mean([float(guess == label) for guess, truth in cells if truth == label])
        found |= {f"precision_{name}": precision, f"recall_{name}": recall}
        if precision and recall:
            found[f"f1_{name}"] = 2 / (1 / precision + 1 / recall)
        else:
            found[f"f1_{name}"] = None if precision is None and recall is None else 0.0
    return {name: value for name, value in found.items() if value is not None}


def slow_band(mask: NDArray[Any], width: int) -> set[tuple[int, int]]:
    """Pixels of a mask with something else, or the border, within `width` rows and columns."""
    rows = grid(mask)
    inside = {(y, x) for y, row in enumerate(rows) for x, value in enumerate(row) if value}
    near = range(-width, width + 1)
    return {(y, x) for y, x in inside if any((y + down, x + right) not in inside for down in near for right in near)}


def slow_boundary(predicted: NDArray[Any], annotated: NDArray[Any]) -> tuple[int, int]:
    """Pixels in both bands and in either, of two masks of one grid."""
    width = max(1, round(0.02 * sqrt(squared_diagonal(predicted))))
    first, second = slow_band(predicted, width), slow_band(annotated, width)
    return len(first & second), len(first | second)


def squared_diagonal(mask: NDArray[Any]) -> int:
    """Square of the diagonal of a grid."""
    return int(mask.shape[0] ** 2 + mask.shape[1] ** 2)


def slow_separation(
    annotated: NDArray[Any], predicted: NDArray[Any], probability: NDArray[Any], ids: Sequence[int]
) -> list[tuple[int, int]]:
    """Pixels given to the right person, and pixels, of each person who touches another.

    Args:
        annotated: (r, H, W) masks.
        predicted: (r, H, W) masks.
        probability: (r, H, W) of the target.
        ids: r numbers; of two people with the same probability the lower one has the pixel.
    """
    owned = [{(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)} for mask in annotated]
    found = []
    for number, mine in enumerate(owned):
        others = set().union(*(item for other, item in enumerate(owned) if other != number))
        touches = any((y + down, x + right) in others for y, x in mine for down in (-1, 0, 1) for right in (-1, 0, 1))
        right = 0
        for y, x in mine if touches else ():
            claims = [(-float(probability[other, y, x]), ids[other], other) for other in range(len(ids)) if predicted[other, y, x]]
            right += bool(claims) and (y, x) in owned[min(claims)[2]]
        found.append((right, len(mine) if touches else 0))
    return found
