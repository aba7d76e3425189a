"""What light, lens and camera do to colours: each takes a picture and a source of draws, and returns another picture.

Pictures are (H, W, 3) uint8, RGB, and stay as they are; no effect moves anything, so that masks stay right.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np

from roiseg.classes import Floats32
from roiseg.geometry import Floats
from roiseg.network_input import Pixels

Effect = Callable[[Pixels, np.random.Generator], Pixels]

LEVELS = np.arange(256, dtype=np.float64)
"""All values of a channel, for look-up tables."""

HUES = 180
"""OpenCV's hues of uint8, in steps of two degrees."""

DROP_AREA_PX, DROP_PX, DROP_SLANT_PX = 770, 10, 10
"""Drizzle: pixels of picture for each drop, length of its streak, and how far wind drives it at most (Albumentations' values)."""
DROP_GREY, RAIN_SHADE = 200, 0.8
"""Grey level of a drop, and brightness of a rainy day over that of a dry one."""

FOG = 0.1
"""Least share of white in fog; it is up to three times as thick in places."""
FOG_BANKS = 4
"""Fog is thicker here and thinner there: this many places along each side have a thickness of their own."""

FLARE_RADIUS = (0.1, 0.3)
"""Radius of the sun's glare over the longer side."""
FLARE_GHOSTS = 4
"""Reflections in the lens, on the line from the sun through the centre."""

GAUSS_VARIANCE = (10.0, 50.0)
"""Of noise, in squared grey levels."""
ISO_COLOUR, ISO_INTENSITY = (0.01, 0.05), (0.1, 0.5)
"""Of a camera's noise in the dark: spread of hue over the full circle, and strength (Albumentations' values)."""


def _table(values: Floats) -> Pixels:
    return values.round().clip(0, 255).astype(np.uint8)


def _in_hsv(picture: Pixels, hue: float, saturation: Floats, value: Floats) -> Pixels:
    """A picture with its hue turned and the others looked up.

    Args:
        picture: (H, W, 3).
        hue: shift in OpenCV's steps of two degrees.
        saturation: (256,) new values.
        value: (256,) new values.
    """
    turned = (LEVELS + round(hue)) % HUES
    tables = np.stack([_table(item) for item in (turned, saturation, value)], axis=-1)[None]
    hsv = cv2.LUT(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV), tables)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)


def brightness_contrast(limit: float) -> Effect:
    """Contrast times 1 +- `limit`, then brightness by +- `limit` of the full range."""

    def effect(picture: Pixels, rng: np.random.Generator) -> Pixels:
        contrast, brightness = 1 + rng.uniform(-limit, limit), rng.uniform(-limit, limit)
        return np.asarray(cv2.LUT(picture, _table(LEVELS * contrast + brightness * 255)), dtype=np.uint8)

    return effect


def hsv(hue: float, saturation: float, value: float) -> Effect:
    """Hue, saturation and value shifted by up to as many of OpenCV's steps (180, 256 and 256 in all)."""

    def effect(picture: Pixels, rng: np.random.Generator) -> Pixels:
        shifts = rng.uniform(-1, 1, 3) * (hue, saturation, value)
        return _in_hsv(picture, shifts[0], LEVELS + shifts[1], LEVELS + shifts[2])

    return effect


def colour_jitter(brightness: float, contrast: float, saturation: float, hue: float) -> Effect:
    """Brightness, contrast about the mean grey, and saturation times 1 +- a limit each; hue by +- a share of the circle."""

    def effect(picture: Pixels, rng: np.random.Generator) -> Pixels:
        light, spread, colour = 1 + rng.uniform(-1, 1, 3) * (brightness, contrast, saturation)
        turn = rng.uniform(-hue, hue) * HUES
        grey = float(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).mean()) * light
        lit = np.asarray(cv2.LUT(picture, _table((LEVELS * light - grey) * spread + grey)), dtype=np.uint8)
        return _in_hsv(lit, turn, LEVELS * colour, LEVELS)

    return effect


def rgb_shift(limit: float) -> Effect:
    """Each channel shifted by up to `limit` grey levels."""

    def effect(picture: Pixels, rng: np.random.Generator) -> Pixels:
        tables = _table(LEVELS[:, None] + rng.uniform(-limit, limit, 3))[None]
        return np.asarray(cv2.LUT(picture, tables), dtype=np.uint8)

    return effect


def clahe(limit: float, tiles: int) -> Effect:
    """Lightness equalised in `tiles` x `tiles` parts, no level counting more than U(1, `limit`) times its share (CLAHE)."""

    def effect(picture: Pixels, rng: np.random.Generator) -> Pixels:
        lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
        equaliser = cv2.createCLAHE(clipLimit=rng.uniform(1, limit), tileGridSize=(tiles, tiles))
        lab[..., 0] = equaliser.apply(np.ascontiguousarray(lab[..., 0]))
        return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.uint8)

    return effect


def gamma(low: float, high: float) -> Effect:
    """Values of [0, 1] to the power of U(`low`, `high`) percent."""

    def effect(picture: Pixels, rng: np.random.Generator) -> Pixels:
        table = _table((LEVELS / 255) ** (rng.uniform(low, high) / 100) * 255)
        return np.asarray(cv2.LUT(picture, table), dtype=np.uint8)

    return effect


