"""Backgrounds: what is behind everything."""

from __future__ import annotations

import numpy as np

from roiseg.sample.shape import Shape, Thing, ellipse, rectangle
from roiseg.sample.texture import Floats, paint, random_texture


def draw_background(size_hw: tuple[int, int], rng: np.random.Generator) -> tuple[Floats, tuple[Thing, ...]]:
    """Draw a wall or sky, a floor, and some patches on both.

    Args:
        size_hw: Height and width of the picture.
        rng: Source of randomness.

    Returns:
        (H, W, 3) float32 RGB, 0 to 255, and the patches to be painted over it before anything else.
    """
    height, width = size_hw
    scene = paint(random_texture(rng, 250.0), size_hw).copy()
    horizon = int(height * rng.uniform(0.3, 0.75))
    scene[horizon:] = paint(random_texture(rng, 250.0), (height - horizon, width))
    patches = []
    for _ in range(int(rng.integers(2, 9))):
        size = float(np.exp(rng.uniform(np.log(15), np.log(180))))
        center = np.array([rng.uniform(0, width), rng.uniform(0, height)])
        around = (size * float(rng.uniform(0.4, 1.6)), size * float(rng.uniform(0.3, 1.0)))
        if rng.random() < 0.5:
            outline = rectangle(center, around, float(rng.normal(0, 0.15)))
        else:
            outline = ellipse(center, (around[0] / 2, around[1] / 2), float(rng.uniform(0, np.pi)))
        patches.append(Thing("background", (Shape(outline, random_texture(rng, size)),), 0.0))
    return scene, tuple(patches)
