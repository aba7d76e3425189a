"""The files of a split that evaluation reads, and the same for some of its images."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from roiseg.cache.source import FeatureSource
from roiseg.coco import DataParams, load_prepared, prepared_name, to_coco
from roiseg.errors import ParamsError
from roiseg.evaluate.results import new_results, read_results
from roiseg.files import write_json
from roiseg.index import PEOPLE_PER_GROUP, Index
from roiseg.previews import IMAGES_PER_GROUP, PREVIEWS_FILE
from roiseg.types import PLAIN, FeatureSpec, View, Window

ALL, FIXED = "all", "fixed"

TABLES = {"images.parquet": None, "people.parquet": PEOPLE_PER_GROUP, PREVIEWS_FILE: IMAGES_PER_GROUP}
"""Tables of an index, and the rows of their groups."""


@dataclass(frozen=True)
class SplitFiles:
    """What `prepare` and `extract` say of a split.

    Attributes:
        index: folder of its tables; of val also with `pictures/` and the previews.
        annotations: the person-only JSON.
    """

    index: Path
    annotations: Path

    @classmethod
    def of(cls, split: str, data: DataParams, root: Path = Path("data")) -> "SplitFiles":
        """Where the stages put them.

        Args:
            split: `train` or `val`.
            data: section `data`.
            root: folder `data`.
        """
        params = data.split(split)
        return cls(root / "index" / split, root / "annotations" / prepared_name(params.annotations, params.subset))


def parse_images(text: str) -> int | str:
    """How many images of a split, or which.

    Args:
        text: a number, `all`, or `fixed` for those of `data.fixed_images`, which every epoch is drawn on.

    Raises:
        ParamsError: none of these.
    """
    if text in (ALL, FIXED):
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ParamsError(f"--images {text!r}: expected a number of images from 1, 'fixed' or 'all'")


def chosen_ids(images: int | str, files: SplitFiles, index: Index) -> NDArray[np.int64] | None:
    """Ids of the images to evaluate on, in the order of the index; None for all.

    Args:
        images: see `parse_images`; a number is spread evenly over those that have ROIs.
        files: of the split.
        index: of the split.

    Raises:
        ParamsError: the split has no fixed images.
    """
    if images == ALL:
        return None
    if images == FIXED:
        folder = files.index / "pictures"
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        found = index.images["file_name"].isin(names).to_numpy(dtype=bool)
        if not found.any():
            raise ParamsError(
                f"--images fixed: {folder} holds none, `dvc repro prepare` copies them for val alone; evaluate on --split val, or "
                "give a number of images"
            )
        return index.image_ids[found]
    rows = np.flatnonzero(index.rois_per_image)
    places = np.unique(np.linspace(0, len(rows) - 1, min(int(images), len(rows))).round().astype(np.int64))
    return index.image_ids[rows[places]]


def only(files: SplitFiles, ids: Sequence[int], folder: Path) -> SplitFiles:
    """The files of a split as if it had but some images.

    Args:
        files: of the whole split.
        ids: of the images.
        folder: where to write.
    """
    few = SplitFiles(folder / "index", folder / "annotations.json")
    few.index.mkdir(parents=True)
    for name, rows in TABLES.items():
        if (files.index / name).is_file():
            _filtered(files.index / name, ids, few.index / name, rows)
    names = pq.read_table(few.index / "images.parquet", columns=["file_name"]).column(0).to_pylist()
    for name in names:
        if (files.index / "pictures" / name).is_file():
            target = few.index / "pictures" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files.index / "pictures" / name, target)
    people, kept = load_prepared(files.annotations), set(ids)
    data = to_coco(people)
    data["images"] = [item for item in data["images"] if item["id"] in kept]
    data["annotations"] = [item for item in data["annotations"] if item["image_id"] in kept]
    write_json(few.annotations, data, indent=None)
    return few


def only_detections(path: Path, ids: Sequence[int], folder: Path) -> Path:
    """The detections of some images.

    Args:
        path: see `roiseg.evaluate.detections.load_detections`.
        ids: of the images.
        folder: where to write.

    Returns:
        A file of the same kind; `path` itself where it can't be read, for whoever reads it knows what to say.

    Raises:
        ResultsError: missing, not JSON, or not a list of results.
    """
    few = folder / f"detections{path.suffix}"
    if path.suffix == ".json":
        kept = set(ids)
        with new_results(few) as write:
            for result in read_results(path):
                if result.get("image_id") in kept:
                    write(result)
        return few
    try:
        _filtered(path, ids, few, None)
    except (OSError, ValueError):
        return path
    return few


def _filtered(source: Path, ids: Sequence[int], target: Path, rows_per_group: int | None) -> None:
    table = pq.read_table(source, filters=[("image_id", "in", list(ids))])
    if "row" in table.column_names:
        order = {image_id: row for row, image_id in enumerate(ids)}
        rows = pa.array([order[image_id] for image_id in table.column("image_id").to_pylist()], type=pa.int64())
        table = table.set_column(table.column_names.index("row"), "row", rows)
    pq.write_table(table, target, row_group_size=rows_per_group)


class ChosenRows(FeatureSource):
    """Some images of a store."""

    def __init__(self, store: FeatureSource, ids: Sequence[int]) -> None:
        """Find their rows.

        Args:
            store: of all images.
            ids: of those to see, each in the store, in the order of their new rows.
        """
        self.path, self._store = store.path, store
        rows = {image_id: row for row, image_id in enumerate(store.image_ids.tolist())}
        self._rows = np.array([rows[image_id] for image_id in ids], dtype=np.int64)

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """See `FeatureSource`."""
        return self._store.image_ids[self._rows]

    @property
    def views(self) -> tuple[View, ...]:
        """See `FeatureSource`."""
        return self._store.views

    @property
    def specs(self) -> Mapping[str, FeatureSpec]:
        """See `FeatureSource`."""
        return self._store.specs

    @property
    def shapes(self) -> Mapping[str, tuple[int, int, int]]:
        """See `FeatureSource`."""
        return self._store.shapes

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """See `FeatureSource`."""
        return self._store.dtypes

    @property
    def scales(self) -> Mapping[str, NDArray[np.float32]]:
        """See `FeatureSource`."""
        return self._store.scales

    @property
    def asked(self) -> dict[str, Any]:
        """See `FeatureSource`."""
        return self._store.asked

    @property
    def found(self) -> dict[str, Any]:
        """See `FeatureSource`."""
        return self._store.found

    def read_into(self, row: int, layer: str, out: NDArray[Any], view: View = PLAIN) -> None:
        """See `FeatureSource`."""
        self._store.read_into(self._row(row), layer, out, view)

    def read_window_into(self, row: int, layer: str, window: Window, out: NDArray[Any], view: View = PLAIN) -> None:
        """See `FeatureSource`."""
        self._store.read_window_into(self._row(row), layer, window, out, view)

    def _row(self, row: int) -> int:
        if not 0 <= row < len(self._rows):
            raise IndexError(f"{self.path}: row {row}, expected 0 to {len(self._rows) - 1}")
        return int(self._rows[row])
