"""Kinds of ROIs that figures are broken down by: size of the person, crowdedness, truncation.

Symbols: R ROIs.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from roiseg.classes import NON_TARGET
from roiseg.evaluate.table import RoiTable

SIZES = ("small", "medium", "large")
"""By COCO's annotation area."""

SIZE_EDGES = (32.0**2, 96.0**2)
"""Square pixels from which on a person is medium, large."""

CROWDEDNESS = ("none", "under_10", "10_to_30", "over_30")
"""By the share of class 2 among the annotated cells of the ROI, in percent."""

CROWDED_PERCENT = (10, 30)

TRUNCATION = ("whole", "truncated")
"""By whether the box ends at the border of the image."""

GROUPS: Mapping[str, tuple[str, ...]] = {"size": SIZES, "crowdedness": CROWDEDNESS, "truncation": TRUNCATION}
"""Group -> its strata, in order."""


def strata(table: RoiTable) -> dict[str, NDArray[np.str_]]:
    """The stratum of each ROI in each group of `GROUPS`.

    Returns:
        Group -> (R,) names.
    """
    cells = table.confusions.sum(axis=(1, 2))
    crowd = table.confusions[:, NON_TARGET].sum(axis=1)
    low, high = CROWDED_PERCENT
    # Whole numbers, so that just 10 % and just 30 % fall on the side they should.
    crowdedness = np.select([crowd == 0, crowd * 100 < low * cells, crowd * 100 <= high * cells], [0, 1, 2], 3)
    return {
        "size": np.array(SIZES)[np.searchsorted(SIZE_EDGES, table.areas, side="right")],
        "crowdedness": np.array(CROWDEDNESS)[crowdedness],
        "truncation": np.array(TRUNCATION)[table.truncated.astype(np.int64)],
    }
