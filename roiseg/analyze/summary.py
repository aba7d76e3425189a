"""One report out of the statistics of all images.

Field names down to `separation_aware_weights` are those of the original project's `data_analyze.json`, so that files
of both kinds can be read by the same code.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiseg.analyze.measure import ImageStats
from roiseg.analyze.weights import frequency_class_weights, log_class_weights, separation_aware_weights
from roiseg.classes import CLASS_NAMES
from roiseg.coco import Json
from roiseg.geometry import Floats

COVERAGE_FACTORS = (2, 4, 8)
"""Down-sampling of an ROI's longer side that still counts as excellent, good and acceptable."""

DIGITS = 12
"""Significant digits of a float in the report; the last ones of a sum differ between processors."""

Numbers = NDArray[np.int64] | Floats


def summarise(
    stats: Sequence[ImageStats],
    padding: float,
    eps: float,
    separation_boost: float,
    align_sizes: Sequence[int],
) -> Json:
    """The report that is written to `data_analyze.json`.

    Args:
        stats: all images; at least one ROI of them covers a pixel.
        padding: the padding that they were measured with.
        eps: see `log_class_weights`.
        separation_boost: see `separation_aware_weights`.
        align_sizes: ROIAlign output sizes to tell the coverage of.
    """
    totals = sum_roi_pixels(stats)
    ratios = {name: int(count) / int(totals.sum()) for name, count in zip(CLASS_NAMES, totals, strict=True)}
    people = np.array([item.people for item in stats], dtype=np.int64)
    ious = np.concatenate([item.pair_ious for item in stats])
    sizes = np.concatenate([item.roi_size for item in stats])
    overlapping = sum(len(item.pair_ious) > 0 for item in stats)
    multiple = int(np.count_nonzero(people > 1))
    report = {
        "total_images": len(stats),
        "total_instances": int(people.sum()),
        "images_with_multiple_instances": multiple,
        "pixel_counts": {name: int(count) for name, count in zip(CLASS_NAMES, totals, strict=True)},
        "pixel_ratios": ratios,
        "instance_count_distribution": {str(key): count for key, count in sorted(Counter(people.tolist()).items())},
        "instance_overlap_stats": {
            "images_with_overlaps": overlapping,
            "total_overlapping_pairs": len(ious),
            "avg_iou": float(ious.mean()) if len(ious) else 0.0,
            "max_iou": float(ious.max(initial=0.0)),
        },
        "roi_stats": _roi_stats(stats),
        "summary": {
            "avg_instances_per_image": float(people.mean()),
            "percent_multi_instance_images": 100 * multiple / len(stats),
            "percent_images_with_overlaps": 100 * overlapping / len(stats),
        },
        "recommended_class_weights": frequency_class_weights(ratios, eps),
        "recommended_log_class_weights": log_class_weights(ratios, eps),
        "separation_aware_weights": separation_aware_weights(ratios, eps, separation_boost),
        "class_order": list(CLASS_NAMES),
        "padding": padding,
        "whole_image": _whole_image(stats),
        "people_per_image": {**_spread(people, ()), "max": int(people.max())},
        "roi_size_px": _roi_sizes(sizes),
        "roi_size_coverage": coverage_table(sizes, align_sizes),
    }
    return {key: _stable(value) for key, value in report.items()}


def sum_roi_pixels(stats: Sequence[ImageStats]) -> NDArray[np.int64]:
    """Pixels (3,) of each class over all ROIs."""
    return np.asarray(np.concatenate([item.roi_pixels for item in stats]).sum(axis=0))


def coverage_table(sizes: Floats, align_sizes: Sequence[int]) -> dict[str, dict[str, float]]:
    """How far ROIAlign shrinks the longer side of an ROI.

    Args:
        sizes: (N, 2) width and height of ROIs in image pixels.
        align_sizes: output sizes of ROIAlign in cells.

    Returns:
        By align size: `at_most_{k}x`, the share of ROIs whose longer side is shrunk at most k times, and `mean_factor`,
        the mean of longer side / align size (below 1 where ROIs are enlarged).
    """
    longer = sizes.max(axis=1)
    return {
        str(size): {
            **{f"at_most_{factor}x": float(np.mean(longer <= factor * size)) for factor in COVERAGE_FACTORS},
            "mean_factor": float(np.mean(longer / size)),
        }
        for size in align_sizes
    }


def _roi_stats(stats: Sequence[ImageStats]) -> dict[str, float]:
    shares = np.concatenate([item.roi_pixels.sum(axis=1) / item.pixels for item in stats])
    people = np.concatenate([item.people_in_roi for item in stats])
    return {
        "avg_roi_area_ratio": float(shares.mean()),
        "avg_instances_per_roi": float(people.mean()),
        "roi_overlap_ratio": float(np.mean(people > 1)),
        "rois_without_pixels": int(np.count_nonzero(shares == 0)),
    }


def _whole_image(stats: Sequence[ImageStats]) -> Json:
    foreground = sum(item.foreground_pixels for item in stats)
    total = sum(item.pixels for item in stats)
    shares = np.array([item.foreground_pixels / item.pixels for item in stats])
    return {
        "pixel_counts": {"foreground": foreground, "background": total - foreground},
        "pixel_ratios": {"foreground": foreground / total, "background": (total - foreground) / total},
        "foreground_ratio_per_image": _spread(shares, (10, 25, 75, 90)),
    }


def _roi_sizes(sizes: Floats) -> dict[str, dict[str, float]]:
    width, height = sizes.T
    # A box may leave its image by a rounding, so one of a fraction of a pixel may lie outside altogether.
    aspect = width[height > 0] / height[height > 0]
    values = {"width": width, "height": height, "area": width * height, "aspect_width_by_height": aspect}
    return {name: _spread(value, (5, 95)) for name, value in values.items()}


def _spread(values: Numbers, percentiles: Sequence[int]) -> dict[str, float]:
    """Mean, standard deviation of the population, median, and percentiles with linear interpolation."""
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "median": float(np.median(values)),
        **{f"p{rank}": float(np.percentile(values, rank)) for rank in percentiles},
    }


def _stable(value: Any) -> Any:  # noqa: ANN401 - any part of a JSON tree
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _stable(item) for key, item in value.items()}
    return value
