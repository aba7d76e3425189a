"""Tests of roiseg.filters: values by OpenCV's own filters, borders, strengths, how far a pixel reaches, and what is refused.

Symbols: N images, C channels, (H, W) pixels.
"""

from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from roiseg.errors import FilterError, ParamsError
from roiseg.filters import DEFAULTS, PRESETS, TIE, FilterParams, Guided, Kind, Morph, build_filter, gaussian_taps, reach_px

KINDS: tuple[Kind, ...] = get_args(Kind)
SIZES = [(1, 1), (1, 9), (6, 1), (2, 3), (4, 5), (31, 46)]
"""(H, W): one pixel, lines, sides within the radius, and beyond it; never square."""

OTHER: dict[str, Any] = {
    "kernel_size": 11,
    "sigma_spatial": 3.0,
    "sigma_range": 0.4,
    "iterations": 4,
    "radius": 5,
    "epsilon": 0.2,
    "threshold": 0.3,
    "morph_size": 5,
}
"""Another value of each key."""


def params(kind: Kind, **values: object) -> FilterParams:
    return FilterParams.parse({"kind": kind, **values}, "filter")


def random_maps(*shape: int, seed: int = 0) -> Tensor:
    """Noise that goes a little beyond [0, 1]."""
    return torch.from_numpy(np.random.default_rng(seed).uniform(-0.1, 1.1, shape).astype(np.float32))


def noisy_mask(height: int = 48, width: int = 64) -> Tensor:
    """(1, 1, H, W): an ellipse with soft noise on both sides of its edge, and specks."""
    random = np.random.default_rng(7)
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows - height / 2) / (height / 3)) ** 2 + ((columns - width / 2) / (width / 3)) ** 2 < 1
    values = np.clip(inside + random.normal(0, 0.12, inside.shape), 0, 1)
    specks = random.random(inside.shape) < 0.03
    return torch.from_numpy(np.where(specks, 1 - values, values).astype(np.float32))[None, None]


# --- values ---

Plane = NDArray[Any]
"""(H, W) float64."""


def gauss(plane: Plane, values: dict[str, Any]) -> Plane:
    side, sigma = values["kernel_size"], values["sigma_spatial"]
    return cv2.GaussianBlur(plane, (side, side), sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT_101)


def box(plane: Plane, values: dict[str, Any]) -> Plane:
    side = 2 * values["radius"] + 1
    return cv2.boxFilter(plane, -1, (side, side), normalize=True, borderType=cv2.BORDER_REFLECT_101)


def blend(plane: Plane, values: dict[str, Any], sharpness: float) -> Plane:
    for _ in range(values["iterations"]):
        mean = gauss(plane, values)
        flat = np.exp(-sharpness * np.maximum(gauss(plane**2, values) - mean**2, 0))
        plane = flat * mean + (1 - flat) * plane
    return plane


def guided(plane: Plane, guide: Plane, values: dict[str, Any]) -> Plane:
    mean, mean_guide = box(plane, values), box(guide, values)
    slope = (box(guide * plane, values) - mean_guide * mean) / (box(guide**2, values) - mean_guide**2 + values["epsilon"])
    filtered: Plane = np.clip(box(slope, values) * guide + box(mean - slope * mean_guide, values), 0, 1)
    return filtered


def morphed(plane: Plane, values: dict[str, Any]) -> Plane:
    window = np.ones((values["morph_size"],) * 2, dtype=np.uint8)
    for step, border in ((cv2.erode, cv2.BORDER_REFLECT_101), (cv2.dilate, cv2.BORDER_REFLECT_101)):
        plane = step(plane, window, borderType=border)
    plane = gauss(plane, values)
    for step in (cv2.dilate, cv2.erode):
        plane = step(plane, window, borderType=cv2.BORDER_REFLECT_101)
    return plane


