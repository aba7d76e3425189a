"""Tests of roiseg.evaluate.cases: which ROIs are shown, and that what is shown is that ROI's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from head_factory import fresh_head
from numpy.typing import NDArray
from store_factory import MODEL, Project, shared_project
from table_factory import random_table, table_of

from roiseg.batches import Loading
from roiseg.evaluate.cases import EXTREMES, PER_CELL, choose_cases, cut_out, load_cases
from roiseg.evaluate.class_maps import ClassMaps
from roiseg.evaluate.confusion import roi_confusions
from roiseg.evaluate.infer import predictions
from roiseg.evaluate.strata import strata
from roiseg.evaluate.table import RoiTable
from roiseg.heads import parse_model
from roiseg.previews import PREVIEWS_FILE, Previews

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def with_ious(hits: NDArray[np.int64], of: int = 1000) -> RoiTable:
    """ROIs of `of` target pixels, so many of them found; all of one kind."""
    confusions = np.zeros((len(hits), 3, 3), dtype=np.int64)
    confusions[:, 1, 1], confusions[:, 1, 0] = hits, of - hits
    return table_of(confusions)


# --- which ---


def test_worst_and_best_by_hand() -> None:
    hits = np.random.default_rng(0).permutation(100) * 10
    found = choose_cases(with_ious(hits))
    assert hits[found.worst].tolist() == list(range(0, 160, 10))
    assert hits[found.best].tolist() == list(range(990, 830, -10))
    assert hits[found.gallery].tolist() == sorted(hits[found.gallery].tolist(), key=hits.tolist().index)
    chosen = sorted(hits[found.gallery].tolist())
    assert chosen == [0, 10, 20, 30, 40, 50, 60, 250, 430, 620, 800, 990]
    assert found.positions.tolist() == sorted({*found.worst.tolist(), *found.best.tolist(), *found.gallery.tolist()})


def test_ties_go_by_annotation_id() -> None:
    found = choose_cases(with_ious(np.full(40, 500)).part(np.arange(40)[::-1]))
    assert found.worst.tolist() == found.best.tolist() == list(range(39, 39 - EXTREMES, -1))


def test_roi_without_any_target_is_not_shown() -> None:
    table = with_ious(np.array([500, 0, 900]))
    table.confusions[1] = np.diag([10, 0, 0])
    found = choose_cases(table)
    assert found.worst.tolist() == [0, 2]
    assert found.best.tolist() == [2, 0]
    assert found.positions.tolist() == [0, 2]


def test_few_rois_are_all_shown_and_none_is_no_fault() -> None:
    assert choose_cases(with_ious(np.arange(12) * 10)).gallery.tolist() == list(range(12))
    empty = choose_cases(RoiTable.together([]))
    assert (len(empty.worst), len(empty.best), len(empty.positions)) == (0, 0, 0)


def test_number_of_cases_is_bounded() -> None:
    table = random_table(np.random.default_rng(1), 500, 5000)
    found = choose_cases(table)
    assert len(found.worst) == len(found.best) == EXTREMES
    labels = strata(table)
    cells = list(zip(labels["size"][found.gallery], labels["crowdedness"][found.gallery], strict=True))
    assert max(cells.count(cell) for cell in cells) == PER_CELL
    assert len(found.positions) <= 2 * EXTREMES + PER_CELL * len(set(cells))


# --- what is shown ---


def test_cut_out_by_hand() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cut_out(picture, np.array([3.0, 5.0, 11.0, 17.0])), picture[5:17, 3:11])
    np.testing.assert_array_equal(cut_out(picture, np.array([0.0, 0.0, 30.0, 20.0])), picture)
    half = cut_out(picture, np.array([3.5, 5.0, 11.5, 17.0]))
    expected = (picture[5:17, 3:11].astype(float) + picture[5:17, 4:12]) / 2
    np.testing.assert_allclose(half, expected, atol=1)
    assert cut_out(picture, np.array([3.1, 5.0, 3.2, 5.1])).shape == (1, 1, 3)


def test_border_is_repeated_beyond_the_picture() -> None:
    picture = np.full((10, 10, 3), 80, dtype=np.uint8)
    assert (cut_out(picture, np.array([-4.0, -4.0, 14.0, 14.0])) == 80).all()


def test_cases_are_those_of_their_rows(project: Project, tmp_path: Path) -> None:
    dataset = project.open("val", roi_padding=0.1)
    head = fresh_head(parse_model(MODEL), dataset.store.specs)
    answers = list(predictions(head, dataset, CPU, Loading(1, 1, 1)))
    predicted = np.concatenate([item.classes for item in answers])
    labels = np.concatenate([item.batch.targets.labels.numpy() for item in answers])
    confusions = roi_confusions(predicted, labels)
    images = np.repeat(dataset.index.image_ids, dataset.index.rois_per_image)
    table = table_of(confusions, images)
    positions = np.array([1, len(table) - 2, len(table) - 1], dtype=np.int64)
    previews = Previews(project.index / "val" / PREVIEWS_FILE)
    with ClassMaps(tmp_path / "maps", dataset.mask_hw) as maps:
        for item in answers:
            maps.add(item.batch.targets.labels.numpy(), item.classes)
        found = list(load_cases(dataset, table, positions, previews, maps))
    assert list((tmp_path / "maps").iterdir()) == []
    kinds = strata(table)
    names = dict(zip(dataset.index.image_ids.tolist(), dataset.index.images["file_name"].tolist(), strict=True))
    assert len(found) == len(positions)
    for case, position in zip(found, positions.tolist(), strict=True):
        np.testing.assert_array_equal(case.predicted, predicted[position])
        np.testing.assert_array_equal(case.labels, labels[position])
        assert case.annotation_id == table.annotation_ids[position]
        assert case.image_id == images[position]
        assert case.file_name == names[case.image_id]
        assert (case.size, case.crowdedness) == (kinds["size"][position], kinds["crowdedness"][position])
        shared = int(((case.labels == 1) & (case.predicted == 1)).sum())
        union = int(((case.labels == 1) | (case.predicted == 1)).sum())
        assert case.iou_target == pytest.approx(shared / union)


def test_crop_is_the_roi_of_the_preview(project: Project, tmp_path: Path) -> None:
    """People of `make_coco` are brighter than what is behind them, so the crop is bright where the mask says target."""
    dataset = project.open("val")
    count = int(dataset.index.rois_per_image.sum())
    table = table_of(np.tile(np.eye(3, dtype=np.int64), (count, 1, 1)))
    previews = Previews(project.index / "val" / PREVIEWS_FILE)
    with ClassMaps(tmp_path, dataset.mask_hw) as maps:
        for row in dataset.rows.tolist():
            labels = dataset.whole_sample(row).labels
            maps.add(labels, labels)
        found = list(load_cases(dataset, table, np.arange(count), previews, maps))
    assert len(found) == count
    for case in found:
        hw = case.crop.shape[:2]
        rows, columns = (np.arange(side) * cells // side for side, cells in zip(hw, case.labels.shape, strict=True))
        labels = case.labels[np.ix_(rows, columns)]
        people, ground = (case.crop[chosen].mean() for chosen in (labels > 0, labels == 0))
        assert people > ground + 40, case.annotation_id


def test_no_cases(project: Project, tmp_path: Path) -> None:
    dataset = project.open("val")
    previews = Previews(project.index / "val" / PREVIEWS_FILE)
    with ClassMaps(tmp_path, dataset.mask_hw) as maps:
        assert list(load_cases(dataset, RoiTable.together([]), np.zeros(0, dtype=np.int64), previews, maps)) == []
