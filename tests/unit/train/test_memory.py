"""Tests of roiseg.train.memory: the step before the first is as large as any, and a run is the same with it and without."""

import os
from pathlib import Path
from typing import Any

import pytest
from head_factory import MODELS
from store_factory import Project, sampler_params, shared_project, write_shares

from roiseg.batches import Loading
from roiseg.sampler import Sampler, training_batches
from roiseg.train.memory import KERNELS, largest_batch, limit_kernels

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


DRAWS: dict[str, dict[str, Any]] = {
    "neutral": {},
    "extra boxes": {"extra_rois": 2, "extra_iou": 0.0},
    "balanced": {"balance": "crowdedness", "non_target_gamma": 2.0, "rois_per_image": 9},
}


def sampler_of(project: Project, draws: str, folder: Path) -> Sampler:
    """Only row 4, which has the most ROIs, has class 2: balanced, it comes up two or three times in five turns."""
    dataset = project.open("train", MODELS["roi_unet"])
    shares = {row: [0.2 if row == 4 else 0.0] * count for row, count in enumerate(dataset.index.rois_per_image.tolist())}
    return Sampler(dataset, sampler_params(**DRAWS[draws]), write_shares(folder / "rois.parquet", dataset.index, shares))


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("images", [1, 2, 3, 100])
def test_no_batch_of_any_epoch_is_larger(project: Project, tmp_path: Path, images: int, draws: str) -> None:
    sampler = sampler_of(project, draws, tmp_path)
    largest = largest_batch(sampler, images)
    for epoch in (1, 2, 3):
        for batch in training_batches(sampler, Loading(images, threads=1, ahead=0), seed=0, epoch=epoch):
            assert len(batch.boxes) <= len(largest.boxes)
            for name, values in batch.features.items():
                assert values.shape[0] <= largest.features[name].shape[0]
                assert values.shape[1:] == largest.features[name].shape[1:]
            for field in ("labels", "boundary", "target", "non_target"):
                found, expected = getattr(largest.targets, field), getattr(batch.targets, field)
                assert (found.dtype, found.shape[1:], len(found)) == (expected.dtype, expected.shape[1:], len(largest.boxes))


def test_the_largest_batch_has_frames_where_batches_have(project: Project, tmp_path: Path) -> None:
    sampler = sampler_of(project, "neutral", tmp_path)
    assert largest_batch(sampler, 2).targets.frames is None
    framed = sampler.read_by(["layer_34"], (12, 10), (8, 12))
    largest = largest_batch(framed, 2).targets.frames
    batch = next(training_batches(framed, Loading(2, threads=1, ahead=0), seed=0, epoch=1)).targets.frames
    assert largest is not None
    assert batch is not None
    assert (largest.dtype, largest.shape) == (batch.dtype, (2, 5, 8, 12))
    assert batch.shape[2:] == largest.shape[2:]


@pytest.mark.parametrize(("draws", "rois"), [("neutral", 3 + 2), ("extra boxes", 5 + 4), ("balanced", 5 + 5)])
def test_largest_batch_follows_the_params(project: Project, tmp_path: Path, draws: str, rois: int) -> None:
    assert project.open("train").index.rois_per_image.tolist() == [1, 2, 1, 2, 5]
    assert len(largest_batch(sampler_of(project, draws, tmp_path), 2).boxes) == rois


def test_kernels_are_limited_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CAPACITY, "7")
    limit_kernels()
    assert os.environ[CAPACITY] == "7"
    monkeypatch.delenv(CAPACITY)
    limit_kernels()
    assert os.environ[CAPACITY] == str(KERNELS)
