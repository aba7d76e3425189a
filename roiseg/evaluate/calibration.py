"""Whether the target's probability is a probability: of the pixels that are told 70 %, are 70 % target?

Expected calibration error of Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 2, equation 3: 15 bins of
equal width, each open below and closed above. There the confidence is that of the likeliest class; here it is the target's,
whichever class is the likeliest, since what is made of it is the target's mask.
"""

import numpy as np
from numpy.typing import NDArray

from roiseg.classes import Bools

BINS = 15


class Calibration:
    """Counts pixels by the target's probability, batch by batch; `BINS` numbers of three kinds are all it holds."""

    def __init__(self) -> None:
        self._pixels = np.zeros(BINS, dtype=np.int64)
        self._target = np.zeros(BINS, dtype=np.int64)
        self._summed = np.zeros(BINS, dtype=np.float64)

    def add(self, probability: NDArray[np.floating], target: Bools) -> None:
        """Count a batch.

        Args:
            probability: of the target, in [0, 1]; any shape.
            target: true where the pixel is annotated target; the same shape.
        """
        values = probability.ravel().astype(np.float64)
        numbers = np.clip(np.ceil(values * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self._pixels += np.bincount(numbers, minlength=BINS)
        self._target += np.bincount(numbers[target.ravel()], minlength=BINS)
        self._summed += np.bincount(numbers, values, BINS)

    def figures(self) -> dict[str, float]:
        """`target_ece`, the mean distance of probability and share of target over pixels; nothing where no pixel was counted."""
        total = int(self._pixels.sum())
        return {"target_ece": float(np.abs(self._summed - self._target).sum() / total)} if total else {}

    def rows(self) -> list[dict[str, object]]:
        """A reliability curve.

        Returns:
            A row for each bin that isn't empty: `low` and `high` of the bin, mean `probability`, `share` of target, `pixels`.
        """
        return [
            {
                "low": round(number / BINS, 6),
                "high": round((number + 1) / BINS, 6),
                "probability": round(float(self._summed[number]) / pixels, 6),
                "share": round(int(self._target[number]) / pixels, 6),
                "pixels": pixels,
            }
            for number, pixels in enumerate(self._pixels.tolist())
            if pixels
        ]
