"""Precision and recall of scored results, from what pycocotools matched them with.

Symbols: D results, T = 10 thresholds of IoU, A = 4 ranges of area, I images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from roiseg.geometry import Floats

IOUS: Floats = np.linspace(0.5, 0.95, 10)
RECALLS: Floats = np.linspace(0.0, 1.0, 101)

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Matches:
    """What became of D results: 100 bytes each, and no mask.

    Attributes:
        images: (D,) positions of their images.
        ranks: (D,) place by score within the image, from 0.
        scores: (D,) float64.
        matched: (D, A, T) whether it has found a person.
        ignored: (D, A, T) whether it neither counts for nor against: what it has found, or itself, is of another size.
    """

    images: NDArray[np.int64]
    ranks: NDArray[np.int64]
    scores: Floats
    matched: Bools
    ignored: Bools

    @classmethod
    def together(cls, parts: Sequence["Matches"], ranges: int) -> "Matches":
        """Those of several parts, best score first; of equal scores the first image, then the first rank, as pycocotools has them.

        Args:
            parts: in any order.
            ranges: A, for no parts at all.
        """
        none = cls(*(np.zeros(0, dtype=np.int64),) * 2, np.zeros(0), *(np.zeros((0, ranges, len(IOUS)), dtype=bool),) * 2)
        names = ("images", "ranks", "scores", "matched", "ignored")
        images, ranks, scores, matched, ignored = (
            np.concatenate([getattr(part, name) for part in (none, *parts)]) for name in names
        )
        order = np.lexsort((ranks, images, -scores))
        return cls(images[order], ranks[order], scores[order], matched[order], ignored[order])

    def first(self, count: int, area: int) -> "Ranked":
        """The best `count` results of each image, in one range of area."""
        kept = self.ranks < count
        return Ranked(self.images[kept], self.matched[kept, area].T, self.ignored[kept, area].T)


@dataclass(frozen=True)
class Ranked:
    """Results of one range of area, best score first.

    Attributes:
        images: (D,) positions of their images.
        matched: (T, D).
        ignored: (T, D).
    """

    images: NDArray[np.int64]
    matched: Bools
    ignored: Bools

    def curves(self, weights: Floats, positives: float) -> tuple[Floats, Floats]:
        """COCO's interpolated precision: at each recall the best precision there or further on.

        Lin et al., "Microsoft COCO" (2014), as `COCOeval.accumulate` of pycocotools computes it.

        Args:
            weights: (I,) how often each image is there; all 1 for the data set itself.
            positives: people to find, weighted likewise (> 0).

        Returns:
            Precision (T, 101) at the recalls 0, 0.01, ... 1, and the recall reached (T,).
        """
        found, ends = np.zeros((len(IOUS), len(RECALLS))), np.zeros(len(IOUS))
        for number, (images, places) in enumerate(self._counted):
            right = np.cumsum(weights[images[places]])
            if not len(right):
                continue
            recall = right / positives
            precision = right / (np.cumsum(weights[images])[places] + np.spacing(1))
            best = np.maximum.accumulate(precision[::-1])[::-1]
            # Recall beyond what is reached reads a zero.
            found[number] = np.append(best, 0.0)[np.searchsorted(recall, RECALLS)]
            ends[number] = recall[-1]
        return found, ends

    @cached_property
    def _counted(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """At each IoU the images of the results that count, and which of these are right.

        Precision falls with each wrong result, so that its best is at a right one.
        """
        parts = []
        for matched, ignored in zip(self.matched, self.ignored, strict=True):
            kept = np.flatnonzero(~ignored)
            parts.append((self.images[kept], np.flatnonzero(matched[kept])))
        return parts
