"""Tests of roiseg.train.memory: the step before the first is as large as any, and a run is the same with it and without."""

import os

import numpy as np
import pytest
from store_factory import MODELS, Project, shared_project

from roiseg.batches import Loading, training_batches
from roiseg.dataset import RoiDataset
from roiseg.train.memory import KERNELS, largest_batch, limit_kernels

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> RoiDataset:
    project: Project = shared_project(tmp_path_factory)
    return project.open("train", MODELS["roi_unet"])


@pytest.mark.parametrize("images", [1, 2, 3, 100])
def test_no_batch_of_any_epoch_is_larger(dataset: RoiDataset, images: int) -> None:
    largest = largest_batch(dataset, images)
    for epoch in (1, 2, 3):
        for batch in training_batches(dataset, Loading(images, threads=1, ahead=0), seed=0, epoch=epoch):
            assert len(batch.boxes) <= len(largest.boxes)
            for name, values in batch.features.items():
                assert values.shape[0] <= largest.features[name].shape[0]
                assert values.shape[1:] == largest.features[name].shape[1:]
            for field in ("labels", "boundary", "target", "non_target"):
                found, expected = getattr(largest.targets, field), getattr(batch.targets, field)
                assert (found.dtype, found.shape[1:], len(found)) == (expected.dtype, expected.shape[1:], len(largest.boxes))


def test_largest_batch_follows_the_params(dataset: RoiDataset) -> None:
    counts = np.sort(dataset.index.rois_per_image)[::-1]
    limit = dataset.params.max_rois_per_image
    assert len(largest_batch(dataset, 2).boxes) == int(np.minimum(counts[:2], limit).sum())


def test_kernels_are_limited_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CAPACITY, "7")
    limit_kernels()
    assert os.environ[CAPACITY] == "7"
    monkeypatch.delenv(CAPACITY)
    limit_kernels()
    assert os.environ[CAPACITY] == str(KERNELS)
