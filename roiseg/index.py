"""The index tables: which image is which row of the store, and who is in it.

`images.parquet`, a row per image in the order of the feature store:
`row, image_id, file_name, height, width`.

`people.parquet`, a row per person, ordered by image row, then annotation id:
`row, image_id, annotation_id, x0, y0, x1, y1` (unit frame, clipped to the image), `area` (COCO's, square pixels),
`segmentation` (JSON: polygons in the unit frame, or an RLE of the image frame), `siblings` (annotation ids of the other
people whose box meets this one's), `drop_reason` (null: the person has an ROI of its own; `too_small`: paints class 2 only).
Its row groups are small, so that outlines, which are nearly all of it, are read from the file when an image is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from roiseg.coco import People, people_per_image
from roiseg.errors import AnnotationError
from roiseg.geometry import Floats, Resize, ResizeMode, box_iou, clip_boxes, xywh_to_xyxy
from roiseg.masks import Segmentation
from roiseg.types import HW

TOO_SMALL = "too_small"

UNHELD = ("segmentation", "siblings")
"""Columns that `Index` doesn't hold: the long ones."""

PEOPLE_PER_GROUP = 64
"""Rows of a row group of `people.parquet`: few, since a group is read for each image; more, and the footer is shorter."""

GROUPS_HELD = 8
"""Row groups of outlines in memory, which spare reading them again in a small data set or in row order."""

PEOPLE_COLUMNS = (
    "row",
    "image_id",
    "annotation_id",
    "x0",
    "y0",
    "x1",
    "y1",
    "area",
    "segmentation",
    "siblings",
    "drop_reason",
)


