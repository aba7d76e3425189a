"""What prediction answers with.

Symbols: (H, W) size of an image, K people found in it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roiseg.classes import Bools
from roiseg.geometry import Floats
from roiseg.placed import Placed
from roiseg.types import HW


@dataclass(frozen=True)
class PersonMask:
    """One person found.

    Attributes:
        placed: the mask, held as a window; no pixel is in two masks of an image.
        box_image: (4,) xyxy as given, clipped to the image.
        score: see `roiseg.placed.confidence`.
        image_hw: (H, W).
    """

    placed: Placed
    box_image: Floats
    score: float
    image_hw: HW

    @property
    def mask(self) -> Bools:
        """The mask at the size of the image (H, W)."""
        return np.ascontiguousarray(self.placed.whole(self.image_hw))


@dataclass(frozen=True)
class Detections:
    """The detector's own people of an image, best first.

    Attributes:
        boxes_image: (K, 4) xyxy, image frame, clipped to the image.
        scores: (K,) of the detector, in [0, 1].
    """

    boxes_image: Floats
    scores: NDArray[np.float64]
