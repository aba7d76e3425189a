"""Filters without weights, which smooth the maps of masks and rid them of specks: modules for torch and for export.

A filter is a chain of parts behind one check. Borders reflect about the outermost pixel (OpenCV's BORDER_REFLECT_101): pixel -1
reads pixel 1, so nothing from outside darkens a mask at the border of its image. Where a side isn't larger than the radius, the
reflection goes to and fro between both borders, and a side of one pixel repeats it.

Symbols: N images, C channels, (H, W) pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from roiseg.errors import FilterError
from roiseg.params import Section

Kind = Literal["fast", "edge_preserving", "binary_mask", "morphological"]
Strength = Literal["light", "balanced", "strong"]

TIE = 1e-6
"""A value that symmetry puts on the threshold is below it, whatever the order of a sum does to its last bits."""

BINARY_SHARPNESS = 10.0


def odd(side: int) -> int:
    """A side that has a middle.

    Raises:
        FilterError: it is even.
    """
    if side % 2 == 0:
        raise FilterError(f"a kernel of {side} pixels has no middle and would shift the mask; use {side - 1} or {side + 1}")
    return side


OddSide = Annotated[int, Field(ge=3, le=63), AfterValidator(odd)]


class FilterParams(Section):
    """Which filter, and how strong.

    What isn't given is the preset's, and what no preset sets is the kind's default (`DEFAULTS`).

    Attributes:
        kind: `fast`: a Gaussian that stops at edges; `edge_preserving`: the guided filter; `binary_mask`: a Gaussian that stops at
            edges less, then a threshold; `morphological`: opening, Gaussian, closing, threshold.
        preset: sets kernel size, sigma and iterations in one (`PRESETS`); of the guided filter radius and epsilon.
        kernel_size: side of the Gaussian's window in pixels, odd; larger smooths more and takes longer.
        sigma_spatial: the Gaussian's sigma in pixels; below 1 details stay, above 2 they go.
        sigma_range: differences of the map's values that still count as noise; above them is an edge.
        iterations: how often the map is smoothed.
        radius: of the guided filter's window in pixels.
        epsilon: variance of the map's values below which the guided filter smooths.
        threshold: of the map's values; above it is mask.
        morph_size: side of opening and closing in pixels, odd; specks and holes below it go.
    """

    kind: Kind
    preset: Strength | None = None
    kernel_size: OddSide | None = None
    sigma_spatial: float | None = Field(default=None, ge=0.1, le=32)
    sigma_range: float | None = Field(default=None, ge=0.01, le=10)
    iterations: int | None = Field(default=None, ge=1, le=16)
    radius: int | None = Field(default=None, ge=1, le=31)
    epsilon: float | None = Field(default=None, ge=1e-4, le=10)
    threshold: float | None = Field(default=None, gt=0, lt=1)
    morph_size: OddSide | None = None

    @model_validator(mode="after")
    def _keys_are_the_kinds(self) -> "FilterParams":
        alien = [key for key in self._given() if key not in DEFAULTS[self.kind]]
        if alien:
            raise ValueError(f"the filter {self.kind!r} has no {', '.join(alien)}; it has {', '.join(DEFAULTS[self.kind])}")
        return self

    def _given(self) -> dict[str, Any]:
        return {key: value for key, value in self.model_dump(exclude={"kind", "preset"}).items() if value is not None}

    def chosen(self) -> dict[str, Any]:
        """Every value of the kind, whichever way it was set."""
        preset = PRESETS[self.preset] if self.preset else {}
        return {key: {**preset, **self._given()}.get(key, value) for key, value in DEFAULTS[self.kind].items()}


DEFAULTS: Mapping[Kind, Mapping[str, float]] = {
    "fast": {"kernel_size": 5, "sigma_spatial": 1.0, "sigma_range": 0.1, "iterations": 2},
    "edge_preserving": {"radius": 2, "epsilon": 0.01},
    "binary_mask": {"kernel_size": 7, "sigma_spatial": 1.5, "threshold": 0.5, "iterations": 2},
    "morphological": {"kernel_size": 5, "sigma_spatial": 1.0, "morph_size": 3, "threshold": 0.5},
}
"""Kind -> its keys and their published values."""

PRESETS: Mapping[Strength, Mapping[str, float]] = {
    "light": {"kernel_size": 5, "sigma_spatial": 1.0, "iterations": 1, "radius": 2, "epsilon": 0.01},
    "balanced": {"kernel_size": 7, "sigma_spatial": 1.5, "iterations": 2, "radius": 3, "epsilon": 0.02},
    "strong": {"kernel_size": 9, "sigma_spatial": 2.5, "iterations": 3, "radius": 4, "epsilon": 0.04},
}
"""Kernel, sigma and iterations are the published ones; a kind takes what it has.

