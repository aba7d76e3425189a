"""Weights of the backbone: one kernel and one bias for each convolution, batch norm folded in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from roiseg.sample.texture import Floats
from roiseg.sample.topology import ConvSpec

Weights = dict[str, tuple[Floats, Floats]]
"""Module name to kernel (outputs, inputs / groups, k, k) and bias (outputs,), both float32."""


def initial_weights(specs: Sequence[ConvSpec], rng: np.random.Generator) -> Weights:
    """Draw weights that keep the variance (He et al., arXiv:1502.01852, equation 10).

    Both stems start with filters for colours and edges, which a minute of training would hardly find.

    Args:
        specs: The convolutions.
        rng: Source of randomness.

    Returns:
        Kernels, and biases of 0.
    """
    weights = {}
    for spec in specs:
        fan_in = spec.inputs // spec.groups * spec.kernel**2
        # SiLU passes less than the rectifier does; without batch norm the signal would die within 200 layers.
        gain = 2.6 if spec.normed else 1.0
        kernel = rng.standard_normal((spec.outputs, spec.inputs // spec.groups, spec.kernel, spec.kernel), np.float32)
        kernel *= np.float32(np.sqrt(gain / fan_in))
        weights[spec.name] = (kernel, np.zeros(spec.outputs, np.float32))
    for name in ("model.1", "model.15"):
        _see_edges(weights[name][0])
    for name in ("model.2", "model.17"):
        _pass_means(weights[name][0])
    for name in ("model.3.cv1", "model.19.cv1"):
        _pass_on(weights[name][0])
    return weights


EDGE_GAIN = 24.0
"""Factor on differences of neighbouring pixels (about 0.05), so large that SiLU rectifies them and means keep their energy."""
COLOR_GAIN = 4.0


def _see_edges(kernel: Floats) -> None:
    """First filters of a stem (outputs, 3, 3, 3), in place: mean colours, and both signs of Laplacian, x and y differences."""
    mean = np.full((3, 3), 1 / 9, np.float32)
    laplace = -mean
    laplace[1, 1] += 1
    across = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32) / 8
    filters = [np.stack([mean * (COLOR_GAIN if c == color else 0) for c in range(3)]) for color in range(3)]
    for edge in (laplace, across, across.T):
        filters += [np.repeat(sign * EDGE_GAIN / 3 * edge[None], 3, 0) for sign in (1.0, -1.0)]
    count = min(len(filters), len(kernel))
    kernel[:count] = np.stack(filters[:count])


def _pass_means(kernel: Floats) -> None:
    """First filters of (outputs, inputs, 3, 3), in place: the mean of each input around the cell."""
    for number in range(min(kernel.shape[:2])):
        kernel[number] = 0
        kernel[number, number] = 1 / 9


def _pass_on(kernel: Floats) -> None:
    """First filters of (outputs, inputs, 1, 1), in place: each input as it is."""
    for number in range(min(kernel.shape[0] // 2, kernel.shape[1])):
        kernel[number] = 0
        kernel[number, number] = 1
