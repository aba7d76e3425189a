"""Tests of roiseg.dataset: what is drawn, what isn't touched by threads, small people, batches, and stores that don't fit.

(Not `test_dataset.py`: the sample's tests have that name, and pytest wants each name once.)
"""

import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_factory import CATEGORIES, image_record, person_record, rectangle
from numpy.typing import NDArray
from store_factory import CHANNELS, MODEL, Project, cache_params, shared_project, write_store

from roiseg.cache.reader import FeatureStore
from roiseg.coco import People
from roiseg.dataset import Batch, DatasetParams, ImageSample, RoiDataset, collate, dequantise, training_batches, whole_batches
from roiseg.errors import ParamsError, StoreDamagedError, StoreMismatchError
from roiseg.files import write_parquet
from roiseg.index import Index, build_tables
from roiseg.masks import label_distances, roi_labels

STILL: dict[str, Any] = {"jitter_centre": 0.0, "jitter_scale": 0.0}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def epoch_of(
    dataset: RoiDataset, *, seed: int = 0, epoch: int = 1, threads: int = 1, ahead: int = 2, images: int = 2
) -> list[Batch]:
    return list(training_batches(dataset, seed=seed, epoch=epoch, images_per_batch=images, threads=threads, ahead=ahead))


def assert_same(first: Sequence[Batch], second: Sequence[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.rows == other.rows
        np.testing.assert_array_equal(one.numbers, other.numbers)
        assert torch.equal(one.boxes, other.boxes)
        for name in ("labels", "boundary", "target", "non_target"):
            assert torch.equal(getattr(one.targets, name), getattr(other.targets, name)), name
        assert all(torch.equal(one.features[name], other.features[name]) for name in one.features)


def hand_made(folder: Path, people: Sequence[dict[str, Any]], dataset: dict[str, Any] | None = None) -> RoiDataset:
    """One image of 32 rows and 64 columns and random features; the network input has the same size."""
    images = [image_record(7, (32, 64))]
    tables = build_tables(People(images, list(people), CATEGORIES[1]), (32, 64), "stretch", 8.0)
    for name, table in zip(("images", "people"), tables, strict=True):
        write_parquet(folder / f"{name}.parquet", table)
    features = {"layer_3": np.random.default_rng(0).normal(size=(1, 4, 8, 16)).astype(np.float16)}
    asked = {"input": {"hw": [32, 64]}, "dtype": "float16"}
    path = write_store(folder / "work", folder / "one.zarr", features, [7], asked=asked, cache=cache_params())
    values = {"roi_padding": 0.0, "max_rois_per_image": 9, **STILL, **(dataset or {})}
    return RoiDataset(
        Index(folder, (32, 64), "stretch"), FeatureStore(path), DatasetParams.parse(values, "dataset"), ["layer_3"], (8, 16)
    )


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


def test_without_jitter_training_sees_the_annotation(project: Project) -> None:
    dataset = project.open("train", max_rois_per_image=99, **STILL)
    for row in dataset.rows.tolist():
        drawn, whole = dataset.training_sample(row, np.random.default_rng(1)), dataset.whole_sample(row)
        people = dataset.index.people(row)
        np.testing.assert_allclose(drawn.boxes, people.boxes[people.roi_numbers], atol=1e-12)
        np.testing.assert_array_equal(drawn.numbers, people.roi_numbers)
        np.testing.assert_array_equal(drawn.labels, whole.labels)
        assert (drawn.labels == 1).any(axis=(1, 2)).all()


def test_jittered_boxes_are_rasterised_anew(project: Project) -> None:
    dataset = project.open("train", max_rois_per_image=99, jitter_centre=0.3, jitter_scale=0.3)
    row = int(dataset.rows[np.argmax(dataset.index.rois_per_image[dataset.rows])])
    sample, people = dataset.training_sample(row, np.random.default_rng(0)), dataset.index.people(row)
    assert np.abs(sample.boxes - people.boxes[sample.numbers]).max() > 0.02
    for number, box, labels in zip(sample.numbers.tolist(), sample.boxes, sample.labels, strict=True):
        others = [outline for place, outline in enumerate(people.segmentations) if place != number]
        np.testing.assert_array_equal(labels, roi_labels(box, people.segmentations[number], others, dataset.mask_hw))


def test_max_rois_per_image(project: Project) -> None:
    dataset = project.open("train", max_rois_per_image=2)
    row = int(np.argmax(dataset.index.rois_per_image))
    assert dataset.index.rois_per_image[row] == 5
    draws = [dataset.training_sample(row, np.random.default_rng(seed)).numbers.tolist() for seed in range(40)]
    assert all(len(set(draw)) == 2 and draw == sorted(draw) for draw in draws)
    assert {number for draw in draws for number in draw} == set(dataset.index.people(row).roi_numbers.tolist())
    assert len(dataset.whole_sample(row).numbers) == 5, "validation sees everybody"


def test_images_without_rois_are_left_out(project: Project) -> None:
    dataset = project.open("train")
    assert dataset.rows.tolist() == np.flatnonzero(dataset.index.rois_per_image).tolist()
    assert {row for batch in epoch_of(dataset) for row in batch.rows} == set(dataset.rows.tolist())


# --- batches ---


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (3, 1), (3, 5)])
def test_batches_dont_depend_on_threads(project: Project, threads: int, ahead: int) -> None:
    dataset = project.open("train")
    assert_same(epoch_of(dataset), epoch_of(dataset, threads=threads, ahead=ahead))


