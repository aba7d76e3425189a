"""Tests of roiseg.losses.contrastive: which pixels are drawn, written-out values, against a loop, and ROIs of one class."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roiseg.losses.contrastive import ContrastiveParams, contrastive, labels_at, sampled
from roiseg.losses.region import IGNORE


def params_of(temperature: float = 0.1, samples: int = 4) -> ContrastiveParams:
    return ContrastiveParams.parse({"weight": 0.1, "temperature": temperature, "samples": samples}, "loss.contrastive")


def test_samples_lie_at_equal_steps() -> None:
    labels = torch.tensor([[1, 0, 1, 1, 0, 1, 1, 1, 1, 1]])
    places, there = sampled(labels, 1, 4)
    assert places.tolist() == [[2, 5, 7, 9]], "the 2nd, 4th, 6th and 8th of its 8 pixels"
    assert there.tolist() == [[True] * 4]


def test_fewer_pixels_than_samples_come_once_each() -> None:
    labels = torch.tensor([[0, 2, 0, 2, 0, 0], [0, 0, 0, 0, 0, 0]])
    places, there = sampled(labels, 2, 4)
    assert places[0, :2].tolist() == [1, 3]
    assert there.tolist() == [[True, True, False, False], [False] * 4]
    assert places.max() < 6


def test_labels_at_cell_centres() -> None:
    labels = torch.arange(24).reshape(1, 4, 6)
    assert labels_at(labels, (4, 6)).equal(labels)
    assert labels_at(labels, (2, 2)).tolist() == [[[7, 10], [19, 22]]]
    assert labels_at(labels, (8, 6)).equal(labels.repeat_interleave(2, 1))


def test_two_classes_by_hand() -> None:
    """Directions (1, 0) of the background and (0.6, 0.8) of the target, at any length: log(1 + exp((0.6 - 1) / t))."""
    embedding = torch.tensor([[[[1.0, 7.0, 1.2, 0.3]], [[0.0, 0.0, 1.6, 0.4]]]])
    labels = torch.tensor([[[0, 0, 1, 1]]])
    for temperature in (0.1, 0.5):
        found = float(contrastive(embedding, labels, params_of(temperature)))
        assert found == pytest.approx(math.log(1 + math.exp(-0.4 / temperature)), rel=1e-4)


def test_equal_embeddings_cost_the_log_of_the_classes_there() -> None:
    embedding = torch.ones(1, 3, 1, 6)
    for labels, count in (([0, 0, 1, 1, 2, 2], 3), ([0, 0, 2, 2, IGNORE, IGNORE], 2)):
        assert float(contrastive(embedding, torch.tensor([[labels]]), params_of())) == pytest.approx(math.log(count))


def test_rois_of_one_class_say_nothing() -> None:
    embedding = torch.randn(2, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, 2, 3, dtype=torch.int64)
    assert float(contrastive(embedding, labels, params_of())) == 0
    labels[1, 0] = 1
    torch.testing.assert_close(contrastive(embedding, labels, params_of()), contrastive(embedding[1:], labels[1:], params_of()))


@given(st.integers(0, 10_000))
def test_matches_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(3, 4, 2, 5))
    labels = rng.choice([0, 1, 2, IGNORE], size=(3, 2, 5))
    values = []
    for vectors, truth in zip(embedding.reshape(3, 4, 10).swapaxes(1, 2), labels.reshape(3, 10), strict=True):
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        centres = {label: units[truth == label].mean(axis=0) for label in (0, 1, 2) if (truth == label).any()}
        centres = {label: centre / np.linalg.norm(centre) for label, centre in centres.items()}
        if len(centres) > 1:
            for unit, label in zip(units, truth, strict=True):
                if label in centres:
                    scores = {name: np.exp(unit @ centre / 0.2) for name, centre in centres.items()}
                    values.append(-np.log(scores[label] / sum(scores.values())))
    found = contrastive(torch.from_numpy(embedding), torch.from_numpy(labels), params_of(0.2, samples=10))
    assert float(found) == pytest.approx(float(np.mean(values)) if values else 0.0, abs=1e-6)


def test_learning_parts_the_classes() -> None:
    embedding = torch.randn(1, 8, 1, 12, generator=torch.Generator().manual_seed(3)).requires_grad_()
    labels = torch.tensor([[[1, 2] * 6]])
    optimizer = torch.optim.SGD([embedding], lr=2.0)
    for _ in range(100):
        optimizer.zero_grad()
        loss = contrastive(embedding, labels, params_of(samples=12))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    directions = torch.nn.functional.normalize(embedding.detach()[0, :, 0], dim=0)
    assert float(loss.detach()) < 0.01
    assert float((directions[:, 0] * directions[:, 2]).sum()) > float((directions[:, 0] * directions[:, 1]).sum()) + 0.2
