"""Tests of roiseg.dataset: ROIs and their targets, small people, and stores that don't fit.

(Not `test_dataset.py`: the sample's tests have that name, and pytest wants each name once.)
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_factory import person_record, rectangle
from store_factory import MODEL, Project, hand_made, shared_project, shared_views

from roiseg.batches import Loading, dequantise, single_batch, whole_batches
from roiseg.dataset import RoiDataset
from roiseg.errors import ParamsError, StoreMismatchError
from roiseg.geometry import cells_inside
from roiseg.masks import label_distances


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


# --- samples ---


def test_small_people_have_no_roi_and_paint_class_two(tmp_path: Path) -> None:
    target = person_record(1, 7, rectangle(0, 0, 24, 32), bbox=[0.0, 0.0, 64.0, 32.0])
    small = person_record(2, 7, rectangle(48, 16, 4, 16))  # 4 columns wide
    sample = hand_made(tmp_path, [target, small]).whole_sample(0)
    expected = np.zeros((8, 16), dtype=np.uint8)
    expected[:, :6], expected[4:, 12] = 1, 2
    assert sample.numbers.tolist() == [0]
    np.testing.assert_array_equal(sample.labels, expected[None])


def test_a_pixel_of_two_people_is_the_target_of_both(tmp_path: Path) -> None:
    people = [person_record(1, 7, rectangle(0, 0, 40, 32)), person_record(2, 7, rectangle(24, 0, 40, 32))]
    sample = hand_made(tmp_path, people).whole_sample(0)
    assert sample.labels[0][0].tolist() == [1] * 16
    assert sample.labels[1][0].tolist() == [1] * 16
    np.testing.assert_allclose(sample.boxes, [[0, 0, 0.625, 1], [0.375, 0, 1, 1]])


def test_padding_widens_the_roi_up_to_the_frame(tmp_path: Path) -> None:
    dataset = hand_made(tmp_path, [person_record(1, 7, rectangle(16, 8, 32, 16))], {"roi_padding": 0.25})
    sample = dataset.whole_sample(0)
    np.testing.assert_allclose(sample.boxes, [[0.125, 0.125, 0.875, 0.875]])
    assert sample.labels[0].mean() == pytest.approx(1 / 1.5**2, abs=0.1)
    far = hand_made(tmp_path / "far", [person_record(1, 7, rectangle(16, 8, 32, 16))], {"roi_padding": 2.0})
    np.testing.assert_allclose(far.whole_sample(0).boxes, [[0, 0, 1, 1]])


def test_distances_belong_to_the_labels(project: Project) -> None:
    sample = project.open("val").whole_sample(1)
    for labels, distances in zip(sample.labels, sample.distances.swapaxes(0, 1), strict=True):
        found = label_distances(labels)
        np.testing.assert_allclose(distances, [found.boundary, found.target, found.non_target], rtol=1e-6)


def test_distances_have_the_same_bits_wherever_they_lie_in_memory(project: Project) -> None:
    """OpenCV's distance transform has not: its last bit would make two runs of one training differ."""
    dataset = project.open("val")
    first = dataset.whole_sample(1).distances
    held = []
    for size in range(1, 60):
        held.append(np.ones(size * 13, dtype=np.float32))
        np.testing.assert_array_equal(dataset.whole_sample(1).distances, first)


def test_images_without_rois_are_left_out(project: Project) -> None:
    dataset = project.open("train")
    assert dataset.rows.tolist() == np.flatnonzero(dataset.index.rois_per_image).tolist()
    assert {row for batch in whole_batches(dataset, Loading(2, 1, 1)) for row in batch.rows} == set(dataset.rows.tolist())


# --- what doesn't fit ---


def test_store_of_other_images(project: Project) -> None:
    train, val = project.open("train"), project.open("val")
    with pytest.raises(StoreMismatchError, match=r"val\.zarr: holds 4 images .* the index lists 5 .*run `dvc repro extract`"):
        RoiDataset(train.index, val.store, train.params, train.layers, train.mask_hw)


