"""Shapes: the flat pieces that figures and objects are put together from.

Legend: V vertices of a polygon. Frame: image pixels, x right, y down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from roiseg.sample.texture import Texture

Points = npt.NDArray[np.float64]
"""(V, 2) float64, x and y in image pixels."""


@dataclass(frozen=True, eq=False)
class Shape:
    """One painted polygon.

    Attributes:
        outline: (V, 2) float64 polygon, image pixels.
        texture: What it is painted with.
        light: Brightness factor, about 1.
    """

    outline: Points
    texture: Texture
    light: float = 1.0


@dataclass(frozen=True, eq=False)
class Thing:
    """A person or an object: shapes painted one after the other, from back to front.

    Attributes:
        category: Name of its COCO category.
        shapes: At least one shape.
        depth: Things of larger depth value are nearer and cover the others; the y of its foot, in image pixels.
        crowd: Whether it belongs to a crowd and gets no annotation of its own.
    """

    category: str
    shapes: tuple[Shape, ...]
    depth: float
    crowd: bool = False

    def bounds(self) -> tuple[float, float, float, float]:
        """Box around all shapes, xyxy in image pixels; it may reach outside the image."""
        return bounds_of([shape.outline for shape in self.shapes])


def bounds_of(outlines: Sequence[Points]) -> tuple[float, float, float, float]:
    """Box around polygons.

    Args:
        outlines: (V, 2) float64 polygons, image pixels.

    Returns:
        The box, xyxy in image pixels.
    """
    points = np.concatenate(outlines)
    low, high = points.min(0), points.max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def ellipse(center: Points, radii: tuple[float, float], angle: float = 0.0, count: int = 20) -> Points:
    """Outline of an ellipse.

    Args:
        center: (2,) float64 middle.
        radii: Half widths along its own x and y, in pixels.
        angle: Rotation, in radians.
        count: Number of vertices.

    Returns:
        (count, 2) float64 polygon.
    """
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    local = np.stack([np.cos(turn) * radii[0], np.sin(turn) * radii[1]], 1)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(center + local @ np.array([[cos, sin], [-sin, cos]]), np.float64)


def capsule(start: Points, end: Points, start_radius: float, end_radius: float) -> Points:
    """Outline of a limb: two half circles joined by straight sides.

    Args:
        start: (2,) float64 first joint.
        end: (2,) float64 second joint.
        start_radius: Half thickness at the first joint, in pixels.
        end_radius: Half thickness at the second joint, in pixels.

    Returns:
        (14, 2) float64 polygon.
    """
    along = end - start
    facing = float(np.arctan2(along[1], along[0]))
    back = facing + np.linspace(np.pi / 2, 3 * np.pi / 2, 7)
    front = facing + np.linspace(-np.pi / 2, np.pi / 2, 7)
    return np.concatenate(
        [
            start + start_radius * np.stack([np.cos(back), np.sin(back)], 1),
            end + end_radius * np.stack([np.cos(front), np.sin(front)], 1),
        ]
    )


def rectangle(center: Points, size_hw: tuple[float, float], angle: float = 0.0) -> Points:
    """Outline of a turned rectangle.

    Args:
        center: (2,) float64 middle.
        size_hw: Height and width, in pixels.
        angle: Rotation, in radians.

    Returns:
        (4, 2) float64 polygon.
    """
    half_h, half_w = size_hw[0] / 2, size_hw[1] / 2
    local = np.array([[-half_w, -half_h], [half_w, -half_h], [half_w, half_h], [-half_w, half_h]])
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(center + local @ np.array([[cos, sin], [-sin, cos]]), np.float64)
