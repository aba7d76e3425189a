"""The figures of an evaluation, each under the name that says what it is, and their breakdown by kind of ROI.

Symbols: R ROIs, S sums.
"""

import numpy as np

from roiseg.evaluate.confusion import SUMS as CONFUSION_SUMS
from roiseg.evaluate.confusion import confusion_figures, confusion_sums, defined, share, value_and_presence
from roiseg.evaluate.strata import GROUPS, strata
from roiseg.evaluate.table import RoiTable
from roiseg.geometry import Floats

SUMS = (
    *CONFUSION_SUMS,
    "boundary_crop",
    "rois_boundary_crop",
    "boundary_image",
    "rois_boundary_image",
    "separation_right",
    "separation_pixels",
)
"""What `roi_sums` counts for each ROI; `rois_*` is 1 where there is something to measure."""

COUNTED = ("rois_target", "rois_nontarget", "separation_pixels")
"""Sums that are told with the figures: over how many ROIs a mean runs, or pixels a share."""

BROKEN_DOWN = ("miou_fg_roi", "iou_target_roi", "iou_nontarget_roi", "f1_target", "boundary_iou_crop", "detection_rate_50")
"""Figures of each stratum."""


def roi_sums(table: RoiTable) -> Floats:
    """What is summed over ROIs.

    Returns:
        (R, S), columns as `SUMS`.
    """
    columns = [confusion_sums(table.confusions)]
    for counts in (table.boundary_crop, table.boundary_image):
        columns += value_and_presence(share(counts[:, 0], counts[:, 1]))
    return np.concatenate([*columns, table.separation], axis=1)


def figures_of(sums: Floats) -> dict[str, Floats]:
    """Figures of any number of sets of ROIs.

    * All of `confusion_figures`.
    * `boundary_iou_crop`, `boundary_iou_image`: boundary IoU of the target, mean over ROIs; see `roiseg.evaluate.boundary`.
    * `separation_accuracy`: see `roiseg.evaluate.separation`.

    Args:
        sums: (..., S), see `roi_sums`.

    Returns:
        Name -> (...), NaN where there is nothing to measure.
    """
    summed = dict(zip(SUMS, np.moveaxis(sums, -1, 0), strict=True))
    return confusion_figures(sums[..., : len(CONFUSION_SUMS)]) | {
        "boundary_iou_crop": share(summed["boundary_crop"], summed["rois_boundary_crop"]),
        "boundary_iou_image": share(summed["boundary_image"], summed["rois_boundary_image"]),
        "separation_accuracy": share(summed["separation_right"], summed["separation_pixels"]),
    }


def roi_figures(table: RoiTable) -> dict[str, float]:
    """All figures of a table, flat, and how many images, ROIs and pixels they are of.

    Returns:
        See `figures_of`; a figure without anything to measure is left out. Then `images`, `rois`, and of these `rois_target` and
        `rois_nontarget`, where that class is annotated or predicted; `separation_pixels`.
    """
    total = roi_sums(table).sum(axis=0)
    counts = {name: int(total[SUMS.index(name)]) for name in COUNTED}
    return defined(figures_of(total)) | {"images": len(np.unique(table.image_ids)), "rois": len(table)} | counts


def breakdown(table: RoiTable) -> list[dict[str, object]]:
    """The figures of `BROKEN_DOWN` for each kind of ROI.

    Returns:
        A row for each stratum of each group, also where no ROI is in it: `group`, `stratum`, `rois`, `images`, and the figures,
        None where there is nothing to measure.
    """
    found, rows = strata(table), []
    for group, names in GROUPS.items():
        for stratum in names:
            figures = roi_figures(table.part(found[group] == stratum))
            counts: dict[str, object] = {name: figures[name] for name in ("rois", "images")}
            rows.append({"group": group, "stratum": stratum} | counts | {name: figures.get(name) for name in BROKEN_DOWN})
    return rows
