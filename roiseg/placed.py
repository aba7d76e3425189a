"""Masks of people in an image, held as windows: an image of 289 people costs its crops, not 289 images.

Symbols: (H, W) image size, (h, w) cells of the mask.
"""

from dataclasses import dataclass

import numpy as np

from roiseg.classes import BACKGROUND, NON_TARGET, TARGET, Bools, Floats32
from roiseg.geometry import Floats
from roiseg.paste import paste
from roiseg.types import HW, Window


@dataclass(frozen=True)
class Placed:
    """One person's mask in an image; false outside the window.

    Attributes:
        window: rows and columns of the image; empty for nobody.
        mask: (rows, columns) of the window.
    """

    window: Window
    mask: Bools

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where the window lies in an array (H, W)."""
        top, bottom, left, right = self.window
        return slice(top, bottom), slice(left, right)

    @property
    def pixels(self) -> int:
        """How many pixels of the image belong to the person."""
        return int(np.count_nonzero(self.mask))

    def inside(self, window: Window) -> Bools:
        """The mask in a window that lies in its own."""
        top, left = self.window.top, self.window.left
        return self.mask[window.top - top : window.bottom - top, window.left - left : window.right - left]

    def whole(self, image_hw: HW) -> Bools:
        """The mask at the size of the image (H, W), column by column in memory as RLEs run."""
        found = np.zeros(image_hw, dtype=bool, order="F")
        found[self.slices] = self.mask
        return found


def meeting(first: Window, second: Window) -> Window:
    """What two windows share; without rows or columns where they don't meet."""
    top, left = max(first.top, second.top), max(first.left, second.left)
    return Window(top, max(min(first.bottom, second.bottom), top), left, max(min(first.right, second.right), left))


def within(window: Window, around: Window) -> tuple[slice, slice]:
    """Where a window lies in an array that covers a larger one."""
    return (
        slice(window.top - around.top, window.bottom - around.top),
        slice(window.left - around.left, window.right - around.left),
    )


def shared_pixels(first: Placed, second: Placed) -> int:
    """How many pixels of the image belong to both."""
    window = meeting(first.window, second.window)
    return int(np.count_nonzero(first.inside(window) & second.inside(window)))


def cut_out(mask: Bools) -> Placed:
    """A mask (H, W) as the smallest window that holds it."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return Placed(Window(0, 0, 0, 0), np.zeros((0, 0), dtype=bool))
    window = Window(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    return Placed(window, np.ascontiguousarray(mask[window.top : window.bottom, window.left : window.right]))


def confidence(probabilities: Floats32) -> float:
    """How sure a head is of an ROI's target: the mean of p1 * (1 - p2) over the cells where the target wins (spec 20.4).

    Args:
        probabilities: (3, h, w), softmaxed.

    Returns:
        In [0, 1]; 0 where the target wins nowhere.
    """
    target, non_target = probabilities[TARGET], probabilities[NON_TARGET]
    won = margin(probabilities) > 0
    return float((target * (1 - non_target))[won].mean(dtype=np.float64)) if won.any() else 0.0


def margin(probabilities: Floats32) -> Floats32:
    """By how much the target leads the likelier of the two other classes (h, w); probabilities (3, h, w)."""
    return np.asarray(probabilities[TARGET] - np.maximum(probabilities[BACKGROUND], probabilities[NON_TARGET]))


@dataclass(frozen=True)
class Pasted:
    """A predicted mask, and how sure the head is.

    Attributes:
        placed: the mask; its window is the ROI's, or that one grown by a filter's reach.
        probability: (rows, columns) float32 of the target in that window; 0 outside the ROI.
        score: see `confidence`.
        claim: (rows, columns) float32 in that window: a half, and half the margin of the target; above 0.5 is the mask.
    """

    placed: Placed
    probability: Floats32
    score: float
    claim: Floats32


def paste_target(probabilities: Floats32, roi_image: Floats, image_hw: HW) -> Pasted:
    """Bring one person's mask to the image.

    A pixel is target where the target's probability, brought back to the image, is above that of both other classes: the
    arg-max of the ROI mask, with an outline as smooth as the probabilities.

    Args:
        probabilities: (3, h, w), softmaxed.
        roi_image: (4,) xyxy of the ROI, image frame.
        image_hw: (H, W).
    """
    (rows, columns), inside = paste(margin(probabilities), roi_image, image_hw)
    probability = paste(probabilities[TARGET], roi_image, image_hw)[1]
    window = Window(rows.start, rows.stop, columns.start, columns.stop)
    return Pasted(
        Placed(window, inside > 0), probability, confidence(probabilities), np.asarray((inside + 1) / 2, dtype=np.float32)
    )
