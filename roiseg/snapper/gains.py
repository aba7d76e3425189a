"""By how much a snapper is better than the rough boxes, and how far that could be off by the choice of images.

Percentile bootstrap over images, see `roiseg.evaluate.bootstrap`; both sides are of the same images, so each draw is for both.
"""

import numpy as np

from roiseg.evaluate.bootstrap import draws, percentiles
from roiseg.geometry import Floats
from roiseg.snapper.metrics import measure, within
from roiseg.snapper.results import SnapResults

GAIN, RATIO = "gain_mean_iou", "ratio_edge_share_within_3px"


def gains(results: SnapResults) -> dict[str, float]:
    """What snapping is worth; none where there are no boxes.

    Returns:
        `gain_mean_iou`: mean IoU of the snapped boxes less that of the rough ones. `ratio_edge_share_within_3px`: share of edges
        within 3 px of the image over that of the rough boxes; left out where no rough edge is. Both with the ends of a 95 %
        interval, `..._low` and `..._high`.
    """
    if not len(results):
        return {}
    sums = _image_sums(results)
    whole, resampled = _gains_of(sums.sum(axis=0)[None]), _gains_of(np.concatenate([counts @ sums for counts in draws(len(sums))]))
    found: dict[str, float] = {}
    for name, values in whole.items():
        ends = percentiles(resampled[name])
        if ends is not None and not np.isnan(values[0]):
            found |= {name: float(values[0]), f"{name}_low": ends[0], f"{name}_high": ends[1]}
    return found


def _image_sums(results: SnapResults) -> Floats:
    """(I, 4) of each image: boxes, sum of what they gained in IoU, edges within 3 px, and those of the rough boxes."""
    snapped, rough = measure(results, results.snapped), measure(results, results.rough)
    near = [within(found.edges_px, 3).sum(axis=1) for found in (snapped, rough)]
    columns = np.stack([np.ones(len(results)), snapped.iou - rough.iou, *near], axis=1)
    images, places = np.unique(results.rows, return_inverse=True)
    sums = np.zeros((len(images), columns.shape[1]))
    np.add.at(sums, places, columns)
    return sums


def _gains_of(sums: Floats) -> dict[str, Floats]:
    """Name -> (B,) of summed images (B, 4); NaN where no rough edge is near."""
    boxes, gained, near, near_rough = sums.T
    ratio = np.divide(near, near_rough, out=np.full(len(sums), np.nan), where=near_rough > 0)
    return {GAIN: gained / boxes, RATIO: ratio}
