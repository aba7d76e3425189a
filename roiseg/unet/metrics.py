"""Figures of people nets: two classes, whole images. No figure of heads, of three classes on ROIs, has one of these names.

Symbols: B images, N of them so far, (h, w) cells of the map. Confusions have labels as rows, answers as columns, background first.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roiseg.evaluate.confusion import ious
from roiseg.geometry import Floats

PERSON = 1
LEAD = "miou_2class"
"""Figure that picks the best epoch."""

Counts = NDArray[np.int64]


def people_confusions(answers: Tensor, people: Tensor) -> Counts:
    """Confusion matrix of every image.

    Args:
        answers: (B, 1, h, w) bool.
        people: (B, 1, h, w) bool, on the same device.

    Returns:
        (B, 2, 2) pixel counts.

    Raises:
        ValueError: the shapes differ.
    """
    if answers.shape != people.shape:
        raise ValueError(f"maps of people: {tuple(answers.shape)} against {tuple(people.shape)}, expected one shape")
    both = (answers & people).flatten(1).sum(dim=1)
    answered, there = answers.flatten(1).sum(dim=1), people.flatten(1).sum(dim=1)
    neither = people.shape[1:].numel() - answered - there + both
    counts = torch.stack([neither, answered - both, there - both, both], dim=1)
    return counts.reshape(-1, 2, 2).cpu().numpy().astype(np.int64)


class PersonMetrics:
    """Collects four counts of every image against the annotation, four more against a teacher, and no map."""

    def __init__(self) -> None:
        self._truth: list[Counts] = []
        self._teacher: list[Counts] = []

    @classmethod
    def together(cls, metrics: Sequence["PersonMetrics"]) -> "PersonMetrics":
        """What several have counted; their order changes no figure."""
        found = cls()
        found._truth = [part for item in metrics for part in item._truth]
        found._teacher = [part for item in metrics for part in item._teacher]
        return found

    def add(self, logits: Tensor, masks: Tensor, teacher: Tensor | None = None) -> None:
        """Count a batch, on the device it is on.

        Args:
            logits: (B, 1, h, w) of a net; a pixel is a person's where they are above 0.
            masks: (B, 1, h, w), 1 on annotated people and 0 elsewhere.
            teacher: (B, 1, h, w) logits of the teacher, if there is one.

        Raises:
            ValueError: the shapes differ.
        """
        answers = logits > 0
        self._truth.append(people_confusions(answers, masks > 0.5))
        if teacher is not None:
            self._teacher.append(people_confusions(answers, teacher > 0))

    def figures(self) -> dict[str, float]:
        """All figures so far, flat.

        * `miou_2class`: mean over images of the mean of background IoU and person IoU; of an image, a class that is neither there
          nor answered is skipped, and one answered where there is none counts 0.
        * `iou_person`, `iou_background`: mean over images of one class, with the same rule.
        * `miou_2class_pooled`: intersections and unions summed over the images, mean of both classes.
        * `precision_person`, `recall_person`: pixels over all images; a net that finds nobody has precision 0.
        * `agreement`: as `miou_2class`, with the teacher's map in the place of the annotation.
        * `agreement_pixels`: share of the pixels of all images where net and teacher say the same.

        Which figures there are follows from the images, not from the answers, so that every epoch has the same: a class that is
        annotated nowhere has none of its own, and without a teacher there is no agreement. Without an image there is none at all.
        """
        return _against_truth(_joined(self._truth)) | _against_teacher(_joined(self._teacher))


def _joined(parts: Sequence[Counts]) -> Counts:
    """(N, 2, 2)."""
    return np.concatenate([np.zeros((0, 2, 2), dtype=np.int64), *parts])


def _mean(values: Floats) -> float:
    """Mean of those that are numbers, the same to the last bit in whatever order they come; NaN where none is."""
    defined = values[~np.isnan(values)]
    return math.fsum(defined.tolist()) / len(defined) if len(defined) else math.nan


def _of_images(confusions: Counts) -> Floats:
    """(N,) mean of each image's IoUs that are defined; an image of one pixel or more has one."""
    return np.array([_mean(item) for item in ious(confusions)], dtype=np.float64)


def _against_truth(confusions: Counts) -> dict[str, float]:
    if not len(confusions):
        return {}
    per_image, total = ious(confusions), confusions.sum(axis=0)
    found = {LEAD: _mean(_of_images(confusions)), "miou_2class_pooled": _mean(ious(total))}
    right, answered, there = int(total[PERSON, PERSON]), int(total[:, PERSON].sum()), int(total[PERSON].sum())
    if there:
        found["iou_person"] = _mean(per_image[:, PERSON])
        found["precision_person"] = right / answered if answered else 0.0
        found["recall_person"] = right / there
    if total[0].sum():
        found["iou_background"] = _mean(per_image[:, 0])
    return found


def _against_teacher(confusions: Counts) -> dict[str, float]:
    if not len(confusions):
        return {}
    total = confusions.sum(axis=0)
    return {"agreement": _mean(_of_images(confusions)), "agreement_pixels": float(np.trace(total) / total.sum())}
