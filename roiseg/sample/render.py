"""Rendering: things to a picture and to a map that says which thing owns each pixel.

Shapes are filled at twice the size of the picture. The mean over 2x2 of these is the coverage by which colours are
mixed, so edges are anti-aliased; a pixel belongs to a thing where at least half of it is covered.

Legend: H, W height and width of the picture, h, w of a window in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from roiseg.sample.shape import Points, Shape, Thing, bounds_of
from roiseg.sample.texture import Floats, Image, Texture, paint

Bools = npt.NDArray[np.bool_]
SUPERSAMPLE = 2
GRAIN = 26.0
"""Standard deviation of the unevenness of surfaces, on the scale 0 to 255, before the camera blurs it."""
CONTOUR = 0.012
"""Width of the line around a person, as a share of the height of the figure."""
INK = (24.0, 20.0, 22.0)
"""RGB of that line, 0 to 255."""
INK_OPACITY = np.float32(0.85)
_SHIFT = 4


@dataclass(frozen=True)
class Window:
    """The part of the picture that a thing can touch; left, top, right, bottom in pixels, right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window in an (H, W, ...) array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def window_of(bounds: tuple[float, float, float, float], size_hw: tuple[int, int]) -> Window | None:
    """The window around `bounds`, cut to the picture.

    Args:
        bounds: Box, xyxy in image pixels.
        size_hw: Height and width of the picture.

    Returns:
        The window, or None where the box lies outside the picture.
    """
    left, top = max(int(np.floor(bounds[0])) - 1, 0), max(int(np.floor(bounds[1])) - 1, 0)
    right, bottom = min(int(np.ceil(bounds[2])) + 1, size_hw[1]), min(int(np.ceil(bounds[3])) + 1, size_hw[0])
    return Window(left, top, right, bottom) if right > left and bottom > top else None


def fill(outlines: Sequence[Points], window: Window) -> npt.NDArray[np.uint8]:
    """Fill polygons at twice the size of the picture.

    Args:
        outlines: (V, 2) float64 polygons, image pixels; what lies in any of them is filled.
        window: The part of the picture to fill.

    Returns:
        (2h, 2w) uint8, 255 inside, 0 outside.
    """
    mask = np.zeros(tuple(SUPERSAMPLE * side for side in window.size_hw), np.uint8)
    for outline in outlines:
        # OpenCV puts integer coordinates on pixel centres, the image frame puts them on pixel corners: hence the half.
        points = (outline - np.array([window.left, window.top])) * SUPERSAMPLE - 0.5
        cv2.fillPoly(mask, [np.round(points * 2**_SHIFT).astype(np.int32)], 255, lineType=cv2.LINE_8, shift=_SHIFT)
    return mask


def silhouette(thing: Thing, window: Window) -> Bools:
    """All shapes of a thing as one mask.

    Args:
        thing: What to fill.
        window: The part of the picture to fill.

    Returns:
        (2h, 2w) bool.
    """
    return np.asarray(fill([shape.outline for shape in thing.shapes], window) > 0)