def drizzle(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Short grey streaks, all of one slant, on a shaded picture, a little out of focus."""
    height, width = picture.shape[:2]
    count = max(height * width // DROP_AREA_PX, 1)
    slant = int(rng.integers(-DROP_SLANT_PX, DROP_SLANT_PX + 1))
    start = np.stack([rng.integers(0, width, count), rng.integers(0, height, count)], axis=1)
    streaks = np.stack([start, start + np.array([slant, DROP_PX])], axis=1).astype(np.int32)
    wet = np.asarray(cv2.LUT(picture, _table(LEVELS * RAIN_SHADE)), dtype=np.uint8)
    cv2.polylines(wet, list(streaks), isClosed=False, color=(DROP_GREY,) * 3, thickness=1)
    return np.asarray(cv2.blur(wet, (3, 3)), dtype=np.uint8)


def fog(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """White laid over the picture, in banks."""
    height, width = picture.shape[:2]
    banks = rng.uniform(FOG, 3 * FOG, (FOG_BANKS, FOG_BANKS)).astype(np.float32)
    share = np.asarray(cv2.resize(banks, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
    return _laid_over(picture, share)


def sun_flare(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """A glare in the upper half, and its reflections in the lens."""
    height, width = picture.shape[:2]
    sun = np.array([rng.uniform(0, width), rng.uniform(0, height / 2)])
    centre = np.array([width / 2, height / 2])
    y, x = np.ogrid[:height, :width]
    away = np.hypot(x + 0.5 - sun[0], y + 0.5 - sun[1])
    white = ((1 - away / (rng.uniform(*FLARE_RADIUS) * max(height, width))).clip(0, 1) ** 1.5).astype(np.float32)
    for step in rng.uniform(0.5, 2, FLARE_GHOSTS):
        ghost = np.zeros((height, width), dtype=np.float32)
        place = [round(float(item)) for item in sun + (centre - sun) * step]
        radius = max(round(rng.uniform(0.01, 0.06) * max(height, width)), 1)
        cv2.circle(ghost, (place[0], place[1]), radius, rng.uniform(0.1, 0.3), thickness=cv2.FILLED)
        white = np.maximum(white, ghost)
    return _laid_over(picture, white)


def _laid_over(picture: Pixels, share: Floats32) -> Pixels:
    """White laid over a picture, `share` (H, W) of it at each pixel."""
    return np.asarray((picture + (np.float32(255) - picture) * share[..., None].clip(0, 1)).round(), dtype=np.uint8)


def _odd(low: int, high: int, rng: np.random.Generator) -> int:
    """An odd number in [`low`, `high`], both odd."""
    return low + 2 * int(rng.integers((high - low) // 2 + 1))


def gaussian_blur(low: int, high: int) -> Effect:
    """With a kernel of an odd size in [`low`, `high`] pixels."""

    def effect(picture: Pixels, rng: np.random.Generator) -> Pixels:
        size = _odd(low, high, rng)
        return np.asarray(cv2.GaussianBlur(picture, (size, size), 0), dtype=np.uint8)

    return effect


def median_blur(high: int) -> Effect:
    """Median of an odd size in [3, `high`] pixels."""

    def effect(picture: Pixels, rng: np.random.Generator) -> Pixels:
        return np.asarray(cv2.medianBlur(picture, _odd(3, high, rng)), dtype=np.uint8)

    return effect


def motion_blur(high: int) -> Effect:
    """Along a line of any direction, in a kernel of an odd size in [3, `high`] pixels."""

    def effect(picture: Pixels, rng: np.random.Generator) -> Pixels:
        size, angle = _odd(3, high, rng), rng.uniform(0, math.pi)
        half = size // 2
        dx, dy = round(half * math.cos(angle)), round(half * math.sin(angle))
        kernel: Floats32 = np.zeros((size, size), dtype=np.float32)
        cv2.line(kernel, (half - dx, half - dy), (half + dx, half + dy), 1.0)
        return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum()), dtype=np.uint8)

    return effect


def gauss_noise(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Noise of its own in each channel of each pixel."""
    noise = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(*GAUSS_VARIANCE) ** 0.5)
    return np.asarray((picture + noise).round().clip(0, 255), dtype=np.uint8)


def iso_noise(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """A camera's noise in the dark: shot noise in lightness, more where it is dark, and noise in hue."""
    colour, intensity = rng.uniform(*ISO_COLOUR), rng.uniform(*ISO_INTENSITY)
    hls = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2HLS)
    light = np.asarray(hls[..., 1], dtype=np.float32)
    shots = rng.poisson(float(light.std()) * intensity * 255, light.shape).astype(np.float32) / 255
    turns = rng.standard_normal(light.shape, dtype=np.float32) * np.float32(colour * 360 * intensity)
    noisy = np.stack([(hls[..., 0] + turns) % 360, light + shots * (1 - light), hls[..., 2]], axis=-1)
    rgb = cv2.cvtColor(noisy, cv2.COLOR_HLS2RGB)
    return np.asarray((rgb * 255).round().clip(0, 255), dtype=np.uint8)


def jpeg(low: int, high: int) -> Effect:
    """Written as a JPEG of a quality in [`low`, `high`], and read again."""

    def effect(picture: Pixels, rng: np.random.Generator) -> Pixels:
        quality = int(rng.integers(low, high + 1))
        _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        return np.asarray(cv2.cvtColor(np.asarray(decoded), cv2.COLOR_BGR2RGB), dtype=np.uint8)

    return effect


def downscale(low: float, high: float) -> Effect:
    """Made smaller by U(`low`, `high`), and enlarged again."""

    def effect(picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        share = rng.uniform(low, high)
        small_hw = max(round(height * share), 1), max(round(width * share), 1)
        small = cv2.resize(picture, small_hw[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)

    return effect
