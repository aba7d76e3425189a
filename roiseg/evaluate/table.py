"""What is known of each ROI after a head has answered: counts from which every figure follows, and no mask.

Symbols: R ROIs, K = 3 classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from roiseg.classes import CLASS_NAMES
from roiseg.errors import PredictionError
from roiseg.files import write_parquet
from roiseg.geometry import Floats

CLASSES = len(CLASS_NAMES)

PARTS_HELD = 256
"""Tables that wait to be joined: the arrays of a small one take more room than what is in them."""


class Field(NamedTuple):
    """How a field of `RoiTable` lies in the file.

    Attributes:
        columns: their names, as many as a row of the field has numbers.
        shape: of a row of the field.
        held: type in memory.
        stored: type in the file.
    """

    columns: tuple[str, ...]
    shape: tuple[int, ...]
    held: type[np.generic]
    stored: type[np.generic]


FIELDS: Mapping[str, Field] = {
    "image_ids": Field(("image_id",), (), np.int64, np.int64),
    "annotation_ids": Field(("annotation_id",), (), np.int64, np.int64),
    "boxes_image": Field(("x0", "y0", "x1", "y1"), (4,), np.float64, np.float64),
    "areas": Field(("area",), (), np.float64, np.float64),
    "truncated": Field(("truncated",), (), np.bool_, np.bool_),
    "confusions": Field(
        tuple(f"confusion_{label}{predicted}" for label in range(CLASSES) for predicted in range(CLASSES)),
        (CLASSES, CLASSES),
        np.int64,
        np.int32,
    ),
    "boundary_crop": Field(("boundary_crop_shared", "boundary_crop_union"), (2,), np.int64, np.int32),
    "boundary_image": Field(("boundary_image_shared", "boundary_image_union"), (2,), np.int64, np.int32),
    "separation": Field(("separation_right", "separation_pixels"), (2,), np.int64, np.int32),
    "scores": Field(("score",), (), np.float64, np.float64),
}


@dataclass(frozen=True)
class RoiTable:
    """A row for each ROI, in the order of the index; some 200 bytes each.

    Attributes:
        image_ids: (R,) int64, COCO's.
        annotation_ids: (R,) int64, COCO's, of the person the ROI was drawn for.
        boxes_image: (R, 4) float64 xyxy of the person's box, image frame, clipped to the image.
        areas: (R,) float64, COCO's annotation area in square pixels of the image.
        truncated: (R,) bool, the box comes within a pixel of the border of the image.
        confusions: (R, K, K) int64 cells of the ROI mask, rows are labels, columns are predictions.
        boundary_crop: (R, 2) int64, cells of the ROI mask in both boundary bands of the target, and in either.
        boundary_image: (R, 2) int64, the same in pixels of the image.
        separation: (R, 2) int64, pixels of a person who touches another that went to the right one, and all of them.
        scores: (R,) float64 in [0, 1], confidence of the mask.
    """

    image_ids: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    boxes_image: Floats
    areas: Floats
    truncated: NDArray[np.bool_]
    confusions: NDArray[np.int64]
    boundary_crop: NDArray[np.int64]
    boundary_image: NDArray[np.int64]
    separation: NDArray[np.int64]
    scores: Floats

    def __post_init__(self) -> None:
        """See that all fields are of the same ROIs.

        Raises:
            ValueError: a field has another shape.
        """
        for name, field in FIELDS.items():
            found, wanted = np.shape(getattr(self, name)), (len(self.image_ids), *field.shape)
            if found != wanted:
                raise ValueError(f"RoiTable: {name} has shape {found}, expected {wanted}: a row for each of the image ids")

    def __len__(self) -> int:
        return len(self.image_ids)

    def part(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "RoiTable":
        """Some of the rows: a (R,) mask, or positions in the order wanted."""
        return RoiTable(**{name: getattr(self, name)[chosen] for name in FIELDS})

    @classmethod
    def together(cls, parts: Sequence["RoiTable"]) -> "RoiTable":
        """The rows of several tables, one after the other; without any, a table of no ROIs."""
        found: dict[str, Any] = {}
        for name, field in FIELDS.items():
            values = [getattr(part, name) for part in parts]
            found[name] = np.concatenate(values) if values else np.zeros((0, *field.shape), dtype=field.held)
        return cls(**found)

    def write(self, path: Path) -> None:
        """Write the table as Parquet, the same bytes for the same rows."""
        columns: dict[str, NDArray[Any]] = {}
        for name, field in FIELDS.items():
            values = np.asarray(getattr(self, name)).reshape(len(self), len(field.columns)).astype(field.stored)
            columns |= {key: values[:, number] for number, key in enumerate(field.columns)}
        write_parquet(path, pd.DataFrame(columns))

    @classmethod
    def read(cls, path: Path) -> "RoiTable":
        """Read what `write` wrote.

        Raises:
            PredictionError: the file isn't there, isn't Parquet, or lacks a column.
        """
        remedy = "make it by `dvc repro evaluate` or fetch it by `dvc pull`"
        if not path.is_file():
            raise PredictionError(f"{path}: no table of ROIs there; {remedy}")
        try:
            frame = pq.read_table(path, use_threads=False)
        except pa.ArrowException as error:
            raise PredictionError(
                f"{path}: expected the table of ROIs as Parquet, but it can't be read ({error}); {remedy}"
            ) from error
        missing = [key for field in FIELDS.values() for key in field.columns if key not in frame.column_names]
        if missing:
            raise PredictionError(f"{path}: a table of ROIs without the columns {', '.join(missing)}; {remedy}")
        found: dict[str, Any] = {}
        for name, field in FIELDS.items():
            values = [frame.column(key).to_numpy().astype(field.held) for key in field.columns]
            found[name] = np.stack(values, axis=1).reshape(frame.num_rows, *field.shape)
        return cls(**found)


class TableBuilder:
    """Collects the rows of many images without an object for each."""

    def __init__(self) -> None:
        self._merged: list[RoiTable] = []
        self._recent: list[RoiTable] = []

    def add(self, part: RoiTable) -> None:
        """Append the rows of some ROIs."""
        self._recent.append(part)
        if len(self._recent) == PARTS_HELD:
            self._merged.append(RoiTable.together(self._recent))
            self._recent = []

    def table(self) -> RoiTable:
        """All rows so far, in the order they came in."""
        return RoiTable.together([*self._merged, *self._recent])
