"""Class weights from the pixel shares of the three classes.

Every function takes `ratios`, the share of ROI pixels of each of `roiseg.masks.CLASS_NAMES` (0 to 1, sum 1), and gives
weights by the same names whose sum is the number of classes, so that a loss keeps its size.
"""

import math
from collections.abc import Mapping

from roiseg.classes import CLASS_NAMES, NON_TARGET


def _normalised(weights: Mapping[str, float]) -> dict[str, float]:
    scale = len(CLASS_NAMES) / math.fsum(weights.values())
    return {name: value * scale for name, value in weights.items()}


def frequency_class_weights(ratios: Mapping[str, float], eps: float) -> dict[str, float]:
    """Weights proportional to `1 / (ratio + eps)`.

    Args:
        ratios: share of each class.
        eps: added to every share (> 0), which bounds the weight of a class that hardly occurs.
    """
    return _normalised({name: 1 / (ratios[name] + eps) for name in CLASS_NAMES})


def log_class_weights(ratios: Mapping[str, float], eps: float) -> dict[str, float]:
    """Weights proportional to `ln(1 / (ratio + eps))`, which spread less than the inverse shares.

    Args:
        ratios: share of each class.
        eps: added to every share (0 < eps < 0.5).
    """
    # A class that fills every ROI would get a logarithm just below 0, and a loss that rewards mistakes.
    return _normalised({name: max(-math.log(ratios[name] + eps), 0.0) for name in CLASS_NAMES})


def separation_aware_weights(ratios: Mapping[str, float], eps: float, boost: float) -> dict[str, float]:
    """The log weights with more stress on other people, which is what tells neighbours apart.

    Args:
        ratios: share of each class.
        eps: as in `log_class_weights`.
        boost: factor on the weight of class 2 before the sum is restored (> 0).
    """
    weights = log_class_weights(ratios, eps)
    name = CLASS_NAMES[NON_TARGET]
    return _normalised({**weights, name: weights[name] * boost})
