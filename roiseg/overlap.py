"""Whose a pixel is that several people of an image claim.

Symbols: (H, W) image size.
"""

from collections.abc import Sequence

import numpy as np

from roiseg.placed import Pasted, Placed, within
from roiseg.types import Window


def resolve(people: Sequence[Pasted]) -> list[Placed]:
    """Masks without a shared pixel: each goes to the person who claims it with the largest score times target probability.

    Memory: two maps of the part of the image that people fill, however many they are.

    Args:
        people: those of one image; where two are equal the first of them gets the pixel.

    Returns:
        One mask for each, in the same window.
    """
    filled = [number for number, person in enumerate(people) if person.placed.mask.size]
    resolved = [person.placed for person in people]
    if not filled:
        return resolved
    around = _around([people[number].placed.window for number in filled])
    shape = around.bottom - around.top, around.right - around.left
    best, owner = np.full(shape, -1, dtype=np.float32), np.full(shape, -1, dtype=np.int32)
    for number in filled:
        person, place = people[number], within(people[number].placed.window, around)
        weight = np.where(person.placed.mask, np.float32(person.score) * person.probability, np.float32(-1))
        ahead = weight > best[place]
        best[place][ahead] = weight[ahead]
        owner[place][ahead] = number
    for number in filled:
        window = people[number].placed.window
        resolved[number] = Placed(window, owner[within(window, around)] == number)
    return resolved


def _around(windows: Sequence[Window]) -> Window:
    """The smallest window that holds them all."""
    return Window(
        min(window.top for window in windows),
        max(window.bottom for window in windows),
        min(window.left for window in windows),
        max(window.right for window in windows),
    )
