"""Results of a snapper that exists only here: random boxes, jittered, and moved back by as much as is asked for."""

import numpy as np
from numpy.typing import NDArray

from roiseg.geometry import Floats, jitter_boxes
from roiseg.snapper.results import SnapResults
from roiseg.snapper.windows import to_image, windows_around


def boxes_inside(count: int, rng: np.random.Generator, middle: tuple[float, float] = (0.4, 0.6)) -> Floats:
    """(N, 4) xyxy, share frame; with the default middle, no jitter or window of theirs reaches the border of the image."""
    size = rng.uniform(0.02, 0.3, (count, 2))
    centre = rng.uniform(*middle, (count, 2))
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1)


def snap_results(
    count: int,
    *,
    seed: int = 0,
    buffer: float = 1.35,
    left: float = 0.3,
    per_image: int = 5,
    image_hw: tuple[int, int] = (300, 400),
    truth: Floats | None = None,
    shared: bool = False,
) -> SnapResults:
    """Results on `count` boxes.

    Args:
        count: N.
        seed: of all draws.
        buffer: of the windows.
        left: what is left of each edge's error, times U(0, 1) of each; an edge's peak falls with its own.
        per_image: boxes of an image.
        image_hw: of all images.
        truth: (N, 4) xyxy, share frame; None: `boxes_inside`.
        shared: one ratio of the jitter for both sides.
    """
    rng = np.random.default_rng(seed)
    truth = boxes_inside(count, rng) if truth is None else truth
    rough = jitter_boxes(truth, 0.1, 0.1, rng, shared=shared)
    windows = windows_around(rough, buffer)
    share = rng.random((count, 4))
    snapped = truth + (rough - truth) * left * share
    doubt = np.clip(share + rng.normal(0, 0.1, share.shape), 0, 1)
    numbers = np.arange(count, dtype=np.int64)
    return SnapResults(
        rows=numbers // per_image,
        annotation_ids=1000 + numbers,
        image_hw=np.tile(np.array(image_hw, dtype=np.int64), (count, 1)),
        truth=to_image(truth, image_hw),
        rough=to_image(rough, image_hw),
        windows=to_image(windows, image_hw),
        snapped=to_image(snapped, image_hw),
        peak=1 - 0.9 * doubt,
        entropy=0.9 * doubt,
    )


def chosen(results: SnapResults, places: NDArray[np.int64]) -> SnapResults:
    """Some of the boxes, in the order of `places`."""
    return SnapResults(**{name: values[places] for name, values in vars(results).items()})
