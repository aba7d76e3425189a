"""How near boxes come to the truth (spec 21.9): overlap, edges and corners, in pixels of the image and of the crop.

Names of figures: `mean_iou`, `share_iou_above_90`, and of each *thing*

    {thing}_px_mean        {thing}_share_within_1px        {thing}_share_within_3px         pixels of the image
    {thing}_crop_px_mean   {thing}_crop_share_within_1px   {thing}_crop_share_within_3px    pixels of the window at 224x224

where the things are `edge` (all four of all boxes), `edge_left` ..., `corner_l1`, `corner_l1_top_left` ..., `corner_euclidean`,
`corner_euclidean_top_left` .... Shares count what is at most so many pixels off, the limit included. "Find and Snap" and its heirs
say "corner deviance" of both distances, which differ by up to 1.41: here the name tells which.

In crop pixels, too, it is the whole truth that counts, also where it lies outside the window: no edge is excused by a window that
was too small.

Symbols: N boxes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roiseg.errors import PredictionError
from roiseg.geometry import Floats, paired_box_iou
from roiseg.snapper.results import SnapResults
from roiseg.snapper.windows import EDGES

LEAD = "mean_iou"

FIGURES = (LEAD, "share_iou_above_90", "edge_px_mean", "edge_share_within_1px", "edge_share_within_3px")
"""Figures of an epoch, of all those that `evaluate` tells."""

CROP_PX = 224
"""Side of the square that a window is resized to in the figures of `crop`, whatever a model looks at: the published one."""

WITHIN_PX = (1, 3)
"""Limits of the shares, included."""

HIGH_IOU = 0.9

CORNERS = {"top_left": (0, 1), "top_right": (2, 1), "bottom_left": (0, 3), "bottom_right": (2, 3)}
"""Which two edges meet in a corner."""

_DIGITS = 6
"""Decimals that thresholds look at: a box that was in other frames is off by less than 1e-9, which must not decide."""


@dataclass(frozen=True)
class BoxMeasures:
    """How far each of N boxes is off.

    Attributes:
        iou: (N,) with the truth.
        edges_px: (N, 4) distance of each edge to its true place, pixels of the image.
        edges_crop_px: (N, 4), pixels of the window at `CROP_PX`.
    """

    iou: Floats
    edges_px: Floats
    edges_crop_px: Floats


def measure(results: SnapResults, boxes: Floats) -> BoxMeasures:
    """How far boxes (N, 4) xyxy, image frame, are from the truth of `results`.

    Raises:
        PredictionError: a box isn't finite.
    """
    broken = np.flatnonzero(~np.isfinite(boxes).all(axis=1))
    if len(broken):
        first = int(broken[0])
        raise PredictionError(
            f"The box of annotation {results.annotation_ids[first]} is {boxes[first].tolist()}, one of {len(broken)} like it; "
            "expected finite numbers: the model diverged; train it again with a lower snapper.train.lr"
        )
    edges = np.abs(boxes - results.truth)
    sides = results.windows[:, 2:] - results.windows[:, :2]
    return BoxMeasures(paired_box_iou(boxes, results.truth), edges, edges * (CROP_PX / np.tile(sides, 2)))


def snap_figures(results: SnapResults) -> dict[str, float]:
    """Figures of the snapped boxes; the same to the last bit in whatever order they come.

    Raises:
        PredictionError: a box isn't finite.
    """
    return box_figures(results, results.snapped)


def box_figures(results: SnapResults, boxes: Floats) -> dict[str, float]:
    """The figures of the module's head of any boxes (N, 4) xyxy, image frame, one for each of `results`; none where N is 0.

    Raises:
        PredictionError: a box isn't finite.
    """
    return figures_of(measure(results, boxes))


def figures_of(measures: BoxMeasures) -> dict[str, float]:
    """Means and shares of measures; none where there are none."""
    if not len(measures.iou):
        return {}
    found = {LEAD: exact_mean(measures.iou), "share_iou_above_90": exact_mean(high_iou(measures.iou))}
    for unit, edges in (("", measures.edges_px), ("_crop", measures.edges_crop_px)):
        for thing, values in _things(edges).items():
            found[f"{thing}{unit}_px_mean"] = exact_mean(values)
            for limit in WITHIN_PX:
                found[f"{thing}{unit}_share_within_{limit}px"] = exact_mean(within(values, limit))
    return found


def exact_mean(values: Floats | NDArray[np.bool_]) -> float:
    """Mean of values of any shape, rounded once, so that it doesn't depend on their order; at least one of them."""
    if values.dtype == np.bool_:
        return int(np.count_nonzero(values)) / values.size
    return math.fsum(values.ravel().tolist()) / values.size


def within(distances: Floats, limit: float) -> NDArray[np.bool_]:
    """Which distances (...) are at most `limit`."""
    return np.asarray(distances.round(_DIGITS) <= limit)


def high_iou(iou: Floats) -> NDArray[np.bool_]:
    """Which overlaps (...) are above `HIGH_IOU`."""
    return np.asarray(iou.round(_DIGITS) > HIGH_IOU)


def _things(edges: Floats) -> dict[str, Floats]:
    """Distances (N, 4) of edges as what figures are about: name -> (N, 4) or (N,)."""
    corners = {name: edges[:, list(pair)] for name, pair in CORNERS.items()}
    l1 = {name: pair.sum(axis=1) for name, pair in corners.items()}
    euclidean = {name: np.sqrt(pair[:, 0] ** 2 + pair[:, 1] ** 2) for name, pair in corners.items()}
    found = {"edge": edges} | {f"edge_{name}": edges[:, place] for place, name in enumerate(EDGES)}
    for kind, by_corner in (("corner_l1", l1), ("corner_euclidean", euclidean)):
        found[kind] = np.stack(list(by_corner.values()), axis=1)
        found |= {f"{kind}_{name}": values for name, values in by_corner.items()}
    return found