def build_tables(people: People, network_hw: HW, mode: ResizeMode, min_box_px: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of a split.

    Args:
        people: images and annotations, sorted by id.
        network_hw: size of the network input, which the unit frame belongs to.
        mode: how images are resized to it.
        min_box_px: people whose box is narrower or lower than this in the image get no ROI, but still paint class 2.
    """
    images = pd.DataFrame(
        {
            "row": np.arange(len(people.images), dtype=np.int64),
            "image_id": np.array([item["id"] for item in people.images], dtype=np.int64),
            "file_name": [str(item["file_name"]) for item in people.images],
            "height": np.array([item["height"] for item in people.images], dtype=np.int64),
            "width": np.array([item["width"] for item in people.images], dtype=np.int64),
        }
    )
    groups = people_per_image(people)
    rows: list[tuple[object, ...]] = []
    for row, image in enumerate(people.images):
        image_hw = (int(image["height"]), int(image["width"]))
        resize = Resize(image_hw, network_hw, mode)
        group = groups[int(image["id"])]
        raw = xywh_to_xyxy(np.array([item["bbox"] for item in group], dtype=np.float64))
        inside = clip_boxes(raw, image_hw)
        boxes = resize.boxes_to_unit(inside)
        sides = (inside[:, 2:] - inside[:, :2]).min(axis=1).round(6)  # x + width - x differs from width in the last bit
        meets = box_iou(boxes, boxes) > 0
        for number, item in enumerate(group):
            near = [int(group[other]["id"]) for other in np.flatnonzero(meets[number]) if other != number]
            siblings = np.array(near, dtype=np.int64)  # a list would lose its type in a table where nobody has any
            small = sides[number] < min_box_px
            text = Segmentation.from_coco(item["segmentation"], resize).to_json()
            area = float(item.get("area", 0.0))
            rows.append((row, item["id"], *boxes[number], area, text, siblings, TOO_SMALL if small else None))
    columns = [name for name in PEOPLE_COLUMNS if name != "image_id"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(1, "image_id", images["image_id"].to_numpy()[table["row"].to_numpy(dtype=np.int64)])
    table["drop_reason"] = table["drop_reason"].astype("string")
    return images, table.astype({"annotation_id": np.int64, "row": np.int64})


@dataclass(frozen=True)
class ImagePeople:
    """Everybody in one image.

    Attributes:
        row: row of the image in the index and the store.
        image_id: COCO's id.
        image_hw: size of the image in pixels.
        annotation_ids: (P,) int64.
        boxes: (P, 4) xyxy, unit frame.
        areas: (P,) float64, COCO's, square pixels of the image.
        has_roi: (P,) bool, false for people that only paint class 2.
        segmentations: P outlines.
    """

    row: int
    image_id: int
    image_hw: HW
    annotation_ids: NDArray[np.int64]
    boxes: Floats
    areas: Floats
    has_roi: NDArray[np.bool_]
    segmentations: Sequence[Segmentation]

    @property
    def roi_numbers(self) -> NDArray[np.int64]:
        """Positions of the people that have an ROI."""
        return np.flatnonzero(self.has_roi).astype(np.int64)

    def others_in(self, box: Floats, number: int) -> list[Segmentation]:
        """Outlines of everybody but person `number` whose box meets `box` (4,) xyxy, unit frame."""
        meets = box_iou(box[None], self.boxes)[0] > 0
        return [self.segmentations[other] for other in np.flatnonzero(meets).tolist() if other != number]


class _Outlines:
    """Column `segmentation` of a `people.parquet`, some row groups of it in memory. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Args:
            path: with row groups of any size.
        """
        self._file = pq.ParquetFile(path)
        groups = self._file.metadata
        self._starts = np.cumsum([0, *(groups.row_group(number).num_rows for number in range(groups.num_row_groups))])
        self._lock = Lock()
        self._group = lru_cache(GROUPS_HELD)(self._read)

    def _read(self, number: int) -> pa.ChunkedArray:
        return self._file.read_row_group(number, columns=["segmentation"], use_threads=False).column(0)

    def texts(self, start: int, stop: int) -> list[str]:
        """JSON of the people `start` to `stop`, rows of the table."""
        found: list[str] = []
        while start < stop:
            number = int(np.searchsorted(self._starts, start, side="right")) - 1
            first, end = (int(value) for value in self._starts[number : number + 2])
            with self._lock:  # one reader serves all threads
                group = self._group(number)
            found += group.slice(start - first, min(stop, end) - start).to_pylist()
            start = end
        return found


class Index:
    """The tables of one split; outlines are read and parsed when an image is asked for."""

    def __init__(self, folder: Path, network_hw: HW, mode: ResizeMode) -> None:
        """Open `images.parquet` and `people.parquet` in `folder`.

        Args:
            folder: such as `data/index/train`.
            network_hw: size of the network input that the tables were made for.
            mode: its resize rule.

        Raises:
            AnnotationError: the folder isn't an index.
        """
        try:
            self.images = pd.read_parquet(folder / "images.parquet")
            people = pd.read_parquet(folder / "people.parquet", columns=[name for name in PEOPLE_COLUMNS if name not in UNHELD])
            self._outlines = _Outlines(folder / "people.parquet")
        except FileNotFoundError as error:
            raise AnnotationError(f"{folder}: no index tables there ({error}); run `dvc repro prepare`") from error
        self.network_hw, self.mode = network_hw, mode
        rows = people["row"].to_numpy(dtype=np.int64)
        self._starts = np.searchsorted(rows, np.arange(len(self.images) + 1))
        self._boxes = people[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float64)
        self._sizes = self.images[["height", "width"]].to_numpy(dtype=np.int64)
        self._ids = people["annotation_id"].to_numpy(dtype=np.int64)
        self._areas = people["area"].to_numpy(dtype=np.float64)
        self._has_roi = people["drop_reason"].isna().to_numpy(dtype=bool)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def image_ids(self) -> NDArray[np.int64]:
        """COCO ids in row order."""
        return self.images["image_id"].to_numpy(dtype=np.int64)

    @cached_property
    def rois_per_image(self) -> NDArray[np.int64]:
        """Number of ROIs of each image, in row order."""
        totals = np.concatenate([[0], np.cumsum(self._has_roi)])
        return np.asarray(totals[self._starts[1:]] - totals[self._starts[:-1]], dtype=np.int64)

    @property
    def roi_annotation_ids(self) -> NDArray[np.int64]:
        """COCO ids of all people that have an ROI, in row order and within an image as `ImagePeople.roi_numbers`."""
        return self._ids[self._has_roi]

    def people(self, row: int) -> ImagePeople:
        """Everybody in the image of a row."""
        part = slice(int(self._starts[row]), int(self._starts[row + 1]))
        image_hw = (int(self._sizes[row, 0]), int(self._sizes[row, 1]))
        resize = Resize(image_hw, self.network_hw, self.mode)
        outlines = [Segmentation.from_json(text, resize) for text in self._outlines.texts(part.start, part.stop)]
        return ImagePeople(
            row,
            int(self.image_ids[row]),
            image_hw,
            self._ids[part],
            self._boxes[part],
            self._areas[part],
            self._has_roi[part],
            outlines,
        )

    def resize(self, row: int) -> Resize:
        """The way from the image frame of a row to the unit frame."""
        image_hw = (int(self._sizes[row, 0]), int(self._sizes[row, 1]))
        return Resize(image_hw, self.network_hw, self.mode)
