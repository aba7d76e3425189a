"""What a model made of validation boxes, in the image frame: what metrics, calibration and pictures are made of."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from roiseg.geometry import Floats


@dataclass(frozen=True)
class SnapResults:
    """N boxes; their order is that of the index. All boxes xyxy, image frame, float64.

    Attributes:
        rows: (N,) of the index.
        annotation_ids: (N,).
        image_hw: (N, 2) sizes of their images.
        truth: (N, 4).
        rough: (N, 4), as jittered and clipped to the image.
        windows: (N, 4).
        snapped: (N, 4).
        peak: (N, 4), see `EdgeDecision`.
        entropy: (N, 4), see `EdgeDecision`.
    """

    rows: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    image_hw: NDArray[np.int64]
    truth: Floats
    rough: Floats
    windows: Floats
    snapped: Floats
    peak: Floats
    entropy: Floats

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def together(cls, parts: Sequence["SnapResults"]) -> "SnapResults":
        """Parts of a split as one, in the order of rows and annotation ids, whoever computed them."""
        joined = {item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)}
        order = np.lexsort((joined["annotation_ids"], joined["rows"]))
        return cls(**{name: values[order] for name, values in joined.items()})
