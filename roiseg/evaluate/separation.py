"""Instance separation: whether pixels of people who touch each other are given to the right one.

People touch where their annotated masks overlap or are neighbours, diagonals included. A pixel of such a person is given to whose
mask claims it, of several to the one whose ROI has the largest target probability there. That is right if it is one of the people
annotated there; a pixel that nobody claims is not right. Only people that have an ROI are looked at.

Symbols: r ROIs of an image, (H, W) image size.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from roiseg.classes import Bools
from roiseg.placed import Pasted, Placed, meeting
from roiseg.types import HW, Window

NOBODY = -1


def touching(annotated: Sequence[Placed]) -> NDArray[np.bool_]:
    """Who touches somebody.

    Args:
        annotated: r masks in one image.

    Returns:
        (r,).
    """
    found = np.zeros(len(annotated), dtype=bool)
    windows = np.array([item.window for item in annotated], dtype=np.int64).reshape(-1, 4)
    top, bottom, left, right = windows.T
    full = (bottom > top) & (right > left)
    for first, person in enumerate(annotated):
        near = (
            full & full[first] & (top <= bottom[first]) & (bottom >= top[first]) & (left <= right[first]) & (right >= left[first])
        )
        near[: first + 1] = False
        # A pair that is known to touch others tells nothing new.
        near &= ~(found & found[first])
        grown = _grown(person) if near.any() else person
        for second in np.flatnonzero(near).tolist():
            window = meeting(grown.window, annotated[second].window)
            if (grown.inside(window) & annotated[second].inside(window)).any():
                found[[first, second]] = True
    return found


def _grown(person: Placed) -> Placed:
    """A mask with all neighbours of its pixels, in a window that may leave the image by one pixel."""
    top, bottom, left, right = person.window
    mask = cv2.dilate(np.pad(person.mask.astype(np.uint8), 1), np.ones((3, 3), dtype=np.uint8))
    return Placed(Window(top - 1, bottom + 1, left - 1, right + 1), mask.astype(bool))


def owners(predicted: Sequence[Pasted], order: NDArray[np.int64], image_hw: HW) -> NDArray[np.int32]:
    """Whom each pixel of an image is given to.

    Args:
        predicted: r masks with their probabilities.
        order: (r,) positions; where two are equally sure, the earlier one has it.
        image_hw: (H, W).

    Returns:
        (H, W) positions in `predicted`, `NOBODY` where no mask claims the pixel.
    """
    best = np.zeros(image_hw, dtype=np.float32)
    found = np.full(image_hw, NOBODY, dtype=np.int32)
    for number in order.tolist():
        item = predicted[number]
        window, probability = item.placed.slices, item.probability
        better = item.placed.mask & (probability > best[window])
        best[window][better] = probability[better]
        found[window][better] = number
    return found


def separation(annotated: Sequence[Placed], predicted: Sequence[Pasted], ids: NDArray[np.int64], image_hw: HW) -> NDArray[np.int64]:
    """Pixels of each person who touches another that are given to the right one, and all of them.

    Args:
        annotated: r masks.
        predicted: r masks of the same people.
        ids: (r,) of the people, which settle ties whatever the order.
        image_hw: (H, W).

    Returns:
        (r, 2), zeros for a person who touches nobody.
    """
    counts = np.zeros((len(annotated), 2), dtype=np.int64)
    touches = touching(annotated)
    if not touches.any():
        return counts
    given = owners(predicted, np.argsort(ids, kind="stable"), image_hw)
    right: Bools = np.zeros(image_hw, dtype=bool)
    for number, person in enumerate(annotated):
        right[person.slices] |= person.mask & (given[person.slices] == number)
    for number in np.flatnonzero(touches).tolist():
        person = annotated[number]
        counts[number] = np.count_nonzero(right[person.slices] & person.mask), person.pixels
    return counts
