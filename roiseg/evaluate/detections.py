"""The person boxes that a detector found, in row order of the index: its own, as extract wrote them, or COCO results.

Symbols: N images, K boxes of all of them, k of one.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from roiseg.errors import ResultsError
from roiseg.evaluate.coco_eval import MAX_RESULTS
from roiseg.evaluate.coco_truth import Json
from roiseg.evaluate.results import read_results
from roiseg.geometry import Floats, clip_boxes, xywh_to_xyxy
from roiseg.index import Index

MIN_SIDE_PX = 1.0
"""Pixels of the image that a box must have each way: less can't hold a mask."""

RESULTS = ".json"
"""Ending of COCO results."""

OTHER_CATEGORIES = "boxes_of_other_categories"

COLUMNS = ("row", "image_id", "x0", "y0", "x1", "y1", "score")


@dataclass(frozen=True)
class Detections:
    """Boxes of N images, at most `MAX_RESULTS` each, 40 bytes a box.

    Attributes:
        starts: (N + 1,) where the boxes of each row begin.
        boxes: (K, 4) float64 xyxy, unit frame, inside the image; best score first in each image.
        scores: (K,) float64.
        counts: `boxes`, and how many were left out: `boxes_too_small`, `boxes_beyond_100`, `boxes_of_other_categories`.
    """

    starts: NDArray[np.int64]
    boxes: Floats
    scores: Floats
    counts: Mapping[str, int]

    def of(self, row: int) -> tuple[Floats, Floats]:
        """Boxes (k, 4) and scores (k,) of the image of a row."""
        part = slice(int(self.starts[row]), int(self.starts[row + 1]))
        return self.boxes[part], self.scores[part]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the images that have boxes."""
        return np.flatnonzero(np.diff(self.starts)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.scores)


def load_detections(path: Path, index: Index, category_id: int) -> Detections:
    """The boxes to run a head on.

    Args:
        path: param `evaluate.detections`: what extract wrote, or a COCO results JSON.
        index: tables of the split.
        category_id: of people, in the annotations and in the results.

    Raises:
        ResultsError: missing, broken, or of other images.
    """
    return results_detections(path, index, category_id) if path.suffix == RESULTS else stored_detections(path, index)


def stored_detections(path: Path, index: Index) -> Detections:
    """What extract wrote; without boxes where the ONNX has none (`extractor.detections: null`).

    Raises:
        ResultsError: missing, broken, without a column, or of other images than the index.
    """
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError as error:
        raise ResultsError(f"{path}: no detections there; run `dvc repro extract`, or `dvc pull {path}`") from error
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: can't be read as Parquet ({error}); run `dvc repro extract`") from error
    lacking = [name for name in COLUMNS if name not in table]
    if lacking:
        raise ResultsError(f"{path}: has no column {lacking[0]!r}, expected {', '.join(COLUMNS)}; run `dvc repro extract`")
    rows, ids = table["row"].to_numpy(dtype=np.int64), table["image_id"].to_numpy(dtype=np.int64)
    inside = (rows >= 0) & (rows < len(index))
    wrong = np.flatnonzero(~inside | (index.image_ids[np.where(inside, rows, 0)] != ids))
    if len(wrong):
        raise ResultsError(
            f"{path}: {len(wrong)} of {len(table)} boxes are of other images than the index, such as image {ids[wrong[0]]} in row "
            f"{rows[wrong[0]]}; run `dvc repro extract`, so that both are of the same annotations"
        )
    boxes, scores = table[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float64), table["score"].to_numpy(dtype=np.float64)
    broken = np.flatnonzero(~np.isfinite(np.concatenate([boxes, scores[:, None]], axis=1)).all(axis=1))
    if len(broken):
        raise ResultsError(
            f"{path}: {len(broken)} of {len(table)} boxes hold a number that isn't finite, such as one of image {ids[broken[0]]}; "
            "run `dvc repro extract`, and look at the detector's input rule (extractor.pixel_max, extractor.color)"
        )
    return _sorted_out(index, rows, boxes, scores, Counter())


def results_detections(path: Path, index: Index, category_id: int) -> Detections:
    """The boxes of a COCO results file; results of other categories are counted and left out.

    Args:
        path: a list of image_id, category_id, bbox (left, top, width, height in pixels of the image) and score.
        index: tables of the split.
        category_id: of people.

    Raises:
        ResultsError: can't be read, has results for unknown images, or a bbox or score that can't be used.
    """
    places = {image_id: row for row, image_id in enumerate(index.image_ids.tolist())}
    counts, unknown = Counter[str](), Counter[str]()
    rows, values = array("q"), array("d")
    for number, result in enumerate(read_results(path)):
        image_id = result.get("image_id")
        if result.get("category_id") != category_id:
            counts[OTHER_CATEGORIES] += 1
        elif isinstance(image_id, int) and image_id in places:
            rows.append(places[image_id])
            values.extend(_box_and_score(result, f"{path}: result {number}, image {image_id}"))
        else:
            unknown[repr(image_id)] += 1
    if unknown:
        raise ResultsError(
            f"{path}: {unknown.total()} results are for {len(unknown)} images that aren't in the index, such as image "
            f"{next(iter(unknown))}; give results for the annotations that data.val names, without its images of crowds"
        )
    if counts and not rows:
        raise ResultsError(
            f"{path}: all {counts.total()} results are of other categories than {category_id}, that of the annotated people; write "
            "the category_id that the annotations have"
        )
    table, found = np.array(values, dtype=np.float64).reshape(-1, 5), np.array(rows, dtype=np.int64)
    boxes_image = xywh_to_xyxy(table[:, :4])
    boxes = np.zeros_like(boxes_image)
    for row, part in _by_row(found):
        resize = index.resize(row)
        boxes[part] = resize.boxes_to_unit(clip_boxes(boxes_image[part], resize.image_hw))
    return _sorted_out(index, found, boxes, table[:, 4], counts)


def _box_and_score(result: Json, what: str) -> list[float]:
    """Left, top, width, height and score of a result; `what` names it in messages."""
    bbox, score = result.get("bbox"), result.get("score")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(item) for item in bbox):
        raise ResultsError(
            f"{what}: its bbox is {bbox!r}, expected 4 finite numbers: left, top, width, height in pixels of the image; "
            "write such boxes"
        )
    if not _is_number(score):
        raise ResultsError(f"{what}: its score is {score!r}, expected a finite number; write the detector's confidence")
    return [float(item) for item in (*bbox, score)]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _by_row(rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each row that is there, and where it is."""
    order = np.argsort(rows, kind="stable")
    found, starts = np.unique(rows[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, starts[1:]), strict=False)


def _sorted_out(index: Index, rows: NDArray[np.int64], boxes: Floats, scores: Floats, counts: Counter[str]) -> Detections:
    """Boxes in row order, best first, without those that are too small or too many."""
    sides = np.zeros((len(rows), 2))
    for row, part in _by_row(rows):
        inside = index.resize(row).boxes_to_image(boxes[part])
        sides[part] = inside[:, 2:] - inside[:, :2]
    # What a detector writes with few digits, or is brought from frame to frame, misses a whole pixel by rounding.
    large = np.flatnonzero((sides.round(6) >= MIN_SIDE_PX).all(axis=1))
    order = large[np.lexsort((-scores[large], rows[large]))]
    kept = order[np.arange(len(order)) - np.searchsorted(rows[order], rows[order]) < MAX_RESULTS]
    told = {
        "boxes": len(kept),
        "boxes_too_small": len(rows) - len(large),
        "boxes_beyond_100": len(large) - len(kept),
        OTHER_CATEGORIES: counts[OTHER_CATEGORIES],
    }
    starts = np.searchsorted(rows[kept], np.arange(len(index) + 1)).astype(np.int64)
    return Detections(starts, boxes[kept], scores[kept], told)
