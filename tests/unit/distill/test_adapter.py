"""Tests of roiseg.distill.adapter: it begins as nothing, bends, and can't flatten."""

import pytest
import torch
from torch import Tensor, nn

from roiseg.distill.adapter import BEND, Adapter


def drawn(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def standardised(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=(0, 2, 3), keepdim=True)
    return centred / centred.square().mean(dim=(0, 2, 3), keepdim=True).sqrt()


def test_begins_with_the_standardised_map() -> None:
    torch.manual_seed(0)
    x = drawn(2, 16, 5, 6) * 30 + 4
    torch.testing.assert_close(Adapter(16)(x), standardised(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_whatever_it_learns_stays_near(size: float) -> None:
    """With weights of any size a channel keeps half of its deviation, and no two that were apart become one."""
    torch.manual_seed(1)
    adapter = Adapter(16)
    for weight in adapter.parameters():
        nn.init.normal_(weight, std=size)
    x = drawn(4, 16, 8, 8)
    found = adapter(x).detach()
    assert float((found - standardised(x)).abs().max()) <= BEND + 1e-4
    assert float(found.std(dim=(0, 2, 3), correction=0).min()) >= 1 - BEND - 1e-4


def test_a_loss_can_not_make_it_a_constant() -> None:
    """Pulled towards 0 for as long as it takes, it gives what it can and no more."""
    torch.manual_seed(2)
    adapter, x = Adapter(8), drawn(4, 8, 6, 6)
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        pull = adapter(x).square().mean()
        pull.backward()
        optimizer.step()
    found = adapter(x).detach()
    assert float(found.square().mean()) < 0.95
    assert float(found.std(dim=(0, 2, 3), correction=0).min()) >= 1 - BEND


def test_a_still_channel_and_no_images() -> None:
    adapter = Adapter(3)
    x = drawn(2, 3, 4, 4)
    x[:, 1] = 7.0
    assert adapter(x).isfinite().all()
    before = adapter.norm.running_mean
    assert before is not None
    kept = before.clone()
    assert adapter(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 4, 4)
    assert before.equal(kept)
