"""Boxes of things of every category in the images of an index: what Snapper learns from. The category itself is never shown to it.

`data/objects/{train,val}.parquet`, a row per box, ordered by image row, then annotation id:
`row, image_id, annotation_id, category_id, x0, y0, x1, y1` (image frame, clipped to the image).
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from roiseg.coco import BOX_TOLERANCE_PX, Json
from roiseg.errors import AnnotationError
from roiseg.geometry import Floats, clip_boxes, xywh_to_xyxy
from roiseg.types import HW

COLUMNS = ("row", "image_id", "annotation_id", "category_id", "x0", "y0", "x1", "y1")
OBJECTS = Path("data/objects")

FARTHEST_PX = 1e9
"""Numbers of a box beyond this are no pixels of any image."""


def build_objects(data: Json, images: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """The table of a split.

    Args:
        data: a whole COCO file.
        images: `images.parquet` of the index of the split.

    Returns:
        The table, and counts of what was kept and left out: crowds, and boxes that are none, without area, or outside their image.
        Outlines aren't looked at, so that `data.bad_annotations` has no say here.
    """
    columns = [images[name].to_numpy() for name in ("image_id", "row", "height", "width")]
    rows = {int(image_id): (int(row), (int(height), int(width))) for image_id, row, height, width in zip(*columns, strict=True)}
    counts: Counter[str] = Counter(objects_kept=0, objects_crowd=0, objects_bad_box=0)
    found: list[tuple[float, ...]] = []
    for item in data["annotations"]:
        image_id = item.get("image_id")
        place = rows.get(image_id) if isinstance(image_id, int) else None
        if place is None:
            continue
        if item.get("iscrowd"):
            counts["objects_crowd"] += 1
            continue
        box = _clipped(item.get("bbox"), place[1])
        if box is None or not all(_fits(item.get(name)) for name in ("id", "category_id")):
            counts["objects_bad_box"] += 1
            continue
        counts["objects_kept"] += 1
        found.append((place[0], image_id, item["id"], item["category_id"], *box.tolist()))
    table = pd.DataFrame(found, columns=list(COLUMNS)).astype(dict.fromkeys(COLUMNS[:4], np.int64))
    table = table.astype(dict.fromkeys(COLUMNS[4:], np.float64))
    return table.sort_values(["row", "annotation_id"], ignore_index=True), dict(counts)


def _fits(number: object) -> bool:
    """Whether something is an integer that a table holds."""
    return isinstance(number, int) and -(2**63) <= number < 2**63


def _clipped(box: object, image_hw: HW) -> Floats | None:
    """A COCO box as (4,) xyxy inside its image; None where it can't be used."""
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(item, int | float) for item in box):
        return None
    # Compared before they become floats, which an endless integer can't.
    if not all(abs(item) <= FARTHEST_PX for item in box) or min(box[2:]) <= 0:
        return None
    raw = np.array([box], dtype=np.float64)
    corners = xywh_to_xyxy(raw)
    inside: Floats = clip_boxes(corners, image_hw)
    if np.abs(corners - inside).max() > BOX_TOLERANCE_PX or (inside[0, 2:] <= inside[0, :2]).any():
        return None
    found: Floats = inside[0]
    return found


@dataclass(frozen=True)
class ImageObjects:
    """The boxes of one image.

    Attributes:
        row: of the image in the index and the store.
        annotation_ids: (R,).
        boxes_image: (R, 4) xyxy, image frame.
    """

    row: int
    annotation_ids: NDArray[np.int64]
    boxes_image: Floats


class Objects:
    """The table of a split, without boxes that are too small."""

    def __init__(self, path: Path, min_box_px: float) -> None:
        """Read it.

        Args:
            path: such as `data/objects/train.parquet`.
            min_box_px: boxes that are narrower or lower are left out.

        Raises:
            AnnotationError: there is no such table, or it has no box of that size.
        """
        if not path.is_file():
            raise AnnotationError(f"{path}: no table of objects there; run `dvc repro prepare`")
        table = pd.read_parquet(path)
        boxes = table[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float64)
        large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1).round(6) >= min_box_px if len(boxes) else np.zeros(0, dtype=bool)
        if not large.any():
            raise AnnotationError(
                f"{path}: none of its {len(table)} boxes is at least {min_box_px:g} pixels wide and high "
                "(snapper.data.min_box_px), expected some to learn from; lower it"
            )
        self.path = path
        self._boxes, self._ids = boxes[large], table["annotation_id"].to_numpy(dtype=np.int64)[large]
        rows = table["row"].to_numpy(dtype=np.int64)[large]
        self.rows = np.unique(rows)
        self._starts = np.searchsorted(rows, np.arange(int(rows[-1]) + 2))

    def __len__(self) -> int:
        return len(self._boxes)

    @property
    def most(self) -> int:
        """Boxes of the image that has most of them."""
        return int(np.diff(self._starts).max())

    def of(self, row: int) -> ImageObjects:
        """The boxes of the image of a row; none where it has none."""
        if row + 1 >= len(self._starts):
            return ImageObjects(row, self._ids[:0], self._boxes[:0])
        part = slice(int(self._starts[row]), int(self._starts[row + 1]))
        return ImageObjects(row, self._ids[part], self._boxes[part])
