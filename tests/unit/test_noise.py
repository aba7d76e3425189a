"""Tests of roiseg.noise: how strong it is, what it leaves alone, and which generator it draws from."""

import numpy as np
import pytest
import torch
from torch import Tensor

from roiseg.noise import FeatureNoise


def features() -> dict[str, Tensor]:
    """Channels of deviation 1, 5 and 0; the other layer is one image of the first."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 3, 40, 50)).astype(np.float32) * np.array([1, 5, 0], dtype=np.float32).reshape(1, 3, 1, 1) + 2
    return {"deep": torch.from_numpy(values), "shallow": torch.from_numpy(values[:1, :1].copy())}


def test_noise_follows_the_channel() -> None:
    before, after = features(), features()
    torch.manual_seed(0)
    found = FeatureNoise(0.2).add(after)
    assert found["deep"] is after["deep"]
    added = found["deep"] - before["deep"]
    assert added.std(dim=(0, 2, 3)).tolist() == pytest.approx([0.2, 1.0, 0.0], rel=0.03)
    assert added.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=0.04)
    images = added[:, 0].flatten(1)
    assert np.abs(np.corrcoef(images.numpy()) - np.eye(4)).max() < 0.1, "each image has noise of its own"
    assert (found["shallow"] - before["shallow"]).std().item() == pytest.approx(0.2, rel=0.06)


def test_no_noise_draws_nothing() -> None:
    before, after, state = features(), features(), torch.get_rng_state()
    FeatureNoise(0.0).add(after)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_follows_the_global_generator() -> None:
    """The one whose state a checkpoint holds."""
    noise, found = FeatureNoise(0.5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(noise.add(features())["deep"].clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_memory_of_one_image_goes_round() -> None:
    noise = FeatureNoise(0.1)
    noise.add(features())
    places = {name: values.data_ptr() for name, values in noise._drawn.items()}
    noise.add({name: values[:1] for name, values in features().items()})
    assert {name: values.data_ptr() for name, values in noise._drawn.items()} == places
    assert noise._drawn["deep"].shape == (3, 40, 50)
