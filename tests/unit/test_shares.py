"""Tests of roiseg.shares: the table that `analyze` writes, joined to the index of a subset."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from data_factory import CATEGORIES, image_record, person_record, rectangle
from store_factory import Project, hand_made, measured_rois, shared_project, write_shares

from roiseg.classes import NON_TARGET
from roiseg.coco import People
from roiseg.errors import AnnotationError, ParamsError
from roiseg.files import write_parquet
from roiseg.index import Index
from roiseg.shares import RoiShares, check_padding


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


@pytest.fixture(scope="module")
def index(project: Project) -> Index:
    return project.open("train").index


def test_shares_are_those_of_the_drawn_labels(project: Project) -> None:
    """The table counts image pixels, labels are mask cells: alike, and in the same order."""
    dataset = project.open("train")
    shares = RoiShares.read(project.rois, dataset.index, 0.0)
    drawn = [[(labels == NON_TARGET).mean() for labels in dataset.whole_sample(row).labels] for row in dataset.rows.tolist()]
    assert max(max(part) for part in drawn) > 0.1
    for row, expected in zip(dataset.rows.tolist(), drawn, strict=True):
        assert shares.of(row).tolist() == pytest.approx(expected, abs=0.06)


def test_shares_by_hand(tmp_path: Path) -> None:
    """The other covers 4 x 8 of the first person's 24 x 32 pixels, and has no ROI of its own, but is in the table."""
    people = [person_record(1, 7, rectangle(0, 0, 24, 32)), person_record(2, 7, rectangle(20, 4, 4, 8))]
    people[0]["segmentation"] = [rectangle(0, 0, 12, 32)]
    dataset = hand_made(tmp_path, people)
    table = measured_rois(People([image_record(7, (32, 64))], people, CATEGORIES[1]), 0.0)
    write_parquet(tmp_path / "rois.parquet", table)
    assert len(table) == 2
    shares = RoiShares.read(tmp_path / "rois.parquet", dataset.index, 0.0)
    assert shares.of(0).tolist() == pytest.approx([4 * 8 / (24 * 32)])


def test_a_subset_finds_its_people_among_all(index: Index, tmp_path: Path) -> None:
    """In any order of the table, and with people of other images in it."""
    counts = index.rois_per_image.tolist()
    values = np.random.default_rng(0).integers(0, 1000, sum(counts)) / 1000
    parts = np.split(values, np.cumsum(counts)[:-1])
    path = write_shares(tmp_path / "rois.parquet", index, {row: part.tolist() for row, part in enumerate(parts)})
    table = pd.read_parquet(path)
    strangers = table.assign(image_id=table["image_id"] + 10_000, n_non_target=7)
    write_parquet(path, pd.concat([strangers, table.sample(frac=1, random_state=1)]))
    shares = RoiShares.read(path, index, 0.0)
    for row, part in enumerate(parts):
        assert shares.of(row).tolist() == pytest.approx(part.tolist(), abs=1e-7)
    assert shares.of_images(np.arange(len(index))).tolist() == pytest.approx([part.mean() for part in parts], abs=1e-6)
    assert shares.of(1).dtype == np.float32


def test_an_roi_without_pixels_has_no_share(index: Index, tmp_path: Path) -> None:
    path = write_shares(tmp_path / "rois.parquet", index, {row: [0.0] * count for row, count in enumerate(index.rois_per_image)})
    write_parquet(path, pd.read_parquet(path).assign(area=0))
    assert not RoiShares.read(path, index, 0.0).of_images(np.arange(len(index))).any()


# --- what doesn't fit ---


def test_no_table(index: Index, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"rois\.parquet: no table of ROIs there; run `dvc repro analyze`"):
        RoiShares.read(tmp_path / "rois.parquet", index, 0.0)


@pytest.mark.parametrize("rows", [0, 9])
def test_a_table_of_other_people(project: Project, index: Index, tmp_path: Path, rows: int) -> None:
    table = pd.read_parquet(project.rois).iloc[:rows]
    write_parquet(tmp_path / "rois.parquet", table)
    left = {int(value) for value in index.roi_annotation_ids} - set(table["annotation_id"])
    with pytest.raises(
        AnnotationError,
        match=rf"{len(left)} of 11 ROIs of the training split aren't in it, first annotation {min(left)} of image \d+, "
        r"expected all; point analyze\.annotations to the person-only file of data\.train\.annotations",
    ):
        RoiShares.read(tmp_path / "rois.parquet", index, 0.0)


def test_a_table_of_another_padding(project: Project, index: Index) -> None:
    with pytest.raises(
        ParamsError,
        match=r"measured with a padding of 0 \(analyze\.padding; .*\), but drawn with dataset\.roi_padding 0\.1, expected one for "
        r"both; set analyze\.padding to null",
    ):
        RoiShares.read(project.rois, index, 0.1)


def test_paddings_that_differ_by_rounding_are_one() -> None:
    check_padding(0.1 + 0.2, 0.3)
