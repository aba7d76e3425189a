"""Tests of roiseg.evaluate.table: what is written is read again, byte for byte, and nothing else is."""

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from table_factory import random_table, table_of

from roiseg.errors import PredictionError
from roiseg.evaluate.table import FIELDS, RoiTable

COLUMNS = [
    "image_id",
    "annotation_id",
    *("x0", "y0", "x1", "y1"),
    "area",
    "truncated",
    *("confusion_00", "confusion_01", "confusion_02"),
    *("confusion_10", "confusion_11", "confusion_12"),
    *("confusion_20", "confusion_21", "confusion_22"),
    *("boundary_crop_shared", "boundary_crop_union"),
    *("boundary_image_shared", "boundary_image_union"),
    *("separation_right", "separation_pixels"),
    "score",
]


def same(first: RoiTable, second: RoiTable) -> None:
    for name, field in FIELDS.items():
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
        assert getattr(second, name).dtype == field.held, name


@pytest.mark.parametrize("rois", [0, 1, 57])
def test_round_trip(tmp_path: Path, rois: int) -> None:
    table = random_table(np.random.default_rng(rois), 9, rois)
    table.write(tmp_path / "some" / "head.parquet")
    same(table, RoiTable.read(tmp_path / "some" / "head.parquet"))


def test_columns_of_the_file(tmp_path: Path) -> None:
    confusions = np.arange(9).reshape(1, 3, 3)
    replace(table_of(confusions), separation=np.array([[3, 4]])).write(tmp_path / "t.parquet")
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert list(frame.columns) == COLUMNS
    row = frame.iloc[0]
    assert (row["confusion_01"], row["confusion_12"], row["separation_right"], row["separation_pixels"]) == (1, 5, 3, 4)
    types = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert {types[name] for name in ("image_id", "annotation_id")} == {"int64"}
    assert {types[name] for name in ("x0", "y1", "area", "score")} == {"float64"}
    assert {types[name] for name in COLUMNS[8:-1]} == {"int32"}
    assert types["truncated"] == "bool"


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    table = random_table(np.random.default_rng(3), 9, 40)
    for name in ("first", "second"):
        table.write(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_parts_make_the_whole_again() -> None:
    table = random_table(np.random.default_rng(4), 9, 20)
    parts = [table.part(table.image_ids == number) for number in np.unique(table.image_ids)]
    assert len(parts) > 3
    same(table, RoiTable.together(parts))
    same(RoiTable.together([]), table.part(np.zeros(20, dtype=bool)))
    assert len(RoiTable.together([])) == 0


def test_every_field_is_in_the_file() -> None:
    assert [item.name for item in fields(RoiTable)] == list(FIELDS)


def test_fields_of_other_rois_are_refused() -> None:
    with pytest.raises(
        ValueError, match=re.escape("RoiTable: areas has shape (2,), expected (3,): a row for each of the image ids")
    ):
        replace(table_of(np.zeros((3, 3, 3), dtype=np.int64)), areas=np.zeros(2))


def test_a_file_that_isnt_there(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match=r"head\.parquet: no table of ROIs there; make it by `dvc repro evaluate`"):
        RoiTable.read(tmp_path / "head.parquet")


def test_a_file_that_isnt_parquet(tmp_path: Path) -> None:
    (tmp_path / "head.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(PredictionError, match=r"head\.parquet: expected the table of ROIs as Parquet, .*`dvc repro evaluate`"):
        RoiTable.read(tmp_path / "head.parquet")


def test_a_file_without_all_columns(tmp_path: Path) -> None:
    table_of(np.zeros((3, 3, 3), dtype=np.int64)).write(tmp_path / "head.parquet")
    frame = pd.read_parquet(tmp_path / "head.parquet").drop(columns=["area", "score"])
    frame.to_parquet(tmp_path / "head.parquet")
    with pytest.raises(PredictionError, match=r"head\.parquet: a table of ROIs without the columns area, score; make it by"):
        RoiTable.read(tmp_path / "head.parquet")
