"""Colours of instances: any number of them, each as unlike the ones before as can be.

Colours are (3,) uint8 in OpenCV's BGR order.
"""

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from roiseg.geometry import Floats

Colour = tuple[int, int, int]

RED: Colour = (40, 40, 230)
"""Boxes, and what is wrong."""
YELLOW: Colour = (0, 225, 255)
"""What several people claim."""
GREEN: Colour = (60, 220, 60)
"""Foreground."""

LEVELS = 16
"""Levels of each channel among the candidates."""
LIGHTNESS = (55.0, 90.0)
"""CIELAB L of an instance's colour: darker ones are lost on dark clothes, lighter ones in the sky."""
LEAST_CHROMA = 35.0
"""Smallest distance from grey in CIELAB."""


def to_lab(colours: NDArray[np.uint8]) -> Floats:
    """CIELAB coordinates, in which distances are differences that people see (CIE 1976).

    Args:
        colours: (N, 3) BGR.

    Returns:
        (N, 3): L in [0, 100], a and b, to two decimals, so that the last bit of a library decides nothing.
    """
    unit = colours[None].astype(np.float32) / 255
    return np.asarray(cv2.cvtColor(unit, cv2.COLOR_BGR2LAB)[0], dtype=np.float64).round(2)


@functools.cache
def palette() -> NDArray[np.uint8]:
    """All instance colours (N, 3) in the order of their use: each the candidate farthest from the red, the yellow and those before.

    Farthest-point order (Gonzalez 1985) keeps every first n of them apart, so that few people get very different colours and many
    people get different ones still.
    """
    levels = np.linspace(0, 255, LEVELS).round()
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.uint8)
    lab = to_lab(grid)
    light, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    kept = (light >= LIGHTNESS[0]) & (light <= LIGHTNESS[1]) & (chroma >= LEAST_CHROMA)
    grid, lab = grid[kept], lab[kept]
    taken = to_lab(np.array([RED, YELLOW], dtype=np.uint8))
    nearest = np.linalg.norm(lab[:, None] - taken[None], axis=2).min(axis=1)
    order = []
    for _ in range(len(grid)):
        best = int(nearest.argmax())
        order.append(best)
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[best], axis=1))
    return np.asarray(grid[order])


def instance_colour(number: int) -> Colour:
    """Colour of instance `number` >= 1; more than a thousand come before the first is used again."""
    colours = palette()
    blue, green, red = colours[(number - 1) % len(colours)].tolist()
    return blue, green, red
