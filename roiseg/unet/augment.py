"""Photometric augmentation of cached images: other light, weather, lens and camera, the same people in the same places.

Nothing is flipped or moved here: the maps that are cached beside an image belong to it as it stands, and the stored mirrored view
is the one geometric augmentation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from roiseg.unet.effects import (
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

Augment = Literal["none", "light", "heavy"]


@dataclass(frozen=True)
class OneOf:
    """Effects of which one, all alike likely, happens with a probability.

    Attributes:
        probability: that one happens.
        effects: one or more.
    """

    probability: float
    effects: Sequence[Effect]


PIPELINES: Mapping[Augment, Sequence[OneOf]] = {
    "none": (),
    "light": (
        OneOf(0.8, (brightness_contrast(0.2), hsv(10, 20, 20))),
        OneOf(0.1, (gaussian_blur(3, 5),)),
    ),
    "heavy": (
        OneOf(0.8, (colour_jitter(0.2, 0.2, 0.2, 0.1), hsv(20, 30, 20), rgb_shift(15))),
        OneOf(0.5, (brightness_contrast(0.3), clahe(2.0, 8), gamma(80, 120))),
        OneOf(0.1, (drizzle, fog, sun_flare)),
        OneOf(0.05, (motion_blur(7), gaussian_blur(3, 7), median_blur(5))),
        OneOf(0.05, (gauss_noise, iso_noise)),
        OneOf(0.1, (jpeg(70, 95), downscale(0.5, 0.9))),
    ),
}
"""What happens in turn (spec 3.4, without its flip)."""


def augment_image(image: NDArray[np.uint8], augment: Augment, rng: np.random.Generator) -> None:
    """Change the colours of an image in place.

    Args:
        image: (3, H, W), RGB.
        augment: which of `PIPELINES`; "none" draws nothing.
        rng: source of the draws.
    """
    picture = None
    for group in PIPELINES[augment]:
        if rng.random() >= group.probability:
            continue
        effect = group.effects[int(rng.integers(len(group.effects)))]
        picture = np.ascontiguousarray(image.transpose(1, 2, 0)) if picture is None else picture
        picture = effect(picture, rng)
    if picture is not None:
        image[:] = picture.transpose(2, 0, 1)
