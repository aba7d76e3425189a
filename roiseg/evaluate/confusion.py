"""Confusion matrices of ROIs, and the figures that follow from them; all that training's validation needs.

Every figure follows from sums over ROIs, so that a part of a data set, or a resample of one, is scored from the sums of its images.

Symbols: R ROIs, K = 3 classes, (h, w) cells of the mask.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from roiseg.classes import NON_TARGET, TARGET
from roiseg.geometry import Floats

CLASSES = 3

SHORT_NAMES = ("bg", "target", "nontarget")
"""Classes as the names of figures have them."""

DETECTED_AT = (50, 70)
"""IoU of the target, in percent, from which on a person counts as found."""

SUMS = (
    *(f"confusion_{label}{predicted}" for label in range(CLASSES) for predicted in range(CLASSES)),
    "iou_target",
    "rois_target",
    "iou_nontarget",
    "rois_nontarget",
    *(f"found_{percent}" for percent in DETECTED_AT),
)
"""What `confusion_sums` counts for each ROI; `rois_*` is 1 where the class is annotated or predicted."""


def roi_confusions(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Confusion matrix of every ROI.

    Args:
        predicted: (R, h, w) of 0, 1, 2.
        labels: (R, h, w) of 0, 1, 2.

    Returns:
        (R, K, K) pixel counts, rows are labels, columns are predictions.
    """
    count = len(labels)
    cells = labels.astype(np.int64) * CLASSES + predicted
    cells += np.arange(count)[:, None, None] * CLASSES**2
    return np.bincount(cells.ravel(), minlength=count * CLASSES**2).reshape(count, CLASSES, CLASSES)


def ious(confusions: NDArray[np.integer] | Floats) -> Floats:
    """IoU (..., K) of confusion matrices (..., K, K); NaN where a class is neither there nor predicted."""
    shared = np.diagonal(confusions, axis1=-2, axis2=-1).astype(np.float64)
    return share(shared, confusions.sum(-1) + confusions.sum(-2) - shared)


def share(part: NDArray[np.integer] | Floats, whole: NDArray[np.integer] | Floats) -> Floats:
    """Quotients (...) of two arrays (...), NaN where `whole` is 0: there is nothing to measure."""
    below = np.asarray(whole, dtype=np.float64)
    found = np.divide(np.asarray(part, dtype=np.float64), below, out=np.full(below.shape, np.nan), where=below > 0)
    return np.asarray(found, dtype=np.float64)


def defined_mean(values: Sequence[Floats]) -> Floats:
    """Mean (...) of several arrays (...) where they aren't NaN; NaN where all are."""
    stacked = np.stack(values)
    return share(np.nan_to_num(stacked).sum(axis=0), (~np.isnan(stacked)).sum(axis=0))


def confusion_sums(confusions: NDArray[np.int64]) -> Floats:
    """What is summed over ROIs.

    Args:
        confusions: (R, K, K).

    Returns:
        (R, len(SUMS)).
    """
    per_roi = ious(confusions)
    target = per_roi[:, TARGET]
    columns = [confusions.reshape(-1, CLASSES**2).astype(np.float64)]
    for values in (target, per_roi[:, NON_TARGET]):
        columns += value_and_presence(values)
    columns += [(target >= percent / 100)[:, None].astype(np.float64) for percent in DETECTED_AT]
    return np.concatenate(columns, axis=1)


def value_and_presence(values: Floats) -> list[Floats]:
    """Two columns (R, 1) of numbers (R,): 0 in place of NaN, and 1 where there is a number; their sums make a mean."""
    return [np.nan_to_num(values)[:, None], (~np.isnan(values))[:, None].astype(np.float64)]