def reference(chosen: FilterParams, maps: Tensor) -> Plane:
    """The same by OpenCV in float64, plane by plane."""
    values = chosen.chosen()
    out = np.empty(maps.shape)
    for place in np.ndindex(maps.shape[0], maps.shape[1]):
        plane = np.clip(maps[place].numpy().astype(np.float64), 0, 1)
        if chosen.kind == "fast":
            out[place] = blend(plane, values, 1 / (2 * values["sigma_range"] ** 2))
        elif chosen.kind == "edge_preserving":
            out[place] = guided(plane, plane, values)
        elif chosen.kind == "binary_mask":
            out[place] = blend(plane, values, 10.0) > values["threshold"] + TIE
        else:
            out[place] = morphed(plane, values) > values["threshold"] + TIE
    return out


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("values", [{}, {"preset": "light"}, {"preset": "strong"}], ids=["default", "light", "strong"])
@pytest.mark.parametrize("kind", KINDS)
def test_values_are_opencvs(kind: Kind, values: dict[str, Any], size: tuple[int, int]) -> None:
    chosen, maps = params(kind, **values), random_maps(2, 3, *size)
    found = build_filter(chosen, channels=3)(maps)
    assert found.shape == maps.shape
    np.testing.assert_allclose(found.numpy(), reference(chosen, maps), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "values",
    [{"sigma_range": 0.01, "kernel_size": 3}, {"sigma_range": 10, "sigma_spatial": 32, "kernel_size": 63, "iterations": 16}],
    ids=["least", "most"],
)
def test_the_ends_of_the_ranges(values: dict[str, Any]) -> None:
    chosen = params("fast", **values)
    found = build_filter(chosen, channels=1)(noisy_mask())
    np.testing.assert_allclose(found.numpy(), reference(chosen, noisy_mask()), rtol=0, atol=1e-5)


def test_least_epsilon() -> None:
    chosen = params("edge_preserving", epsilon=1e-4, radius=31)
    found = build_filter(chosen, channels=1)(noisy_mask())
    np.testing.assert_allclose(found.numpy(), reference(chosen, noisy_mask()), rtol=0, atol=1e-5)


def test_a_guide_of_its_own() -> None:
    """Edges come from the guide: a blurred mask gets them back."""
    sharp = (noisy_mask() > 0.5).float()
    soft = build_filter(params("fast", sigma_range=10, sigma_spatial=2), channels=1)(sharp)
    found = Guided(radius=3, epsilon=0.001)(soft, sharp)
    expected = guided(
        soft[0, 0].numpy().astype(np.float64), sharp[0, 0].numpy().astype(np.float64), {"radius": 3, "epsilon": 0.001}
    )
    np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=0, atol=1e-5)
    assert (found - sharp).abs().mean() < (Guided(radius=3, epsilon=0.001)(soft) - sharp).abs().mean()


def test_written_out_numbers() -> None:
    """Of [0, 1, 0] a Gaussian of weights w, 1 - 2w, w: the middle keeps 1 - 2w, and by reflection both ends get 2w."""
    weight = float(np.exp(-0.5) / (1 + 2 * np.exp(-0.5)))
    chosen = params("fast", kernel_size=3, sigma_spatial=1, sigma_range=10, iterations=1)
    (row,) = build_filter(chosen, channels=1)(torch.tensor([[[[0.0, 1.0, 0.0]]]]))[0, 0].tolist()
    variance = (1 - 2 * weight) * 2 * weight
    flat = np.exp(-variance / 200)
    assert row == pytest.approx([flat * 2 * weight, 1 - flat * 2 * weight, flat * 2 * weight], abs=1e-6)


def test_specks_and_holes_go() -> None:
    mask = torch.zeros(1, 1, 20, 30)
    mask[..., 5:15, 8:24] = 1
    dirty = mask.clone()
    dirty[..., 10, 15] = 0
    dirty[..., 2, 3] = 1
    cleaned = build_filter(params("morphological"), channels=1)(dirty)
    rounded = (cleaned != mask).sum()
    assert rounded <= 4  # no more than the corners
    assert (cleaned[..., 10, 15], cleaned[..., 2, 3]) == (1, 0)


# --- borders and symmetry ---