def test_draws_of_an_image_dont_depend_on_the_batch_size(project: Project) -> None:
    dataset = project.open("train")
    one, three = ({row: batch.boxes[batch.boxes[:, 0] == place, 1:] for batch in epoch_of(dataset, images=images)
                   for place, row in enumerate(batch.rows)} for images in (1, 3))  # fmt: skip
    assert one.keys() == three.keys()
    assert all(torch.equal(one[row], three[row]) for row in one)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 2}])
def test_seed_and_epoch_change_order_and_draws(project: Project, other: dict[str, int]) -> None:
    dataset = project.open("train")
    first, second = epoch_of(dataset, images=1), epoch_of(dataset, images=1, **other)
    assert sorted(batch.rows[0] for batch in first) == sorted(batch.rows[0] for batch in second)
    assert [batch.rows for batch in first] != [batch.rows for batch in second]
    boxes = {batch.rows[0]: batch.boxes for batch in second}
    assert not any(torch.equal(batch.boxes, boxes[batch.rows[0]]) for batch in first)
    assert_same(second, epoch_of(dataset, images=1, **other))


def test_collate_numbers_the_images(project: Project) -> None:
    dataset = project.open("val")
    rows = [2, 0, 3]
    samples = [dataset.whole_sample(row) for row in rows]
    batch = collate(samples)
    counts = [len(sample.numbers) for sample in samples]
    assert batch.rows == rows
    assert batch.boxes[:, 0].tolist() == [float(place) for place, count in enumerate(counts) for _ in range(count)]
    assert batch.boxes.dtype == torch.float32
    assert batch.targets.labels.dtype == torch.int64
    start = 0
    for place, (sample, count) in enumerate(zip(samples, counts, strict=True)):
        part = slice(start, start + count)
        np.testing.assert_allclose(batch.boxes[part, 1:].numpy(), sample.boxes, atol=1e-7)
        np.testing.assert_array_equal(batch.targets.labels[part].numpy(), sample.labels)
        np.testing.assert_array_equal(batch.targets.non_target[part].numpy(), sample.distances[2])
        np.testing.assert_array_equal(batch.numbers[part], sample.numbers)
        for name in CHANNELS:
            np.testing.assert_array_equal(batch.features[name][place].numpy(), dataset.store.read(sample.row, [name])[name])
        start += count


def test_whole_batches_are_in_row_order_and_whole(project: Project) -> None:
    dataset = project.open("val")
    batches = list(whole_batches(dataset, images_per_batch=3, threads=2, ahead=1))
    assert [batch.rows for batch in batches] == [[0, 1, 2], [3]]
    assert sum(len(batch.boxes) for batch in batches) == dataset.index.rois_per_image.sum()


