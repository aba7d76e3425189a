"""Tests of roiseg.sampler: what is drawn, and that neutral params draw what they always drew."""

import hashlib
from pathlib import Path

import numpy as np
from data_factory import person_record, rectangle
from store_factory import hand_made

from roiseg.dataset import RoiDataset


def crowd(folder: Path) -> RoiDataset:
    """Twelve people of 10 x 9 pixels in an image of 64 x 32, who overlap."""
    people = [person_record(number + 1, 7, rectangle(1 + 4.5 * number, 2 + number, 10, 9)) for number in range(12)]
    return hand_made(folder, people, {"jitter_centre": 0.1, "jitter_scale": 0.1, "roi_padding": 0.05})


def test_neutral_params_draw_what_they_always_drew(tmp_path: Path) -> None:
    """The digest is that of the code before there was a sampler."""
    dataset = crowd(tmp_path)
    dataset.views = ("plain", "mirrored")
    found = hashlib.sha256()
    for epoch in range(1, 9):
        sample = dataset.training_sample(0, np.random.default_rng([3, epoch, 0]))
        assert sample.numbers.shape == (9,)
        for part in (sample.numbers, sample.boxes, sample.labels):
            found.update(np.ascontiguousarray(part).tobytes())
        found.update(sample.view.encode())
    assert found.hexdigest() == "39deed97a8d7bfce083cdfe1309c4d44b3354b98e2b59d986f5a8a096d17e1c4"
