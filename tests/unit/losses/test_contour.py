"""Tests of roiseg.losses.contour: written-out sums, and against a loop."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roiseg.losses.contour import active_contour
from roiseg.losses.region import IGNORE


def test_a_ramp_has_a_slope_and_no_curvature() -> None:
    shares = torch.tensor([0.1, 0.3, 0.5, 0.7])
    logits = torch.stack([(1 - shares).log(), shares.log(), torch.full((4,), -40.0)])[None, :, None, :]
    labels = torch.zeros(1, 1, 4, dtype=torch.int64)
    assert float(active_contour(logits, labels, 0.0)) == pytest.approx(0.2)
    assert float(active_contour(logits, labels, 100.0)) == pytest.approx(0.2, abs=1e-4)


def test_a_spike_by_hand() -> None:
    """0, 1, 0: mean of |1|, |-1| and, of second differences, |-2|."""
    logits = torch.tensor([[80.0, 0.0, 80.0], [0.0, 80.0, 0.0], [0.0, 0.0, 0.0]])[None, :, None, :]
    labels = torch.zeros(1, 1, 3, dtype=torch.int64)
    assert float(active_contour(logits, labels, 0.01)) == pytest.approx(1 + 0.01 * 2)


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 5))
def test_matches_reference(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, 3, height, width))
    labels = rng.choice([0, IGNORE], size=(2, height, width), p=[0.8, 0.2])
    share = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)
    expected = 0.0
    for down, right in ((1, 0), (0, 1)):
        for order, factor in ((1, 1.0), (2, 0.3)):
            values = []
            for roi, row, column in np.ndindex(2, height, width):
                places = [(roi, row + step * down, column + step * right) for step in range(order + 1)]
                if places[-1][1] < height and places[-1][2] < width and all(labels[place] != IGNORE for place in places):
                    line = [share[place] for place in places]
                    values.append(abs(line[1] - line[0] if order == 1 else line[0] - 2 * line[1] + line[2]))
            expected += factor * float(np.mean(values)) if values else 0.0
    found = active_contour(torch.from_numpy(logits), torch.from_numpy(labels), 0.3)
    assert float(found) == pytest.approx(expected, abs=1e-9)