@pytest.mark.parametrize("kind", KINDS)
def test_mirrored_maps_give_mirrored_results(kind: Kind) -> None:
    module, maps = build_filter(params(kind), channels=1), noisy_mask(23, 34)
    for axes in ((2,), (3,), (2, 3)):
        torch.testing.assert_close(module(maps.flip(axes)), module(maps).flip(axes), rtol=0, atol=2e-6)
    torch.testing.assert_close(module(maps.transpose(2, 3)), module(maps).transpose(2, 3), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_map_stays_up_to_the_border(kind: Kind, size: tuple[int, int]) -> None:
    module = build_filter(params(kind, preset="strong"), channels=1)
    for value in (0.0, 0.5, 0.7, 1.0):
        expected = float(value > 0.5) if "threshold" in DEFAULTS[kind] else value
        torch.testing.assert_close(module(torch.full((1, 1, *size), value)), torch.full((1, 1, *size), expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_at_the_border_is_not_eaten(kind: Kind) -> None:
    mask = torch.zeros(1, 1, 24, 36)
    mask[..., 12:, :] = 1
    found = build_filter(params(kind, preset="strong"), channels=1)(mask)
    assert (found[..., 20:, :] == found[..., 20:, 18:19]).all()
    assert found[..., 20:, :].min() > 0.999


# --- strength and keys ---


@pytest.mark.parametrize("kind", KINDS)
def test_stronger_presets_change_more(kind: Kind) -> None:
    maps = noisy_mask()
    # What a threshold does by itself is no smoothing.
    plain = (maps > 0.5).float() if "threshold" in DEFAULTS[kind] else maps
    changes = [float((build_filter(params(kind, preset=preset), channels=1)(maps) - plain).abs().mean()) for preset in PRESETS]
    assert 0 < changes[0] < changes[1] < changes[2], changes


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind in KINDS for key in DEFAULTS[kind]])
def test_every_key_changes_the_result(kind: Kind, key: str) -> None:
    maps = noisy_mask()
    # Strong, so that a Gaussian's window ends before its tails do.
    changes: tuple[dict[str, Any], ...] = ({}, {key: OTHER[key]})
    before, after = (build_filter(params(kind, preset="strong", **values), channels=1)(maps) for values in changes)
    assert (before != after).any()


def test_presets_are_the_published_ones() -> None:
    assert params("fast").chosen() == {"kernel_size": 5, "sigma_spatial": 1.0, "sigma_range": 0.1, "iterations": 2}
    assert params("fast", preset="strong").chosen() == {
        "kernel_size": 9,
        "sigma_spatial": 2.5,
        "sigma_range": 0.1,
        "iterations": 3,
    }
    assert params("binary_mask").chosen() == params("binary_mask", preset="balanced").chosen()
    assert params("edge_preserving", preset="balanced").chosen() == {"radius": 3, "epsilon": 0.02}
    for preset in PRESETS.values():
        assert preset["radius"] == preset["kernel_size"] // 2  # the same window


def test_a_value_goes_before_the_preset() -> None:
    chosen = params("fast", preset="strong", kernel_size=3, sigma_range=0.2)
    assert chosen.chosen() == {"kernel_size": 3, "sigma_spatial": 2.5, "sigma_range": 0.2, "iterations": 3}


# --- reach ---


@pytest.mark.parametrize("preset", ["light", "strong"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_window_grown_by_the_reach_gives_what_the_whole_map_gives(kind: Kind, preset: str) -> None:
    chosen = params(kind, preset=preset)
    reach, maps = reach_px(chosen), noisy_mask(70, 90)
    module = build_filter(chosen, channels=1)
    whole = module(maps)
    for top, bottom, left, right in ((30, 41, 35, 50), (0, 9, 0, 13), (60, 70, 80, 90)):
        above, before = max(0, top - reach), max(0, left - reach)
        part = module(maps[..., above : bottom + reach, before : right + reach])
        inner = part[..., top - above : bottom - above, left - before : right - before]
        torch.testing.assert_close(inner, whole[..., top:bottom, left:right], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"), [("fast", 4), ("edge_preserving", 4), ("binary_mask", 6), ("morphological", 2 + 2 + 2)]
)
def test_reach_in_pixels(kind: Kind, expected: int) -> None:
    """No pixel less would do: the Jacobian of a filter without its threshold ends there."""
    assert reach_px(params(kind)) == expected
    parts = build_filter(params(kind), channels=1).parts
    maps = noisy_mask(31, 37).requires_grad_()
    soft = parts[:-1] if "threshold" in DEFAULTS[kind] else parts
    soft(maps)[..., 15, :].sum().backward()
    assert maps.grad is not None
    rows = torch.nonzero(maps.grad[0, 0].abs().sum(dim=1)).flatten()
    low, high = int(rows.min()), int(rows.max())
    assert 15 - expected <= low
    assert high <= 15 + expected
    assert max(15 - low, high - 15) == expected


# --- maps ---


@pytest.mark.parametrize("kind", KINDS)
def test_channels_and_images_are_filtered_by_themselves(kind: Kind) -> None:
    maps = random_maps(2, 3, 13, 17)
    whole, single = build_filter(params(kind), channels=3)(maps), build_filter(params(kind), channels=1)
    for image, channel in np.ndindex(2, 3):
        alone = single(maps[image : image + 1, channel : channel + 1])
        torch.testing.assert_close(alone[0, 0], whole[image, channel], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bytes_twice_and_the_input_untouched(kind: Kind) -> None:
    module, maps = build_filter(params(kind), channels=1), noisy_mask() * 1.5 - 0.2
    kept = maps.clone()
    first = module(maps)
    assert torch.equal(first, build_filter(params(kind), channels=1)(maps))
    assert torch.equal(maps, kept)
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, module(maps.clamp(0, 1)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_other_floats_stay_what_they_are(kind: Kind, dtype: torch.dtype) -> None:
    found = build_filter(params(kind), channels=1)(noisy_mask().to(dtype))
    assert found.dtype == dtype
    expected = build_filter(params(kind), channels=1)(noisy_mask())
    assert (found.float() - expected).abs().mean() < 2e-3


@pytest.mark.parametrize("kind", KINDS)
def test_no_image(kind: Kind) -> None:
    assert build_filter(params(kind), channels=2)(torch.zeros(0, 2, 5, 7)).shape == (0, 2, 5, 7)


# --- what is refused ---


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (np.zeros((1, 2, 4, 5), dtype=np.float32), r"got a ndarray, expected a tensor \(N, 2, H, W\); use torch\.from_numpy"),
        (torch.zeros(4, 5), r"got maps of \(4, 5\), expected the 4 dimensions \(N, 2, H, W\); add those that lack by maps\[None\]"),
        (torch.zeros(1, 3, 4, 5), r"got maps of \(1, 3, 4, 5\), 3 channels, but was built for 2; build it with channels=3"),
        (torch.zeros(1, 2, 4, 5, dtype=torch.uint8), r"got torch\.uint8, expected float in \[0, 1\]; use maps\.float\(\)"),
        (torch.zeros(1, 2, 0, 5), r"got maps of \(1, 2, 0, 5\), which holds no pixel; expected at least 1 x 1"),
    ],
    ids=["array", "dimensions", "channels", "integers", "no pixel"],
)
def test_what_is_no_map(maps: Tensor, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        build_filter(params("fast"), channels=2)(maps)


def test_a_guide_of_another_size() -> None:
    with pytest.raises(FilterError, match=r"the guide is \(1, 1, 4, 6\), but the maps are \(1, 1, 4, 5\); resize it to them"):
        Guided(radius=1, epsilon=0.1)(torch.zeros(1, 1, 4, 5), torch.zeros(1, 1, 4, 6))


def test_even_kernels() -> None:
    with pytest.raises(FilterError, match=r"a kernel of 4 pixels has no middle and would shift the mask; use 3 or 5"):
        gaussian_taps(4, 1.0)
    with pytest.raises(FilterError, match="a kernel of 2 pixels has no middle"):
        Morph(side=2, first="erode")
    for kind, key in (("fast", "kernel_size"), ("binary_mask", "kernel_size"), ("morphological", "morph_size")):
        with pytest.raises(ParamsError, match=rf"filter\.{key}: value is 6; .*a kernel of 6 pixels has no middle.*use 5 or 7"):
            FilterParams.parse({"kind": kind, key: 6}, "filter")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "median"}, r"filter\.kind: value is 'median'; input should be 'fast', 'edge_preserving', 'binary_mask' or"),
        ({"kind": "fast", "preset": "weak"}, r"filter\.preset: value is 'weak'; input should be 'light', 'balanced' or 'strong'"),
        (
            {"kind": "fast", "radius": 3, "threshold": 0.4},
            r"the filter 'fast' has no radius, threshold; it has kernel_size, sigma_spatial, sigma_range, iterations",
        ),
        ({"kind": "edge_preserving", "iterations": 2}, r"'edge_preserving' has no iterations; it has radius, epsilon"),
        ({"kind": "fast", "kernel_sise": 5}, r"filter\.kernel_sise: unknown key; did you mean 'kernel_size'\?"),
        ({"kind": "fast", "sigma_range": 0.0}, r"filter\.sigma_range: value is 0\.0; .*greater than or equal to 0\.01"),
        ({"kind": "binary_mask", "threshold": 1.0}, r"filter\.threshold: value is 1\.0; .*less than 1"),
    ],
    ids=["kind", "preset", "alien", "iterations", "typo", "range", "threshold"],
)
def test_params_that_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        FilterParams.parse(values, "filter")