def _coverage(mask: npt.NDArray[np.uint8]) -> Floats:
    """Mean over 2x2; (2h, 2w) uint8 to (h, w) float32, 0 to 1."""
    small = cv2.resize(mask, (mask.shape[1] // SUPERSAMPLE, mask.shape[0] // SUPERSAMPLE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(255)


def _grain(thing: Thing, window: Window) -> Floats:
    """Fine unevenness of cloth, skin and wood, added to the colour; (h, w) float32.

    People and objects have it alike; the background loses it, out of focus.
    """
    rng = np.random.Generator(np.random.PCG64(thing.shapes[0].texture.seed + len(thing.shapes)))
    return np.asarray(np.float32(GRAIN) * rng.standard_normal(window.size_hw, np.float32), np.float32)


def paint_thing(canvas: Floats, thing: Thing) -> None:
    """Paint a thing over a picture, in place.

    Each shape is a little darker along its rim, as something round is; that keeps limbs apart from a torso of the
    same cloth.

    Args:
        canvas: (H, W, 3) float32 RGB, 0 to 255; changed.
        thing: What to paint.
    """
    size_hw = (canvas.shape[0], canvas.shape[1])
    cloths: dict[Texture, list[Shape]] = {}
    for shape in thing.shapes:
        cloths.setdefault(shape.texture, []).append(shape)
    painted: dict[Texture, tuple[Window, Floats]] = {}
    for texture, shapes in cloths.items():
        window = window_of(bounds_of([shape.outline for shape in shapes]), size_hw)
        if window is not None:
            painted[texture] = window, paint(texture, window.size_hw)
    around = window_of(thing.bounds(), size_hw)
    if around is None:
        return
    grain = _grain(thing, around)
    for shape in thing.shapes:
        window = window_of(bounds_of([shape.outline]), size_hw)
        if window is None:
            continue
        whole, cloth = painted[shape.texture]
        rows = slice(window.top - whole.top, window.bottom - whole.top)
        cols = slice(window.left - whole.left, window.right - whole.left)
        alpha = _coverage(fill([shape.outline], window))
        thick = int(min(np.ptp(shape.outline, 0)) / 3) * 2 + 1
        shade = shape.light * (0.62 + 0.38 * cv2.blur(alpha, (thick, thick), borderType=cv2.BORDER_REPLICATE))
        local = (
            slice(window.top - around.top, window.bottom - around.top),
            slice(window.left - around.left, window.right - around.left),
        )
        color = cloth[rows, cols] * shade[..., None] + grain[local][..., None]  # (h, w, 3)
        part = canvas[window.slices]
        part += (color - part) * alpha[..., None]
    if thing.category == "person":
        _draw_contour(canvas, thing, around)


def _draw_contour(canvas: Floats, thing: Thing, window: Window) -> None:
    """Draw the dark line around a person that illustrations have, inside the silhouette, in place.

    It is what a small network can learn to see in a minute: neither colour nor cloth tells a person from an object.
    """
    whole = silhouette(thing, window).astype(np.uint8) * 255
    _, top, _, bottom = thing.bounds()
    thick = max(round(CONTOUR * (bottom - top) * SUPERSAMPLE), 2)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * thick + 1, 2 * thick + 1))
    ring = _coverage(np.asarray(whole - cv2.erode(whole, kernel, borderType=cv2.BORDER_REPLICATE), np.uint8))
    part = canvas[window.slices]
    part += (np.array(INK, np.float32) - part) * (INK_OPACITY * ring)[..., None]


def owner_map(things: Sequence[Thing], size_hw: tuple[int, int]) -> npt.NDArray[np.int16]:
    """Which thing owns each quarter pixel.

    Args:
        things: From back to front.
        size_hw: Height and width of the picture.

    Returns:
        (2H, 2W) int16: 1 + index of the thing in front, 0 for background.
    """
    owners = np.zeros((size_hw[0] * SUPERSAMPLE, size_hw[1] * SUPERSAMPLE), np.int16)
    for index, thing in enumerate(things):
        window = window_of(thing.bounds(), size_hw)
        if window is not None:
            rows, cols = (slice(part.start * SUPERSAMPLE, part.stop * SUPERSAMPLE) for part in window.slices)
            owners[rows, cols][silhouette(thing, window)] = index + 1
    return owners


def owned(owners: npt.NDArray[np.int16], index: int, window: Window) -> Bools:
    """Pixels of which a thing owns at least half.

    Where two things own half a pixel each, both get it; the readers of COCO files know such overlaps.

    Args:
        owners: (2H, 2W) int16 of `owner_map`.
        index: Index of the thing.
        window: The part of the picture that it can touch.

    Returns:
        (H, W) bool.
    """
    mask = np.zeros(tuple(side // SUPERSAMPLE for side in owners.shape), np.bool_)
    rows, cols = (slice(part.start * SUPERSAMPLE, part.stop * SUPERSAMPLE) for part in window.slices)
    mask[window.slices] = _coverage((owners[rows, cols] == index + 1).astype(np.uint8) * 255) > 0.49
    return mask


def blur(canvas: Floats, radius: float) -> Floats:
    """Put a drawing out of focus.

    Args:
        canvas: (H, W, 3) float32 RGB, 0 to 255.
        radius: Standard deviation of the Gaussian, in pixels.

    Returns:
        (H, W, 3) float32 RGB, 0 to 255.
    """
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), radius), np.float32)


def develop(canvas: Floats, rng: np.random.Generator) -> Image:
    """Make a drawing look like a photograph: light, blur, noise.

    Args:
        canvas: (H, W, 3) float32 RGB, 0 to 255.
        rng: Source of randomness.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = canvas.shape[:2]
    corners = rng.uniform(0.8, 1.15, (2, 2)).astype(np.float32)
    light = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    photo = cv2.GaussianBlur(canvas * light[..., None], (0, 0), float(rng.uniform(0.4, 0.9)))
    grain = rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(1, 3))
    return np.clip(np.round(np.asarray(photo, np.float32) + grain), 0, 255).astype(np.uint8)
