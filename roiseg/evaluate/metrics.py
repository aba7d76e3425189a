"""The mIoU figures, each under the name that says what it is.

Symbols: R ROIs, K = 3 classes, (h, w) cells of the mask.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from roiseg.masks import BACKGROUND, NON_TARGET, TARGET

CLASSES = 3


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


def ious(confusions: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU (..., K) of confusion matrices (..., K, K); NaN where a class is neither there nor predicted."""
    shared = np.diagonal(confusions, axis1=-2, axis2=-1).astype(np.float64)
    union = confusions.sum(-1) + confusions.sum(-2) - shared
    return np.asarray(np.divide(shared, union, out=np.full_like(shared, np.nan), where=union > 0))


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what isn't NaN; 0 where nothing is left, as a data set without any such region has nothing right about it."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else 0.0


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
        """All figures, flat.

        * `iou_target_roi`, `iou_nontarget_roi`: mean over ROIs; a class that is neither there nor predicted is skipped, a
          region predicted where none is counts 0.
        * `miou_fg_roi`: mean of those two. The figure that leads.
        * `miou_fg_pooled`: mean over the ROI values of both classes in one pool, which rewards never predicting class 2.
        * `miou_fg_dataset`: intersections and unions summed over the data set, mean of classes 1 and 2.
        * `iou_bg`, `miou_3class`: likewise over the data set, for the background and for all three.
        * `pixel_accuracy`, `target_precision`, `target_recall`: pixels over the data set.
        * `detection_rate_50`, `detection_rate_70`: share of ROIs whose target IoU is at least 0.5, 0.7.
        """
        confusions = self.confusions
        per_roi = ious(confusions)
        target, other = per_roi[:, TARGET], per_roi[:, NON_TARGET]
        total = confusions.sum(axis=0)
        whole = np.nan_to_num(ious(total))
        pixels = max(int(total.sum()), 1)
        hits = np.nan_to_num(target)
        return {
            "miou_fg_roi": (_mean(target) + _mean(other)) / 2,
            "iou_target_roi": _mean(target),
            "iou_nontarget_roi": _mean(other),
            "miou_fg_pooled": _mean(per_roi[:, TARGET:]),
            "miou_fg_dataset": float(whole[TARGET:].mean()),
            "iou_bg": float(whole[BACKGROUND]),
            "miou_3class": float(whole.mean()),
            "pixel_accuracy": float(np.trace(total)) / pixels,
            "target_precision": float(total[TARGET, TARGET] / max(total[:, TARGET].sum(), 1)),
            "target_recall": float(total[TARGET, TARGET] / max(total[TARGET].sum(), 1)),
            "detection_rate_50": float((hits >= 0.5).mean()) if len(hits) else 0.0,
            "detection_rate_70": float((hits >= 0.7).mean()) if len(hits) else 0.0,
        }


NEVER_TWO = ("miou_fg_roi", "iou_target_roi", "miou_fg_pooled")


def with_baseline(metrics: MaskMetrics, without_two: MaskMetrics) -> dict[str, float]:
    """The figures, and beside them those of the same head if it never predicted class 2.

    Args:
        metrics: of arg-max over all classes.
        without_two: of arg-max over background and target only.
    """
    baseline: Mapping[str, float] = without_two.figures()
    return metrics.figures() | {f"never_class_2_{name}": baseline[name] for name in NEVER_TWO}