def confusion_figures(sums: Floats) -> dict[str, Floats]:
    """Figures of any number of sets of ROIs.

    * `iou_target_roi`, `iou_nontarget_roi`: mean over ROIs; a class that is neither there nor predicted is skipped, a
      region predicted where none is counts 0.
    * `miou_fg_roi`: mean of those two. The figure that leads.
    * `miou_fg_pooled`: mean over the ROI values of both classes in one pool, which rewards never predicting class 2.
    * `miou_fg_dataset`: intersections and unions summed over the data set, mean of classes 1 and 2.
    * `iou_bg`, `miou_3class`: likewise over the data set, for the background and for all three.
    * `pixel_accuracy`: pixels over the data set; `precision_*`, `recall_*`, `f1_*` of each class likewise.
    * `detection_rate_50`, `detection_rate_70`: share of ROIs whose target IoU is at least 0.5, 0.7; without those where there is
      no target in the mask and none was predicted.

    Args:
        sums: (..., len(SUMS)), see `confusion_sums`.

    Returns:
        Name -> (...), NaN where there is nothing to measure. A mean of classes is over those that are there or were predicted.
    """
    summed = dict(zip(SUMS, np.moveaxis(sums, -1, 0), strict=True))
    total = sums[..., : CLASSES**2].reshape(*sums.shape[:-1], CLASSES, CLASSES)
    whole = [ious(total)[..., label] for label in range(CLASSES)]
    target = share(summed["iou_target"], summed["rois_target"])
    other = share(summed["iou_nontarget"], summed["rois_nontarget"])
    found = {
        "miou_fg_roi": defined_mean([target, other]),
        "iou_target_roi": target,
        "iou_nontarget_roi": other,
        "miou_fg_pooled": share(summed["iou_target"] + summed["iou_nontarget"], summed["rois_target"] + summed["rois_nontarget"]),
        "miou_fg_dataset": defined_mean(whole[TARGET:]),
        "iou_bg": whole[0],
        "miou_3class": defined_mean(whole),
        "pixel_accuracy": share(np.trace(total, axis1=-2, axis2=-1), total.sum((-2, -1))),
    }
    for percent in DETECTED_AT:
        found[f"detection_rate_{percent}"] = share(summed[f"found_{percent}"], summed["rois_target"])
    for label, name in enumerate(SHORT_NAMES):
        right, annotated, predicted = total[..., label, label], total[..., label, :].sum(-1), total[..., :, label].sum(-1)
        found[f"precision_{name}"] = share(right, predicted)
        found[f"recall_{name}"] = share(right, annotated)
        found[f"f1_{name}"] = share(2 * right, annotated + predicted)
    return found


def defined(figures: Mapping[str, Floats]) -> dict[str, float]:
    """Figures of one set of ROIs as plain numbers, without those that had nothing to measure."""
    return {name: float(value) for name, value in figures.items() if not np.isnan(value)}


VALIDATED = (
    "miou_fg_roi",
    "iou_target_roi",
    "iou_nontarget_roi",
    "miou_fg_pooled",
    "miou_fg_dataset",
    "iou_bg",
    "miou_3class",
    "pixel_accuracy",
    "precision_target",
    "recall_target",
    "detection_rate_50",
    "detection_rate_70",
)
"""Figures of each epoch of training."""


class MaskMetrics:
    """Collects the confusion matrix of every ROI, 36 bytes each, and no mask."""

    def __init__(self) -> None:
        self._confusions: list[NDArray[np.int32]] = []

    @classmethod
    def together(cls, metrics: Sequence["MaskMetrics"]) -> "MaskMetrics":
        """What several have counted, one after the other."""
        found = cls()
        found._confusions = [part for item in metrics for part in item._confusions]
        return found

    def add(self, predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> None:
        """Count a batch of ROIs: two (R, h, w) of 0, 1, 2."""
        self._confusions.append(roi_confusions(predicted, labels).astype(np.int32))

    @property
    def confusions(self) -> NDArray[np.int64]:
        """(R, K, K) of all ROIs so far."""
        if not self._confusions:
            return np.zeros((0, CLASSES, CLASSES), dtype=np.int64)
        return np.concatenate(self._confusions).astype(np.int64)

    def figures(self) -> dict[str, float]:
        """The figures of `VALIDATED`, see `confusion_figures`; 0 without anything to measure, as each epoch has them all."""
        found = defined(confusion_figures(confusion_sums(self.confusions).sum(axis=0)))
        return {name: found.get(name, 0.0) for name in VALIDATED}