The guided filter has none of them: it takes the same window, and an epsilon that grows, since a wider window alone holds more edges
and so changes less.
"""


def reflect(maps: Tensor, radius: int, axis: int) -> Tensor:
    """Go on beyond both ends of an axis by reflection.

    By picking pixels, since padding would want sides that are larger than the radius.

    Args:
        maps: (N, C, H, W).
        radius: pixels to add at each end.
        axis: 2 or 3.

    Returns:
        The same with `2 * radius` more pixels on the axis.
    """
    side = maps.shape[axis]
    # As a tensor: the exporter knows no remainder by a symbolic size.
    period = torch.full((1,), 2 * side - 2, device=maps.device).clamp(min=1)
    place = torch.remainder(torch.arange(-radius, side + radius, device=maps.device), period)
    return maps.index_select(axis, torch.minimum(place, period - place))


def convolve(maps: Tensor, taps: Tensor) -> Tensor:
    """Rows, then columns, with the same weights and reflected borders.

    Args:
        maps: (N, C, H, W) float.
        taps: (k,) weights, k odd.
    """
    channels, weight = maps.shape[1], taps.to(maps.dtype)
    for axis, shape in ((2, (1, 1, -1, 1)), (3, (1, 1, 1, -1))):
        wide = reflect(maps, len(taps) // 2, axis)
        maps = F.conv2d(wide, weight.reshape(shape).expand(channels, -1, -1, -1), groups=channels)
    return maps


def gaussian_taps(kernel_size: int, sigma: float) -> Tensor:
    """Weights of a Gaussian that sum to 1.

    Args:
        kernel_size: how many, odd.
        sigma: in pixels.

    Returns:
        (kernel_size,) float32.

    Raises:
        FilterError: an even number of them.
    """
    offset = torch.arange(odd(kernel_size), dtype=torch.float64) - kernel_size // 2
    weights = (-(offset**2) / (2 * sigma**2)).exp()
    return (weights / weights.sum()).float()


class Smooth(nn.Module):
    """A Gaussian."""

    def __init__(self, *, taps: Tensor) -> None:
        super().__init__()
        self.register_buffer("taps", taps, persistent=False)
        self.reach_px = len(taps) // 2

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return convolve(maps, self.get_buffer("taps"))


class Blend(nn.Module):
    """A Gaussian where the map is flat, the map itself where it has an edge: x + exp(-sharpness * v) * (mean - x).

    `v` is the variance under the Gaussian's window. It stands in for the bilateral filter, whose weights differ at every pixel.
    """

    def __init__(self, *, taps: Tensor, sharpness: float) -> None:
        super().__init__()
        self.register_buffer("taps", taps, persistent=False)
        self.sharpness = sharpness
        self.reach_px = len(taps) // 2

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        mean, square = convolve(torch.cat([maps, maps * maps], dim=1), self.get_buffer("taps")).chunk(2, dim=1)
        variance = (square - mean * mean).clamp(min=0)
        return maps + (-self.sharpness * variance).exp() * (mean - maps)


class Guided(nn.Module):
    """The guided filter (He, Sun and Tang, Guided Image Filtering, algorithm 1): a local line through the guide.

    a = cov(guide, map) / (var(guide) + epsilon), b = mean(map) - a * mean(guide), and mean(a) * guide + mean(b), held to [0, 1].
    """

    def __init__(self, *, radius: int, epsilon: float) -> None:
        super().__init__()
        side = 2 * radius + 1
        self.register_buffer("taps", torch.full((side,), 1 / side), persistent=False)
        self.epsilon = epsilon
        self.reach_px = 2 * radius

    def forward(self, maps: Tensor, guide: Tensor | None = None) -> Tensor:
        """Smooth the maps where the guide is flat.

        Args:
            maps: (N, C, H, W) in [0, 1].
            guide: of the same shape; the maps themselves without it.

        Raises:
            FilterError: a guide of another shape.
        """
        taps, edges = self.get_buffer("taps"), maps if guide is None else guide
        if edges.shape != maps.shape:
            raise FilterError(f"the guide is {tuple(edges.shape)}, but the maps are {tuple(maps.shape)}; resize it to them")
        means = convolve(torch.cat([edges, maps, edges * edges, edges * maps], dim=1), taps)
        mean_edges, mean_maps, square, product = means.chunk(4, dim=1)
        variance = (square - mean_edges * mean_edges).clamp(min=0)
        slope = (product - mean_edges * mean_maps) / (variance + self.epsilon)
        slope, offset = convolve(torch.cat([slope, mean_maps - slope * mean_edges], dim=1), taps).chunk(2, dim=1)
        return (slope * edges + offset).clamp(0, 1)


class Morph(nn.Module):
    """The least value of a square window, then the greatest (opening, which removes specks); or the other way round (closing)."""

    def __init__(self, *, side: int, first: Literal["erode", "dilate"]) -> None:
        super().__init__()
        self.side, self.sign = odd(side), -1 if first == "erode" else 1
        self.reach_px = 2 * (side // 2)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        for sign in (self.sign, -self.sign):
            # A reflected pixel lies in the window too, so leaving out what is outside gives the same as reflecting it.
            maps = sign * F.max_pool2d(sign * maps, self.side, stride=1, padding=self.side // 2)
        return maps


class Threshold(nn.Module):
    """1 above, 0 elsewhere."""

    def __init__(self, *, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.reach_px = 0

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape, of 0 and 1."""
        return (maps > self.threshold + TIE).to(maps.dtype)


