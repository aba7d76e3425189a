"""Scenes: who stands where in a picture.

A figure is accepted only where it leaves enough of itself and of everybody else to be seen, so a scene holds exactly
as many annotated people as were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from roiseg.sample.background import draw_background
from roiseg.sample.distractor import draw_distractor
from roiseg.sample.figure import draw_figure
from roiseg.sample.render import (
    SUPERSAMPLE,
    Bools,
    Window,
    blur,
    develop,
    owner_map,
    paint_thing,
    silhouette,
    window_of,
)
from roiseg.sample.shape import Points, Thing
from roiseg.sample.texture import Image

MIN_SEEN = 0.45
"""Share of a person's body that must be seen."""
MIN_PIXELS = 10.0
"""Area of a person that must be seen, in pixels."""
NEIGHBOURS = 0.6
"""Share of people who come beside the one before them, if there is room."""
_ATTEMPTS = 60


@dataclass(frozen=True)
class Plan:
    """What a picture shall show.

    Attributes:
        people: Number of annotated people, at least 1.
        crowd: Whether a group of small people is annotated as a crowd.
        tiny: Whether people may be too small for a region of interest of their own.
    """

    people: int
    crowd: bool
    tiny: bool


@dataclass(frozen=True, eq=False)
class Scene:
    """A finished picture.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        things: People and objects, from back to front.
        owners: (2H, 2W) int16: 1 + index of the thing in front, 0 for background.
    """

    image: Image
    things: tuple[Thing, ...]
    owners: npt.NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class _Placed:
    """A thing with what it covers.

    Attributes:
        thing: The thing.
        window: The part of the picture that it can touch.
        mask: (2h, 2w) bool silhouette in that window.
        area: Its area inside and outside the picture, in quarter pixels.
    """

    thing: Thing
    window: Window
    mask: Bools
    area: float


def _place(thing: Thing, size_hw: tuple[int, int]) -> _Placed | None:
    """Measure a thing; None where it lies outside the picture."""
    left, top, right, bottom = thing.bounds()
    window = window_of((left, top, right, bottom), size_hw)
    if window is None:
        return None
    mask = silhouette(thing, window)
    if left >= 0 and top >= 0 and right <= size_hw[1] and bottom <= size_hw[0]:
        return _Placed(thing, window, mask, float(mask.sum()))
    whole = Window(int(np.floor(left)), int(np.floor(top)), int(np.ceil(right)), int(np.ceil(bottom)))
    return _Placed(thing, window, mask, float(silhouette(thing, whole).sum()))


class _Layout:
    """Places things one by one, and keeps everybody in sight."""

    def __init__(self, size_hw: tuple[int, int], rng: np.random.Generator) -> None:
        self.size_hw = size_hw
        self.rng = rng
        self._placed: list[_Placed] = []

    def add(self, thing: Thing, *, keep_seen: bool = True) -> bool:
        """Add a thing, unless somebody could then hardly be seen; returns whether it was added."""
        placed = _place(thing, self.size_hw)
        if placed is None:
            return False
        order = sorted([*self._placed, placed], key=lambda one: one.thing.depth)
        if keep_seen and not (_all_seen(order, self.size_hw) and _clearly_together_or_apart(order, self.size_hw)):
            return False
        self._placed = order
        return True

    def things(self) -> tuple[Thing, ...]:
        """All things, from back to front."""
        return tuple(one.thing for one in self._placed)


def _all_seen(placed: Sequence[_Placed], size_hw: tuple[int, int]) -> bool:
    """Whether enough is seen of each person that is annotated alone; `placed` from back to front."""
    taken = np.zeros((SUPERSAMPLE * size_hw[0], SUPERSAMPLE * size_hw[1]), np.bool_)
    for one in reversed(placed):
        rows, cols = (slice(part.start * SUPERSAMPLE, part.stop * SUPERSAMPLE) for part in one.window.slices)
        behind = taken[rows, cols]
        if one.thing.category == "person" and not one.thing.crowd:
            seen = int(np.count_nonzero(one.mask & ~behind))
            if seen < max(MIN_SEEN * one.area, MIN_PIXELS * SUPERSAMPLE**2):
                return False
        behind |= one.mask
    return True


STEP = 8
"""Quarter pixels between two samples when shares of boxes are estimated."""
CLEAR_SHARE = 0.15
"""Share of a person's box that others take at least, if they take any: a limb's edge in a corner of it teaches nobody anything."""


