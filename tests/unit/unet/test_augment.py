"""Tests of roiseg.unet.augment and roiseg.unet.effects: what is drawn, how often, and that no effect moves anything."""

from collections.abc import Callable
from typing import get_args

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from roiseg.unet.augment import PIPELINES, Augment, OneOf, augment_image
from roiseg.unet.effects import (
    DROP_GREY,
    FOG,
    RAIN_SHADE,
    Effect,
    brightness_contrast,
    clahe,
    colour_jitter,
    downscale,
    drizzle,
    fog,
    gamma,
    gauss_noise,
    gaussian_blur,
    hsv,
    iso_noise,
    jpeg,
    median_blur,
    motion_blur,
    rgb_shift,
    sun_flare,
)

Pixels = NDArray[np.uint8]

HW = (24, 40)

EFFECTS: dict[str, Effect] = {
    "brightness_contrast": brightness_contrast(0.3),
    "hsv": hsv(20, 30, 20),
    "colour_jitter": colour_jitter(0.2, 0.2, 0.2, 0.1),
    "rgb_shift": rgb_shift(15),
    "clahe": clahe(2.0, 8),
    "gamma": gamma(80, 120),
    "drizzle": drizzle,
    "fog": fog,
    "sun_flare": sun_flare,
    "motion_blur": motion_blur(7),
    "gaussian_blur": gaussian_blur(3, 7),
    "median_blur": median_blur(5),
    "gauss_noise": gauss_noise,
    "iso_noise": iso_noise,
    "jpeg": jpeg(70, 95),
    "downscale": downscale(0.5, 0.9),
}