def test_collate_of_an_image_without_rois(tmp_path: Path) -> None:
    dataset = hand_made(tmp_path, [person_record(1, 7, rectangle(0, 0, 4, 30))])
    batch = collate([dataset.whole_sample(0)])
    assert len(dataset.rows) == 0
    assert batch.boxes.shape == (0, 5)
    assert batch.targets.labels.shape == (0, 8, 16)
    assert list(whole_batches(dataset, images_per_batch=2, threads=1, ahead=1)) == []


# --- prefetch ---


class Counting(RoiDataset):
    """Counts the samples that were made; `fail_at` breaks one."""

    made = 0
    fail_at = -1

    def training_sample(self, row: int, rng: np.random.Generator) -> ImageSample:
        self.made += 1
        if self.made == self.fail_at:
            raise StoreDamagedError("row 3 of layer_3 can't be read")
        return super().training_sample(row % 4, rng)


@pytest.fixture
def counting(project: Project) -> Counting:
    plain = project.open("val")
    dataset = Counting(plain.index, plain.store, plain.params, plain.layers, plain.mask_hw)
    dataset.rows = np.arange(20)
    return dataset


def wait_for(dataset: Counting, made: int) -> None:
    """Wait until so many samples were made, and see that no more come."""
    end = time.monotonic() + 20
    while dataset.made < made and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(0.03)
    assert dataset.made == made


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 3)])
def test_prefetch_is_bounded(counting: Counting, threads: int, ahead: int) -> None:
    batches = training_batches(counting, seed=0, epoch=1, images_per_batch=2, threads=threads, ahead=ahead)
    for taken, _ in enumerate(batches, start=1):
        if taken <= 3:
            wait_for(counting, 2 * (taken + ahead))
        assert counting.made <= 2 * (taken + ahead)
    assert counting.made == 20


def test_prefetch_stops_with_its_reader(counting: Counting) -> None:
    batches = training_batches(counting, seed=0, epoch=1, images_per_batch=1, threads=1, ahead=2)
    next(batches)
    assert isinstance(batches, Generator)
    batches.close()
    made = counting.made
    time.sleep(0.1)
    assert counting.made == made <= 4


def test_a_fault_while_loading_reaches_the_reader(counting: Counting) -> None:
    counting.fail_at = 5
    batches = training_batches(counting, seed=0, epoch=1, images_per_batch=2, threads=2, ahead=3)
    with pytest.raises(StoreDamagedError, match="row 3 of layer_3"):
        list(batches)
    assert counting.made < 20


# --- stored types ---


def test_dequantise_by_hand() -> None:
    stored = {"a": torch.tensor([[[[1, -127]], [[3, 4]]]], dtype=torch.int8), "b": torch.tensor([[[[0.5]]]], dtype=torch.float16)}
    found = dequantise(stored, {"a": torch.tensor([0.5, 2.0])}, torch.device("cpu"))
    assert found["a"].tolist() == [[[[0.5, -63.5]], [[6.0, 8.0]]]]
    assert found["b"].tolist() == [[[[0.5]]]]
    assert all(values.dtype == torch.float32 for values in found.values())


def test_int8_features_are_the_float16_ones(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    small = shared_project(tmp_path_factory, "int8")
    exact, rough = (part.open("train").store for part in (project, small))
    scales = {name: torch.from_numpy(values) for name, values in rough.scales.items()}
    assert set(scales) == set(CHANNELS)
    for row in range(len(exact)):
        stored = {name: torch.from_numpy(values)[None] for name, values in rough.read(row, CHANNELS).items()}
        assert all(values.dtype == torch.int8 for values in stored.values())
        found = dequantise(stored, scales, torch.device("cpu"))
        for name, values in exact.read(row, CHANNELS).items():
            error: NDArray[np.float32] = np.abs(found[name][0].numpy() - values.astype(np.float32))
            # half a step, and what float16 itself rounds
            assert (error <= small.scales[name].reshape(-1, 1, 1) * 0.5 + 2e-3).all()


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
        ({"max_rois_per_image": 0}, r"dataset\.max_rois_per_image"),
        ({"jitter_scale": 1.0}, r"dataset\.jitter_scale"),
        ({"jitter_center": 0.1}, r"dataset\.jitter_center: unknown key; did you mean 'jitter_centre'"),
    ],
)
def test_params_are_checked(project: Project, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        project.sections(**changes)
