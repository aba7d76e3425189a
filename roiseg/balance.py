"""Epochs in which crowded images come up as often as others."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GROUP_EDGES = (0.1, 0.3)
"""Class-2 shares between the groups few, some and many; images without class 2 are a group of their own."""

GROUP_NAMES = ("none", "below 10 %", "10 to 30 %", "above 30 %")


def crowdedness(shares: NDArray[np.float32]) -> Ints:
    """Group of each image, a place in `GROUP_NAMES`.

    Args:
        shares: (N,) class-2 share of each image, from 0 to 1.
    """
    low, high = GROUP_EDGES
    return (shares > 0).astype(np.int64) + (shares >= low) + (shares > high)


def systematic_counts(expected: Floats, rng: np.random.Generator) -> Ints:
    """How often each of some items is drawn, when item i is to be drawn `expected[i]` times on average.

    Systematic sampling (Madow, "On the theory of systematic sampling, II", 1949): each count is its expectation rounded up or
    down.

    Args:
        expected: (N,) of a whole sum.
        rng: source of the draws; the items are taken in a random order, so that neighbours aren't tied to each other.

    Returns:
        (N,) whose sum is that of `expected`.
    """
    order = rng.permutation(len(expected))
    ends = np.cumsum(expected[order])
    ends[-1] = round(float(ends[-1]))
    marks = np.minimum(np.floor(ends + rng.random()), ends[-1]).astype(np.int64)
    counts = np.empty(len(expected), dtype=np.int64)
    counts[order] = np.diff(marks, prepend=0)
    return counts


class Balance:
    """Draws the images of an epoch, as many as there are, from groups of images that come up equally often."""

    def __init__(self, groups: Ints, weights: Floats) -> None:
        """Plan the draws.

        Args:
            groups: (N,) group of each image; groups without images are left out.
            weights: (N,) positive; within a group an image comes up in proportion to its own.
        """
        self.names, self.sizes = np.unique(groups, return_counts=True)
        self._members = [np.flatnonzero(groups == name) for name in self.names]
        self._weights = [weights[members] for members in self._members]
        self._turns, self._rest = divmod(len(groups), max(len(self._members), 1))
        self._count = len(groups)

    @property
    def most(self) -> Ints:
        """(N,) times that an image comes up in an epoch at most."""
        most = np.zeros(self._count, dtype=np.int64)
        for members, weights in zip(self._members, self._weights, strict=True):
            most[members] = np.ceil(weights * (self._turns + (self._rest > 0)) / weights.sum())
        return most

    def draw(self, rng: np.random.Generator) -> Ints:
        """Numbers (N,) of the images of an epoch, group after group, with repeats."""
        # Where the groups don't divide the epoch, chance says which of them come up once more.
        turns = self._turns + (rng.permutation(len(self._members)) < self._rest)
        drawn = [
            np.repeat(members, systematic_counts(weights * count / weights.sum(), rng))
            for members, weights, count in zip(self._members, self._weights, turns.tolist(), strict=True)
        ]
        return np.concatenate([np.zeros(0, dtype=np.int64), *drawn])
