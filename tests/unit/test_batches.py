"""Tests of roiseg.batches: what no number of threads changes, what is loaded ahead, and buffers that go round."""

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_factory import person_record, rectangle
from numpy.typing import NDArray
from store_factory import CHANNELS, Project, hand_made, sampler_params, shared_project

from roiseg.batches import Batch, Loading, collate, dequantise, single_batch, whole_batches
from roiseg.dataset import ImageSample
from roiseg.errors import StoreDamagedError
from roiseg.sampler import Sampler, training_batches


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def kept(batches: Iterable[Batch]) -> list[Batch]:
    """All batches, with features of their own: those of the loader go round."""
    return [replace(batch, features={name: values.clone() for name, values in batch.features.items()}) for batch in batches]


def epoch_of(sampler: Sampler, *, seed: int = 0, epoch: int = 1, threads: int = 1, ahead: int = 2, images: int = 2) -> list[Batch]:
    return kept(training_batches(sampler, Loading(images, threads, ahead), seed=seed, epoch=epoch))


def assert_same(first: Sequence[Batch], second: Sequence[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.rows == other.rows
        np.testing.assert_array_equal(one.numbers, other.numbers)
        assert torch.equal(one.boxes, other.boxes)
        for name in ("labels", "boundary", "target", "non_target"):
            assert torch.equal(getattr(one.targets, name), getattr(other.targets, name)), name
        assert all(torch.equal(one.features[name], other.features[name]) for name in one.features)


# --- batches ---


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (3, 1), (3, 5)])
def test_batches_dont_depend_on_threads(project: Project, threads: int, ahead: int) -> None:
    sampler = project.sampler()
    assert_same(epoch_of(sampler), epoch_of(sampler, threads=threads, ahead=ahead))


def test_draws_of_an_image_dont_depend_on_the_batch_size(project: Project) -> None:
    sampler = project.sampler()
    one, three = ({row: batch.boxes[batch.boxes[:, 0] == place, 1:] for batch in epoch_of(sampler, images=images)
                   for place, row in enumerate(batch.rows)} for images in (1, 3))  # fmt: skip
    assert one.keys() == three.keys()
    assert all(torch.equal(one[row], three[row]) for row in one)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 2}])
def test_seed_and_epoch_change_order_and_draws(project: Project, other: dict[str, int]) -> None:
    sampler = project.sampler()
    first, second = epoch_of(sampler, images=1), epoch_of(sampler, images=1, **other)
    assert sorted(batch.rows[0] for batch in first) == sorted(batch.rows[0] for batch in second)
    assert [batch.rows for batch in first] != [batch.rows for batch in second]
    boxes = {batch.rows[0]: batch.boxes for batch in second}
    assert not any(torch.equal(batch.boxes, boxes[batch.rows[0]]) for batch in first)
    assert_same(second, epoch_of(sampler, images=1, **other))


def test_collate_numbers_the_images(project: Project) -> None:
    dataset = project.open("val")
    rows = [2, 0, 3]
    samples = [dataset.whole_sample(row) for row in rows]
    stored = {name: torch.from_numpy(np.stack([dataset.store.read(row, [name])[name] for row in rows])) for name in CHANNELS}
    batch = collate(samples, stored)
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
            assert torch.equal(batch.features[name][place], stored[name][place])
        start += count


def test_whole_batches_are_in_row_order_and_whole(project: Project) -> None:
    dataset = project.open("val")
    batches = list(whole_batches(dataset, Loading(3, 2, 1)))
    assert [batch.rows for batch in batches] == [[0, 1, 2], [3]]
    assert sum(len(batch.boxes) for batch in batches) == dataset.index.rois_per_image.sum()


def test_an_image_without_rois(tmp_path: Path) -> None:
    dataset = hand_made(tmp_path, [person_record(1, 7, rectangle(0, 0, 4, 30))])
    batch = single_batch(dataset, 0)
    assert len(dataset.rows) == 0
    assert batch.boxes.shape == (0, 5)
    assert batch.targets.labels.shape == (0, 8, 16)
    assert list(whole_batches(dataset, Loading(2, 1, 1))) == []


# --- prefetch ---


class Counting(Sampler):
    """Counts the samples that were made; `fail_at` breaks one."""

    made = 0
    fail_at = -1

    def sample(self, row: int, rng: np.random.Generator) -> ImageSample:
        self.made += 1
        if self.made == self.fail_at:
            raise StoreDamagedError("row 3 of layer_3 can't be read")
        return super().sample(row % 4, rng)


@pytest.fixture
def counting(project: Project) -> Counting:
    dataset = project.open("val")
    dataset.rows = np.arange(20)
    return Counting(dataset, sampler_params(), project.rois)


def wait_for(sampler: Counting, made: int) -> None:
    """Wait until so many samples were made, and see that no more come."""
    end = time.monotonic() + 20
    while sampler.made < made and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(0.03)
    assert sampler.made == made


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 3)])
def test_prefetch_is_bounded(counting: Counting, threads: int, ahead: int) -> None:
    batches = training_batches(counting, Loading(2, threads, ahead), seed=0, epoch=1)
    for taken, _ in enumerate(batches, start=1):
        if taken <= 3:
            wait_for(counting, 2 * (taken + ahead))
        assert counting.made <= 2 * (taken + ahead)
    assert counting.made == 20


def test_prefetch_stops_with_its_reader(counting: Counting) -> None:
    batches = training_batches(counting, Loading(1, 1, 2), seed=0, epoch=1)
    next(batches)
    assert isinstance(batches, Generator)
    batches.close()
    made = counting.made
    time.sleep(0.1)
    assert counting.made == made <= 4


def test_a_fault_while_loading_reaches_the_reader(counting: Counting) -> None:
    counting.fail_at = 5
    batches = training_batches(counting, Loading(2, 2, 3), seed=0, epoch=1)
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


def test_dequantise_into_buffers() -> None:
    """The same values in memory that stays; a smaller batch takes the front of it."""
    kept: dict[str, torch.Tensor] = {}
    scales, rng = {"a": torch.tensor([0.5, 2.0])}, np.random.default_rng(0)
    places = []
    for images in (3, 1, 3, 2):
        stored = {
            "a": torch.from_numpy(rng.integers(-127, 128, (images, 2, 3, 4)).astype(np.int8)),
            "b": torch.from_numpy(rng.normal(size=(images, 1, 2, 2)).astype(np.float16)),
        }
        found = dequantise(stored, scales, torch.device("cpu"), kept)
        expected = dequantise(stored, scales, torch.device("cpu"))
        for name, values in found.items():
            assert torch.equal(values, expected[name])
            assert values.data_ptr() != expected[name].data_ptr()
        places.append({name: values.data_ptr() for name, values in found.items()})
    assert all(place == places[0] for place in places)


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


# --- buffers ---


def test_features_are_those_of_the_rows(project: Project) -> None:
    sampler = project.sampler()
    dataset = sampler.dataset
    for batch in training_batches(sampler, Loading(2, 2, 2), seed=0, epoch=1):
        for place, row in enumerate(batch.rows):
            for name, values in dataset.store.read(row, dataset.layers).items():
                np.testing.assert_array_equal(batch.features[name][place].numpy(), values)


def test_buffers_go_round(counting: Counting) -> None:
    """However many batches there are, features lie in the few places that `ahead` allows."""
    places = {batch.features["layer_3"].data_ptr() for batch in training_batches(counting, Loading(1, 2, 2), seed=0, epoch=1)}
    assert 2 <= len(places) <= 4