Part = Smooth | Blend | Guided | Morph | Threshold


class Filter(nn.Module):
    """A chain of parts, each of which says by `reach_px` how far it looks.

    Attributes:
        channels: that it takes.
        reach_px: how many pixels away a pixel can change the result. A part of a map that is larger by that on every side (or ends
            where the map ends) gives in its middle what the whole map gives there.
    """

    def __init__(self, parts: Sequence[Part], *, channels: int) -> None:
        super().__init__()
        self.parts, self.channels = nn.Sequential(*parts), channels
        self.reach_px = sum(part.reach_px for part in parts)

    def forward(self, maps: Tensor) -> Tensor:
        """Filter maps.

        Args:
            maps: (N, C, H, W) float; values are first held to [0, 1].

        Returns:
            The same shape and dtype, in [0, 1].

        Raises:
            FilterError: not such maps.
        """
        _check(maps, self.channels)
        filtered: Tensor = self.parts(maps.clamp(0, 1))
        return filtered


def _check(maps: object, channels: int) -> None:
    if not isinstance(maps, Tensor):
        raise FilterError(f"the filter got a {type(maps).__name__}, expected a tensor (N, {channels}, H, W); use torch.from_numpy")
    told = f"the filter got maps of {tuple(maps.shape)}"
    if maps.ndim != 4:
        raise FilterError(f"{told}, expected the 4 dimensions (N, {channels}, H, W); add those that lack by maps[None]")
    if maps.shape[1] != channels:
        raise FilterError(f"{told}, {maps.shape[1]} channels, but was built for {channels}; build it with channels={maps.shape[1]}")
    if not maps.is_floating_point():
        raise FilterError(f"the filter got {maps.dtype}, expected float in [0, 1]; use maps.float()")
    # While a graph is made the sizes are symbols, and asking for their value would fix them.
    if not torch.compiler.is_exporting() and 0 in maps.shape[2:]:
        raise FilterError(f"{told}, which holds no pixel; expected at least 1 x 1")


def _fast(*, kernel_size: int, sigma_spatial: float, sigma_range: float, iterations: int) -> list[Part]:
    return [Blend(taps=gaussian_taps(kernel_size, sigma_spatial), sharpness=1 / (2 * sigma_range**2))] * iterations


def _edge_preserving(*, radius: int, epsilon: float) -> list[Part]:
    return [Guided(radius=radius, epsilon=epsilon)]


def _binary_mask(*, kernel_size: int, sigma_spatial: float, threshold: float, iterations: int) -> list[Part]:
    blend = Blend(taps=gaussian_taps(kernel_size, sigma_spatial), sharpness=BINARY_SHARPNESS)
    return [*[blend] * iterations, Threshold(threshold=threshold)]


def _morphological(*, kernel_size: int, sigma_spatial: float, morph_size: int, threshold: float) -> list[Part]:
    opening, closing = Morph(side=morph_size, first="erode"), Morph(side=morph_size, first="dilate")
    return [opening, Smooth(taps=gaussian_taps(kernel_size, sigma_spatial)), closing, Threshold(threshold=threshold)]


_BUILDERS: Mapping[Kind, Callable[..., list[Part]]] = {
    "fast": _fast,
    "edge_preserving": _edge_preserving,
    "binary_mask": _binary_mask,
    "morphological": _morphological,
}


def build_filter(params: FilterParams, *, channels: int) -> Filter:
    """A filter, in eval mode.

    Args:
        params: which, and how strong.
        channels: of the maps that it will take; each is filtered by itself.
    """
    return Filter(_BUILDERS[params.kind](**params.chosen()), channels=channels).eval()


def reach_px(params: FilterParams) -> int:
    """How many pixels away a pixel can change the result; see `Filter`."""
    return build_filter(params, channels=1).reach_px
