"""Distractors: things of other categories, painted with the textures and colours of people's clothes and skin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from roiseg.sample.shape import Points, Shape, Thing, capsule, ellipse, rectangle
from roiseg.sample.texture import random_texture


def _point(x: float, y: float) -> Points:
    """A (2,) float64 point."""
    return np.array([x, y])


def _tree(size: float, rng: np.random.Generator) -> list[Shape]:
    """A trunk with a few leafy balls."""
    bark, leaves = random_texture(rng, size * 0.3), random_texture(rng, size * 0.4)
    shapes = [Shape(capsule(_point(0, 0), _point(0, -0.6 * size), 0.05 * size, 0.035 * size), bark)]
    for _ in range(int(rng.integers(2, 6))):
        middle = _point(rng.normal(0, 0.12) * size, -rng.uniform(0.55, 0.85) * size)
        radii = (rng.uniform(0.1, 0.2) * size, rng.uniform(0.1, 0.2) * size)
        shapes.append(Shape(ellipse(middle, radii), leaves, float(rng.uniform(0.85, 1.1))))
    return shapes


def _bench(size: float, rng: np.random.Generator) -> list[Shape]:
    """Seat, back rest and two legs."""
    wood = random_texture(rng, size * 0.3)
    width = 0.9 * size
    legs = [Shape(rectangle(_point(x * width, -0.12 * size), (0.24 * size, 0.06 * size)), wood, 0.8) for x in (-0.4, 0.4)]
    rest = Shape(rectangle(_point(0, -0.42 * size), (0.16 * size, width)), wood, 1.05)
    return [*legs, rest, Shape(rectangle(_point(0, -0.25 * size), (0.08 * size, width * 1.05)), wood)]


def _box(size: float, rng: np.random.Generator) -> list[Shape]:
    """A box with a front and a top."""
    card = random_texture(rng, size * 0.5)
    high, wide = size * float(rng.uniform(0.3, 0.9)), size * float(rng.uniform(0.25, 0.6))
    slant = size * 0.12
    top = np.array([[-wide / 2, -high], [wide / 2, -high], [wide / 2 + slant, -high - slant], [-wide / 2 + slant, -high - slant]])
    edge = np.array([[wide / 2, 0], [wide / 2, -high], [wide / 2 + slant, -high - slant], [wide / 2 + slant, -slant]])
    return [Shape(top, card, 1.12), Shape(edge, card, 0.75), Shape(rectangle(_point(0, -high / 2), (high, wide)), card)]


def _pole(size: float, rng: np.random.Generator) -> list[Shape]:
    """A lamp post or sign: upright, thin, with something round or square on top."""
    metal, sign = random_texture(rng, size * 0.3), random_texture(rng, size * 0.2)
    thick = size * float(rng.uniform(0.02, 0.06))
    shapes = [Shape(capsule(_point(0, 0), _point(0, -0.9 * size), thick, thick * 0.8), metal)]
    top, radius = _point(0, -0.9 * size), size * float(rng.uniform(0.06, 0.12))
    head = ellipse(top, (radius, radius)) if rng.random() < 0.6 else rectangle(top, (radius * 2, radius * 3))
    return [*shapes, Shape(head, sign)]


def _dog(size: float, rng: np.random.Generator) -> list[Shape]:
    """A dog seen from the side."""
    fur = random_texture(rng, size * 0.4)
    unit = size * 0.6
    legs = [
        Shape(
            capsule(
                _point(x * unit, -0.4 * unit),
                _point((x + rng.normal(0, 0.08)) * unit, -0.04 * unit),
                0.08 * unit,
                0.05 * unit,
            ),
            fur,
            light,
        )
        for x, light in ((-0.4, 0.8), (0.36, 0.8), (-0.3, 1.0), (0.45, 1.0))
    ]
    body = Shape(capsule(_point(-0.4 * unit, -0.5 * unit), _point(0.4 * unit, -0.52 * unit), 0.17 * unit, 0.2 * unit), fur)
    tail = Shape(
        capsule(_point(-0.5 * unit, -0.55 * unit), _point(-0.75 * unit, -0.85 * unit), 0.05 * unit, 0.03 * unit),
        fur,
        0.9,
    )
    neck = Shape(capsule(_point(0.45 * unit, -0.55 * unit), _point(0.62 * unit, -0.8 * unit), 0.14 * unit, 0.12 * unit), fur)
    head = Shape(capsule(_point(0.6 * unit, -0.85 * unit), _point(0.85 * unit, -0.8 * unit), 0.16 * unit, 0.08 * unit), fur, 1.08)
    ear = Shape(ellipse(_point(0.52 * unit, -0.9 * unit), (0.07 * unit, 0.13 * unit)), fur, 0.75)
    return [*legs, tail, body, neck, head, ear]


def _umbrella(size: float, rng: np.random.Generator) -> list[Shape]:
    """A parasol: upright, with limbs as thin as a person's."""
    cloth, metal = random_texture(rng, size * 0.3), random_texture(rng, size * 0.2)
    turn = np.linspace(np.pi, 2 * np.pi, 12)
    dome = np.stack([np.cos(turn) * 0.3, np.sin(turn) * 0.25 - 0.65], 1) * size
    stick = Shape(capsule(_point(0, 0), _point(0, -0.85 * size), 0.02 * size, 0.02 * size), metal)
    foot = Shape(ellipse(_point(0, -0.02 * size), (0.1 * size, 0.03 * size)), metal, 0.8)
    return [foot, stick, Shape(dome, cloth)]


CATEGORIES: Final[dict[str, int]] = {"person": 1, "tree": 2, "bench": 3, "box": 4, "pole": 5, "dog": 6, "umbrella": 7}
"""COCO category ids by name."""

DRAWERS: Final[dict[str, Callable[[float, np.random.Generator], list[Shape]]]] = {
    "tree": _tree,
    "bench": _bench,
    "box": _box,
    "pole": _pole,
    "dog": _dog,
    "umbrella": _umbrella,
}


def draw_distractor(foot: Points, height: float, rng: np.random.Generator) -> Thing:
    """Draw an object that is no person.

    Args:
        foot: (2,) float64 point that it stands on, image pixels.
        height: Rough height, in pixels.
        rng: Source of randomness.

    Returns:
        The object.
    """
    category = tuple(DRAWERS)[int(rng.integers(len(DRAWERS)))]
    mirror = np.array([float(rng.choice([-1.0, 1.0])), 1.0])
    shapes = DRAWERS[category](height, rng)
    placed = tuple(Shape(shape.outline * mirror + foot, shape.texture, shape.light) for shape in shapes)
    return Thing(category, placed, float(foot[1]))