def _clearly_together_or_apart(placed: Sequence[_Placed], size_hw: tuple[int, int]) -> bool:
    """Whether other people take either nothing or a fair part of each person's box; `placed` from back to front."""
    rows, cols = (-(-SUPERSAMPLE * side // STEP) for side in size_hw)
    owners = np.zeros((rows, cols), np.int16)
    people = [one for one in placed if one.thing.category == "person" and not one.thing.crowd]
    for one in placed:
        top, left = one.window.top * SUPERSAMPLE, one.window.left * SUPERSAMPLE
        mask = one.mask[-top % STEP :: STEP, -left % STEP :: STEP]
        row, col = -(-top // STEP), -(-left // STEP)
        part = owners[row : row + mask.shape[0], col : col + mask.shape[1]]
        part[mask[: part.shape[0], : part.shape[1]]] = 1 + people.index(one) if one in people else 0
    for number in range(1, len(people) + 1):
        seen = np.nonzero(owners == number)
        if not len(seen[0]):
            continue
        # One sample more on each side: the box is known to a sample only.
        box = owners[max(seen[0].min() - 1, 0) : seen[0].max() + 2, max(seen[1].min() - 1, 0) : seen[1].max() + 2]
        share = float(((box > 0) & (box != number)).mean())
        if 0 < share < CLEAR_SHARE:
            return False
    return True


def _random_height(picture: float, rng: np.random.Generator, *, tiny: bool) -> float:
    """Standing height of a person, in pixels: a few tiny, most of middle size, some as high as the picture."""
    bands = ((0.015, 0.05), (0.05, 0.19), (0.19, 0.55), (0.55, 0.98))
    low, high = bands[int(rng.choice(4, p=[0.06, 0.06, 0.53, 0.35] if tiny else [0.0, 0.0, 0.55, 0.45]))]
    return picture * float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _random_foot(size_hw: tuple[int, int], height: float, rng: np.random.Generator) -> Points:
    """Where someone stands: near the floor if large; the sides of the picture may cut him."""
    bottom = rng.uniform(max(0.45 * size_hw[0], 0.8 * height), size_hw[0] + 0.3 * height)
    return np.array([rng.uniform(-0.05, 1.05) * size_hw[1], min(bottom, size_hw[0] * 1.15)])


def _add_person(layout: _Layout, neighbour: tuple[Points, float] | None, *, tiny: bool) -> tuple[Points, float]:
    """Add one person, beside or before `neighbour` if given; returns foot and height."""
    rng, size_hw = layout.rng, layout.size_hw
    for attempt in range(_ATTEMPTS):
        if neighbour is not None and attempt < _ATTEMPTS // 3:
            height = neighbour[1] * float(rng.uniform(0.75, 1.25))
            shift = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.28, 0.5)) * height
            foot = neighbour[0] + np.array([shift, rng.normal(0, 0.05) * height])
        else:
            # The later the attempt, the smaller, so that a place is found even in a full picture.
            height = max(_random_height(size_hw[0], rng, tiny=tiny) * (1 - 0.5 * attempt / _ATTEMPTS), 7.0)
            foot = _random_foot(size_hw, height, rng)
        if layout.add(draw_figure(foot, height, rng)):
            return foot, height
    # Nowhere else: a small person before everybody covers little.
    height = size_hw[0] * 0.1
    while True:
        foot = np.array([rng.uniform(0.1, 0.9) * size_hw[1], size_hw[0] * rng.uniform(0.9, 1.0)])
        if layout.add(draw_figure(foot, height, rng)):
            return foot, height


def _add_crowd(layout: _Layout) -> None:
    """Add a group of many small people that shares one annotation."""
    rng, (height, width) = layout.rng, layout.size_hw
    size = height * float(rng.uniform(0.05, 0.11))
    center = np.array([rng.uniform(0.2, 0.8) * width, rng.uniform(0.3, 0.5) * height])
    for _ in range(int(rng.integers(12, 26))):
        foot = center + rng.normal(0, 1, 2) * np.array([size * 1.6, size * 0.35])
        layout.add(draw_figure(foot, size * float(rng.uniform(0.8, 1.2)), rng, crowd=True), keep_seen=False)


def _arrange(plan: Plan, size_hw: tuple[int, int], rng: np.random.Generator) -> tuple[Thing, ...]:
    """All people and objects, from back to front."""
    layout = _Layout(size_hw, rng)
    if plan.crowd:
        _add_crowd(layout)
    previous: tuple[Points, float] | None = None
    for _ in range(plan.people):
        near = previous if rng.random() < NEIGHBOURS else None
        previous = _add_person(layout, near, tiny=plan.tiny)
    for _ in range(int(rng.integers(1, 5))):
        height = size_hw[0] * float(np.exp(rng.uniform(np.log(0.08), np.log(0.8))))
        layout.add(draw_distractor(_random_foot(size_hw, height, rng), height, rng))
    return layout.things()


def draw_scene(plan: Plan, size_hw: tuple[int, int], rng: np.random.Generator) -> Scene:
    """Draw a picture.

    Args:
        plan: What it shall show.
        size_hw: Height and width, in pixels.
        rng: Source of randomness; the same state gives the same picture.

    Returns:
        The picture and what is in it.
    """
    things = _arrange(plan, size_hw, rng)
    canvas, patches = draw_background(size_hw, rng)
    for patch in patches:
        paint_thing(canvas, patch)
    # What is far is pale and out of focus.
    canvas = 0.5 * canvas + 0.5 * canvas.mean((0, 1), keepdims=True)
    canvas = blur(canvas, float(rng.uniform(4.0, 7.0)))
    for thing in things:
        paint_thing(canvas, thing)
    return Scene(develop(canvas, rng), things, owner_map(things, size_hw))
