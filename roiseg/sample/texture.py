"""Textures: what people, objects and backgrounds of the sample are painted with.

People and everything else draw their colours from the same palette and their patterns from the same list, so that
no colour and no pattern tells a person from the rest: only shape does.

Legend: H, W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""(H, W, 3) RGB, 0 to 255."""
Floats = npt.NDArray[np.float32]
Color = tuple[float, float, float]
"""Red, green, blue, 0 to 255."""


@dataclass(frozen=True)
class Texture:
    """A pattern of two colours.

    Attributes:
        kind: One of `KINDS`.
        first: Main colour.
        second: Colour of the pattern.
        period: Length of one repetition, in pixels.
        angle: Direction of the pattern, in radians.
        seed: Seed of whatever in the pattern is random.
    """

    kind: str
    first: Color
    second: Color
    period: float
    angle: float
    seed: int


def _axes(height: int, width: int, texture: Texture) -> tuple[Floats, Floats]:
    """Coordinates along and across the pattern, in periods, each (H, W) float32."""
    rows = np.arange(height, dtype=np.float32)[:, None] / np.float32(texture.period)
    cols = np.arange(width, dtype=np.float32)[None, :] / np.float32(texture.period)
    cos, sin = np.float32(np.cos(texture.angle)), np.float32(np.sin(texture.angle))
    return cols * cos + rows * sin, rows * cos - cols * sin


def _plain(height: int, width: int, texture: Texture) -> Floats:
    """The first colour alone; (H, W) float32 zeros."""
    del texture
    return np.zeros((height, width), np.float32)


def _stripes(height: int, width: int, texture: Texture) -> Floats:
    """Hard stripes; (H, W) float32 in {0, 1}."""
    along, _ = _axes(height, width, texture)
    return (along % 1.0 < 0.5).astype(np.float32)


def _checker(height: int, width: int, texture: Texture) -> Floats:
    """Chequered cloth; (H, W) float32 in {0, 0.5, 1}."""
    along, across = _axes(height, width, texture)
    return np.asarray(((along % 1.0 < 0.5).astype(np.float32) + (across % 1.0 < 0.5)) / 2, np.float32)


def _dots(height: int, width: int, texture: Texture) -> Floats:
    """Round dots; (H, W) float32 in {0, 1}."""
    along, across = _axes(height, width, texture)
    return ((along % 1.0 - 0.5) ** 2 + (across % 1.0 - 0.5) ** 2 < 0.08).astype(np.float32)


def _gradient(height: int, width: int, texture: Texture) -> Floats:
    """A slow change of colour; (H, W) float32, 0 to 1."""
    along, _ = _axes(height, width, texture)
    low, high = float(along.min()), float(along.max())
    return ((along - low) / max(high - low, 1e-6)).astype(np.float32)


def _noise(height: int, width: int, texture: Texture) -> Floats:
    """Value noise of four octaves; (H, W) float32, about 0 to 1."""
    rng = np.random.Generator(np.random.PCG64(texture.seed))
    total = np.zeros((height, width), np.float32)
    period, weight = texture.period * 2, 0.5
    for _ in range(4):
        grid = rng.random((int(height / period) + 2, int(width / period) + 2), np.float32)
        total += np.float32(weight) * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        period, weight = max(period / 2, 1.0), weight / 2
    return np.asarray(np.clip((total - 0.47) * 1.8 + 0.5, 0, 1), np.float32)


def _blobs(height: int, width: int, texture: Texture) -> Floats:
    """Patches with soft rims, as in foliage or camouflage; (H, W) float32, 0 to 1."""
    return np.asarray(np.clip((_noise(height, width, texture) - 0.5) * 6 + 0.5, 0, 1), np.float32)


KINDS: Final[dict[str, Callable[[int, int, Texture], Floats]]] = {
    "plain": _plain,
    "stripes": _stripes,
    "checker": _checker,
    "dots": _dots,
    "gradient": _gradient,
    "noise": _noise,
    "blobs": _blobs,
}


def random_color(rng: np.random.Generator) -> Color:
    """Draw a colour: skin and wood tones, greys, muted and strong colours.

    Args:
        rng: Source of randomness.

    Returns:
        A colour of the palette that people, objects and backgrounds share.
    """
    pick = rng.random()
    if pick < 0.35:
        return skin_color(rng)
    value = rng.uniform(30, 235)
    if pick < 0.5:
        return (value, value, value)
    hue, saturation = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.75)
    red, green, blue = (value * (1 - saturation * (0.5 - 0.5 * np.cos(hue + shift))) for shift in (0.0, 2.1, 4.2))
    return (float(red), float(green), float(blue))


def skin_color(rng: np.random.Generator) -> Color:
    """Draw a skin tone between light and dark.

    Args:
        rng: Source of randomness.

    Returns:
        A colour; wood, sand and brick share it.
    """
    mix = rng.random()
    light, dark = np.array([240.0, 205.0, 180.0]), np.array([80.0, 50.0, 36.0])
    red, green, blue = light * (1 - mix) + dark * mix
    return (float(red), float(green), float(blue))


def random_texture(rng: np.random.Generator, size: float) -> Texture:
    """Draw a texture for something of the given size.

    Args:
        rng: Source of randomness.
        size: Typical length of what is painted, in pixels; the pattern's period follows it.

    Returns:
        The texture.
    """
    kind = tuple(KINDS)[int(rng.integers(len(KINDS)))]
    return Texture(
        kind=kind,
        first=random_color(rng),
        second=random_color(rng),
        period=max(2.0, size * float(rng.uniform(0.06, 0.3))),
        angle=float(rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])),
        seed=int(rng.integers(2**31)),
    )


def solid(color: Color) -> Texture:
    """A texture of one colour, for skin, hair and shoes.

    Args:
        color: The colour.

    Returns:
        The texture.
    """
    return Texture(kind="plain", first=color, second=color, period=1.0, angle=0.0, seed=0)


def paint(texture: Texture, size_hw: tuple[int, int]) -> Floats:
    """Paint a rectangle with a texture.

    Args:
        texture: What to paint.
        size_hw: Height and width of the rectangle, in pixels.

    Returns:
        (H, W, 3) float32 RGB, 0 to 255.
    """
    first = np.asarray(texture.first, np.float32)
    if texture.kind == "plain":
        return np.broadcast_to(first, (*size_hw, 3))
    change = np.asarray(texture.second, np.float32) - first
    return np.asarray(first + change * KINDS[texture.kind](*size_hw, texture)[..., None], np.float32)