def test_store_without_the_layer(project: Project) -> None:
    with pytest.raises(StoreMismatchError, match=r"no layer 'layer_35' \(model\.layers\); did you mean 'layer_3"):
        project.open("train", {**MODEL, "layers": ["layer_3", "layer_35"]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"roi_padding": -0.1}, r"dataset\.roi_padding"),
        ({"roi_pading": 0.1}, r"dataset\.roi_pading: unknown key; did you mean 'roi_padding'"),
    ],
)
def test_params_are_checked(project: Project, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        project.sections(**changes)


# --- mirrored views ---


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that holds mirrored features, and images."""
    return shared_views(tmp_path_factory)


def test_a_mirrored_sample_is_that_of_the_mirrored_outlines(tmp_path: Path) -> None:
    """Against people drawn the other way round; the person is chosen so that no pixel centre lies on an edge."""
    there = [person_record(1, 7, rectangle(9, 3, 30, 21)), person_record(2, 7, rectangle(31, 5, 25, 26))]
    mirror = [person_record(1, 7, rectangle(64 - 39, 3, 30, 21)), person_record(2, 7, rectangle(64 - 56, 5, 25, 26))]
    found = hand_made(tmp_path / "a", there).whole_sample(0).mirrored()
    expected = hand_made(tmp_path / "b", mirror).whole_sample(0)
    assert found.view == "mirrored"
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-12)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.distances, expected.distances, atol=1e-5)


# --- frames ---


def test_frames_written_out(tmp_path: Path) -> None:
    """A grid of 4 x 8 over an image of 32 x 64: the first person overlaps the second; the third is too small for an ROI."""
    people = [
        person_record(1, 7, rectangle(0, 0, 24, 16)),
        person_record(2, 7, rectangle(16, 0, 24, 24)),
        person_record(3, 7, rectangle(56, 24, 6, 8)),
    ]
    dataset = hand_made(tmp_path, people).read_by(["layer_3"], (8, 16), (4, 8))
    sample = dataset.whole_sample(0)
    assert sample.frames is not None
    assert sample.frames.dtype == np.uint8
    assert sample.frames[0].tolist() == [
        [[1, 1, 1, 2, 2, 0, 0, 0], [1, 1, 1, 2, 2, 0, 0, 0], [0, 0, 2, 2, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 2]],
        [[2, 2, 1, 1, 1, 0, 0, 0], [2, 2, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 2]],
    ]
    inside = sample.frames[1].astype(bool)
    assert inside[0, :2, :3].all()
    assert inside[0].sum() == 6
    assert inside[1, :3, 2:5].all()
    assert inside[1].sum() == 9
    plain = hand_made(tmp_path / "plain", people).whole_sample(0)
    assert plain.frames is None
    np.testing.assert_array_equal(plain.labels, sample.labels)


def test_frames_within_the_roi_are_its_labels(project: Project) -> None:
    """One grid over an ROI that is the whole frame."""
    dataset = project.open("train").read_by(["layer_3"], (16, 24), (16, 24))
    for row in dataset.rows.tolist():
        people = dataset.index.people(row)
        numbers = np.repeat(people.roi_numbers, 2)  # the same person may have several ROIs
        sample = dataset.rasterised(people, numbers, np.tile([0.0, 0.0, 1.0, 1.0], (len(numbers), 1)))
        assert sample.frames is not None
        np.testing.assert_array_equal(sample.frames[0], sample.labels)
        assert (sample.frames[1] == 1).all()


def test_frames_of_a_mirrored_sample(tmp_path: Path) -> None:
    dataset = hand_made(tmp_path, [person_record(1, 7, rectangle(9, 3, 30, 21)), person_record(2, 7, rectangle(41, 5, 15, 26))])
    sample = dataset.read_by(["layer_3"], (8, 16), (5, 9)).whole_sample(0)
    mirrored = sample.mirrored().frames
    assert sample.frames is not None
    assert mirrored is not None
    np.testing.assert_array_equal(mirrored, sample.frames[..., ::-1])
    np.testing.assert_array_equal(mirrored[1].astype(bool), cells_inside(sample.mirrored().boxes, (5, 9)))


def test_frames_go_with_the_batch(project: Project) -> None:
    dataset = project.open("train").read_by(["layer_3"], (8, 16), (8, 12))
    for batch in whole_batches(dataset, Loading(2, 2, 1)):
        samples = [dataset.whole_sample(row).frames for row in batch.rows]
        expected = np.concatenate([item for item in samples if item is not None], axis=1)
        moved = batch.targets.to(torch.device("cpu")).frames
        assert moved is not None
        assert moved.shape == (2, len(batch.boxes), 8, 12)
        np.testing.assert_array_equal(moved.numpy(), expected)
    assert single_batch(project.open("train"), 0).targets.frames is None


def test_a_store_without_images(project: Project) -> None:
    with pytest.raises(
        StoreMismatchError, match=r"no layer 'image' \(model\.layers\); .*; set cache\.image to true, and `dvc repro extract`"
    ):
        project.open("train", {**MODEL, "layers": ["layer_3", "image"]})


def test_images_are_read_between_0_and_1(both: Project) -> None:
    dataset = both.open("val", {**MODEL, "layers": ["image"]})
    batch = single_batch(dataset, 0)
    scales = {name: torch.from_numpy(values) for name, values in dataset.store.scales.items()}
    image = dequantise(batch.features, scales, torch.device("cpu"))["image"]
    stored = dataset.store.read(0, ["image"])["image"]
    np.testing.assert_allclose(image[0].numpy(), stored / 255, rtol=1e-6)
