"""Tables of ROIs for tests: made from masks, or at random."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from roiseg.evaluate.table import RoiTable

Labels = NDArray[np.uint8]


def masks(*rows: str) -> Labels:
    """One ROI a text, such as '001/122'."""
    return np.array([[[int(cell) for cell in line] for line in text.split("/")] for text in rows], dtype=np.uint8)


def table_of(confusions: NDArray[np.int64], image_ids: Sequence[int] | NDArray[np.int64] | None = None) -> RoiTable:
    """ROIs with these confusion matrices, an image each unless told otherwise; all people are medium, whole and hit by half.

    Args:
        confusions: (R, 3, 3).
        image_ids: of the R ROIs.
    """
    count = len(confusions)
    pairs = np.tile(np.array([[1, 2]], dtype=np.int64), (count, 1))
    return RoiTable(
        image_ids=np.arange(count, dtype=np.int64) if image_ids is None else np.asarray(image_ids, dtype=np.int64),
        annotation_ids=np.arange(count, dtype=np.int64) + 100,
        boxes_image=np.tile(np.array([[10.0, 20.0, 60.0, 80.0]]), (count, 1)),
        areas=np.full(count, 2000.0),
        truncated=np.zeros(count, dtype=bool),
        confusions=np.asarray(confusions, dtype=np.int64),
        boundary_crop=pairs,
        boundary_image=pairs.copy(),
        separation=pairs.copy(),
        scores=np.full(count, 0.5),
    )


def random_table(rng: np.random.Generator, images: int, rois: int) -> RoiTable:
    """ROIs of all kinds: with and without class 2, missed, found, of all sizes, with and without neighbours.

    Args:
        rng: source of the draws.
        images: ids are drawn from so many.
        rois: R.
    """

    def part_of(most: int) -> NDArray[np.int64]:
        whole = rng.integers(0, most, rois)
        return np.stack([rng.integers(0, whole + 1), whole], axis=1)

    confusions = rng.integers(0, 50, (rois, 3, 3))
    confusions[rng.random(rois) < 0.3, 2] = 0
    confusions[rng.random(rois) < 0.3, :, 2] = 0
    confusions[rng.random(rois) < 0.1, 1, 1] = 0
    confusions[:, 0, 0] += 1
    low = rng.uniform(0, 300, (rois, 2))
    return RoiTable(
        image_ids=np.sort(rng.integers(0, max(images, 1), rois)) * 3 + 1,
        annotation_ids=rng.permutation(rois).astype(np.int64),
        boxes_image=np.concatenate([low, low + rng.uniform(1, 200, (rois, 2))], axis=1),
        areas=rng.uniform(1, 20_000, rois),
        truncated=rng.random(rois) < 0.4,
        confusions=confusions,
        boundary_crop=part_of(30),
        boundary_image=part_of(3),
        separation=part_of(4),
        scores=rng.random(rois),
    )