def scene(seed: int = 0, hw: tuple[int, int] = HW) -> Pixels:
    """Smooth colours (H, W, 3) with a bright block left of the middle."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 160, (4, 5, 3)).astype(np.uint8)
    picture = np.asarray(cv2.resize(coarse, hw[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    picture[hw[0] // 4 : hw[0] // 2, hw[1] // 8 : hw[1] // 4] = (220, 180, 60)
    return picture


class Fixed:
    """In the place of a generator: gives what it was told, in turn."""

    def __init__(self, *values: float) -> None:
        self._values = list(values)

    def uniform(self, low: float, high: float, size: int | None = None) -> float | NDArray[np.float64]:
        if size is not None:
            return np.array([self._values.pop(0) for _ in range(size)])
        value = self._values.pop(0)
        assert low <= value <= high
        return value

    def integers(self, low: int, high: int | None = None) -> int:
        value = int(self._values.pop(0))
        assert (0 if high is None else low) <= value < (low if high is None else high)
        return value


def with_draws(effect: Effect, picture: Pixels, *values: float) -> Pixels:
    return effect(picture, Fixed(*values))  # type: ignore[arg-type]


def one_colour(*rgb: int) -> Pixels:
    return np.full((4, 6, 3), rgb, dtype=np.uint8)


# --- each effect ---


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_changes_a_copy_and_follows_from_its_draws(name: str) -> None:
    picture, effect = scene(hw=(160, 240)), EFFECTS[name]
    kept = picture.copy()
    first, again = (effect(picture, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(picture, kept)
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.uint8
    assert first.shape == picture.shape
    found = [effect(picture, np.random.default_rng(seed)) for seed in range(12)]
    assert any((item != picture).any() for item in found)
    assert any((item != found[0]).any() for item in found)


@pytest.mark.parametrize("name", EFFECTS)
def test_what_is_seen_stays_where_it_is(name: str) -> None:
    """On average over many draws the picture correlates best with itself where it was, not a few pixels aside."""
    rng = np.random.default_rng(1)
    picture = scene(hw=(48, 80))
    mean = np.mean([EFFECTS[name](picture, rng).astype(np.float64).mean(axis=2) for _ in range(40)], axis=0)
    plain = picture.astype(np.float64).mean(axis=2)
    inner = (slice(6, -6), slice(6, -6))
    likeness = {
        (dy, dx): np.corrcoef(np.roll(plain, (dy, dx), (0, 1))[inner].ravel(), mean[inner].ravel())[0, 1]
        for dy in (-3, 0, 3)
        for dx in (-3, 0, 3)
    }
    assert max(likeness, key=lambda shift: likeness[shift]) == (0, 0)
    flipped = np.corrcoef(plain[:, ::-1][inner].ravel(), mean[inner].ravel())[0, 1]
    assert flipped < likeness[0, 0]


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("hw", [(1, 1), (3, 9)])
def test_tiny_pictures_pass(name: str, hw: tuple[int, int]) -> None:
    picture = np.full((*hw, 3), 90, dtype=np.uint8)
    for seed in range(5):
        assert EFFECTS[name](picture, np.random.default_rng(seed)).shape == (*hw, 3)


def test_brightness_and_contrast_by_hand() -> None:
    found = with_draws(brightness_contrast(0.2), one_colour(100, 200, 0), 0.1, -0.2)
    assert found[0, 0].tolist() == [59, 169, 0]  # 110, 220 and 0 less 51


def test_hsv_by_hand() -> None:
    """Pure red (hue 0) turned by 20 steps of 2 degrees, its saturation 51 and its value 20 lower."""
    found = with_draws(hsv(20, 51, 20), one_colour(255, 0, 0), 1, -1, -1)
    back = cv2.cvtColor(found, cv2.COLOR_RGB2HSV)[0, 0]
    np.testing.assert_allclose(back.astype(int), [20, 204, 235], atol=1)


def test_hues_go_round() -> None:
    found = with_draws(hsv(20, 0, 0), one_colour(255, 0, 0), -1, 0, 0)
    assert cv2.cvtColor(found, cv2.COLOR_RGB2HSV)[0, 0].tolist() == [160, 255, 255]


def test_rgb_shift_by_hand() -> None:
    found = with_draws(rgb_shift(15), one_colour(100, 250, 3), 5, 15, -15)
    assert found[0, 0].tolist() == [105, 255, 0]


def test_gamma_by_hand() -> None:
    found = with_draws(gamma(80, 120), one_colour(64, 128, 255), 120)
    assert found[0, 0].tolist() == [round((value / 255) ** 1.2 * 255) for value in (64, 128, 255)]


def test_colour_jitter_by_hand() -> None:
    """Grey has no hue and no saturation to change; one colour has no contrast."""
    found = with_draws(colour_jitter(0.2, 0.2, 0.2, 0.1), one_colour(100, 100, 100), 1, 1, 1, 0.05)
    assert found[0, 0].tolist() == [120, 120, 120]
    halves = one_colour(50, 50, 50)
    halves[:, 3:] = 150
    spread = with_draws(colour_jitter(0.2, 0.2, 0.2, 0.1), halves, 0, -1, 0, 0)
    assert (spread[0, 0, 0], spread[0, -1, 0]) == (60, 140)
    turned = with_draws(colour_jitter(0.2, 0.2, 0.2, 0.1), one_colour(255, 0, 0), 0, 0, 0, 0.1)
    assert cv2.cvtColor(turned, cv2.COLOR_RGB2HSV)[0, 0, 0] == 18


def test_clahe_widens_what_is_narrow() -> None:
    picture = (scene(hw=(64, 96)).astype(int) // 8 + 100).astype(np.uint8)
    found = with_draws(clahe(2.0, 8), picture, 2.0)
    assert found.astype(float).std() > 1.3 * picture.astype(float).std()


def test_drizzle_shades_and_leaves_streaks() -> None:
    found = drizzle(np.full((80, 120, 3), 50, dtype=np.uint8), np.random.default_rng(0))
    dry = found == round(50 * RAIN_SHADE)
    assert 0.5 < dry.mean() < 0.99
    assert 60 < found.max() <= DROP_GREY


def test_fog_is_white_of_a_tenth_or_more() -> None:
    found = fog(np.zeros((40, 60, 3), dtype=np.uint8), np.random.default_rng(0)) / 255
    # Banks are joined by cubic curves, which swing out a little.
    assert FOG * 0.5 < found.min() < found.mean() < found.max() < 3.5 * FOG
    assert FOG < found.mean() < 3 * FOG
    assert (fog(np.full((4, 6, 3), 255, dtype=np.uint8), np.random.default_rng(0)) == 255).all()


def test_the_sun_stands_in_the_upper_half() -> None:
    dark = np.zeros((60, 90, 3), dtype=np.uint8)
    for seed in range(20):
        found = sun_flare(dark, np.random.default_rng(seed))[..., 0]
        assert found.max() > 200
        assert np.unravel_index(found.argmax(), found.shape)[0] <= 30


@pytest.mark.parametrize("name", ["motion_blur", "gaussian_blur", "median_blur", "downscale"])
def test_blurs_smooth_and_keep_the_mean(name: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 64, 3)).astype(np.uint8)
    found = EFFECTS[name](picture, np.random.default_rng(3))
    assert found.std() < 0.9 * picture.std()
    assert found.mean() == pytest.approx(picture.mean(), abs=4)
    flat = one_colour(10, 99, 200)
    np.testing.assert_array_equal(EFFECTS[name](flat, np.random.default_rng(3)), flat)


def test_motion_blur_along_a_line_by_hand() -> None:
    """Size 7 (the third of 3, 5, 7), direction 0: a dot becomes seven pixels of a row."""
    picture = np.zeros((9, 15, 3), dtype=np.uint8)
    picture[4, 7] = 210
    found = with_draws(motion_blur(7), picture, 2, 0.0)
    assert found[4, :, 0].tolist() == [0] * 4 + [30] * 7 + [0] * 4
    assert found[:4].sum() == found[5:].sum() == 0


def test_gauss_noise_has_the_variance_it_says() -> None:
    grey = np.full((100, 150, 3), 128, dtype=np.uint8)
    for seed in range(5):
        found = gauss_noise(grey, np.random.default_rng(seed)).astype(float) - 128
        assert 9 < found.var() < 52
        assert abs(found.mean()) < 0.2


def test_iso_noise_is_stronger_in_the_dark() -> None:
    picture = np.full((60, 80, 3), 30, dtype=np.uint8)
    picture[:, 40:] = 225
    found = iso_noise(picture, np.random.default_rng(1)).astype(float)
    assert found[:, :40].std() > found[:, 40:].std() > 0


def test_jpeg_keeps_colours() -> None:
    """Red and blue would change places if the channels did."""
    found = with_draws(jpeg(70, 95), one_colour(200, 30, 60), 95)
    np.testing.assert_allclose(found[0, 0].astype(int), [200, 30, 60], atol=4)


# --- pipelines ---


def channels_first(seed: int = 0) -> Pixels:
    return np.ascontiguousarray(scene(seed).transpose(2, 0, 1))


def test_every_name_has_a_pipeline() -> None:
    assert set(PIPELINES) == set(get_args(Augment))


def test_groups_are_those_of_the_table() -> None:
    assert [(group.probability, len(group.effects)) for group in PIPELINES["light"]] == [(0.8, 2), (0.1, 1)]
    heavy = [(0.8, 3), (0.5, 3), (0.1, 3), (0.05, 3), (0.05, 2), (0.1, 2)]
    assert [(group.probability, len(group.effects)) for group in PIPELINES["heavy"]] == heavy


def test_none_changes_and_draws_nothing() -> None:
    image, rng = channels_first(), np.random.default_rng(0)
    before = rng.bit_generator.state
    augment_image(image, "none", rng)
    np.testing.assert_array_equal(image, channels_first())
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("augment", ["light", "heavy"])
def test_images_are_changed_in_place_and_follow_from_the_draws(augment: Augment) -> None:
    different = 0
    for seed in range(30):
        one, other = channels_first(), channels_first()
        augment_image(one, augment, np.random.default_rng(seed))
        augment_image(other, augment, np.random.default_rng(seed))
        np.testing.assert_array_equal(one, other)
        assert one.shape == (3, *HW)
        different += bool((one != channels_first()).any())
    assert different >= 18


def marking(counts: dict[str, int], name: str) -> Effect:
    def effect(picture: Pixels, rng: np.random.Generator) -> Pixels:
        counts[name] = counts.get(name, 0) + 1
        return picture + 1

    return effect


def test_effects_happen_as_often_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {}
    groups = (OneOf(0.8, (marking(counts, "a"), marking(counts, "b"))), OneOf(0.1, (marking(counts, "c"),)))
    monkeypatch.setitem(PIPELINES, "light", groups)
    rng, total = np.random.default_rng(0), 0
    for _ in range(4000):
        image = np.zeros((3, 2, 3), dtype=np.uint8)
        augment_image(image, "light", rng)
        assert (image == image[0, 0, 0]).all()
        total += int(image[0, 0, 0])
    assert total == sum(counts.values())
    assert {name: count / 4000 for name, count in counts.items()} == pytest.approx({"a": 0.4, "b": 0.4, "c": 0.1}, abs=0.03)


@pytest.mark.parametrize("build", [np.asarray, np.asfortranarray])
def test_images_of_any_layout(build: Callable[[Pixels], Pixels]) -> None:
    image, expected = build(channels_first()), channels_first()
    augment_image(image, "heavy", np.random.default_rng(2))
    augment_image(expected, "heavy", np.random.default_rng(2))
    np.testing.assert_array_equal(image, expected)
