"""The stage: from the person-only file to the report, the table and the plots."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from roiseg.analyze.measure import ImageStats, measure_image
from roiseg.analyze.params import AnalyzeParams
from roiseg.analyze.plots import plot_classes, plot_sizes
from roiseg.analyze.summary import sum_roi_pixels, summarise
from roiseg.classes import CLASS_NAMES
from roiseg.coco import Json, People, load_prepared, people_per_image
from roiseg.errors import AnnotationError
from roiseg.files import new_folder, write_bytes, write_json, write_parquet
from roiseg.progress import progress

logger = logging.getLogger(__name__)


def analyze(params: AnalyzeParams, roi_padding: float, report_out: Path, rois_out: Path, folder_out: Path) -> Json:
    """Measure every person of the file and write what was found.

    Args:
        params: section `analyze`.
        roi_padding: `dataset.roi_padding`, which holds where `params.padding` is null.
        report_out: the JSON report.
        rois_out: the table of all ROIs, see `per_roi_table`.
        folder_out: folder for `per_image.parquet`, `classes_and_people.png` and `roi_size.png` (replaced whole).

    Returns:
        The report.

    Raises:
        AnnotationError: the file is broken, empty, or isn't one that `prepare` wrote.
    """
    path = Path(params.annotations)
    padding = roi_padding if params.padding is None else params.padding
    people = load_prepared(path)
    _check_people(people, path)
    groups = people_per_image(people)
    stats = []
    with progress("analyze", len(people.images)) as tick:
        for image in people.images:
            stats.append(measure_image(image, groups[int(image["id"])], padding))
            tick()
    if not sum_roi_pixels(stats).any():
        raise AnnotationError(
            f"{path}: no box of its {len(people.annotations)} people covers a pixel, expected boxes in pixels; "
            "are they normalised to 0..1?"
        )
    report = summarise(stats, padding, params.eps, params.separation_boost, params.align_sizes)
    write_json(report_out, report)
    write_parquet(rois_out, per_roi_table(stats, padding))
    with new_folder(folder_out) as folder:
        write_parquet(folder / "per_image.parquet", per_image_table(stats))
        write_bytes(folder / "classes_and_people.png", plot_classes(stats))
        write_bytes(folder / "roi_size.png", plot_sizes(stats, params.align_sizes))
    shares = ", ".join(f"{name} {share:.1%}" for name, share in report["pixel_ratios"].items())
    logger.info("%d ROIs in %d images: %s", len(people.annotations), len(stats), shares)
    return report


def _check_people(people: People, path: Path) -> None:
    """Refuse what would give numbers about something else than people."""
    if not people.images or not people.annotations:
        raise AnnotationError(
            f"{path}: {len(people.images)} images and {len(people.annotations)} people, expected at least one of each; "
            "point analyze.annotations to the person-only file of the train split and run `dvc repro prepare`"
        )
    alien = sum(item["category_id"] != people.category["id"] for item in people.annotations)
    crowds = sum(bool(item.get("iscrowd")) for item in people.annotations)
    if alien or crowds:
        raise AnnotationError(
            f"{path}: {alien} annotations of other categories than {people.category['name']!r} and {crowds} crowds, "
            "expected neither; point analyze.annotations to a file that `prepare` wrote (*_person_only_no_crowd.json)"
        )


def per_roi_table(stats: Sequence[ImageStats], padding: float) -> pd.DataFrame:
    """A row per ROI, by which a sampler can prefer some to others; whose they are stands in both ids.

    Columns: `image_id`, `annotation_id`; `n_background`, `n_target`, `n_non_target`, the pixels of each class in the ROI, and
    `area`, all of them; `iou_with_neighbour`, the largest IoU of the person's mask with that of another person in the image;
    `padding`, the share of the box's size that was added on each side.

    Args:
        stats: all images.
        padding: the padding that they were measured with.
    """
    pixels = np.concatenate([item.roi_pixels for item in stats])
    table = pd.DataFrame(
        {
            "image_id": np.repeat([item.image_id for item in stats], [item.people for item in stats]).astype(np.int64),
            "annotation_id": np.concatenate([item.annotation_ids for item in stats]),
            **{f"n_{name}": pixels[:, label] for label, name in enumerate(CLASS_NAMES)},
            "area": pixels.sum(axis=1),
            "iou_with_neighbour": np.concatenate([item.neighbour_iou for item in stats]),
        }
    )
    return table.assign(padding=float(padding))


def per_image_table(stats: Sequence[ImageStats]) -> pd.DataFrame:
    """A row per image: sizes and pixel counts in pixels, ratios from 0 to 1, IoU of masks."""
    pixels = np.stack([item.roi_pixels.sum(axis=0) for item in stats])
    foreground = np.array([item.foreground_pixels for item in stats], dtype=np.int64)
    pairs = np.array([len(item.pair_ious) for item in stats], dtype=np.int64)
    table = pd.DataFrame(
        {
            "image_id": np.array([item.image_id for item in stats], dtype=np.int64),
            "height": np.array([item.image_hw[0] for item in stats], dtype=np.int64),
            "width": np.array([item.image_hw[1] for item in stats], dtype=np.int64),
            "num_instances": np.array([item.people for item in stats], dtype=np.int64),
            "has_overlaps": pairs > 0,
            "num_overlapping_pairs": pairs,
            "max_overlap_iou": [float(item.pair_ious.max(initial=0.0)) for item in stats],
            "foreground_pixels": foreground,
            "foreground_ratio": foreground / np.array([item.pixels for item in stats]),
        }
    )
    for label, name in enumerate(CLASS_NAMES):
        table[f"roi_{name}_pixels"] = pixels[:, label]
    return table
