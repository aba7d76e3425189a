"""Tests of roiseg.snapper.loss and .targets: closed forms, and gradients that point the right way."""

import math

import pytest
import torch
from snap_factory import snap_loss, snapper_section

from roiseg.snapper.loss import SnapLoss, box_giou_loss
from roiseg.snapper.targets import edge_targets

DECISION = snapper_section().decision
ONES = torch.ones(2)
TARGETS = torch.tensor([[0.1, 0.2, 0.8, 0.9], [0.0, 0.0, 1.0, 1.0]])


def test_onehot_is_at_the_nearest_position() -> None:
    found = edge_targets(TARGETS, 11, snap_loss(target="onehot"))
    assert found.argmax(dim=-1).tolist() == [[1, 2, 8, 9], [0, 0, 10, 10]]
    assert found.sum(dim=-1).tolist() == [[1.0] * 4] * 2


def test_gaussian_by_hand() -> None:
    places = [math.exp(-((k / 10 - 0.2) ** 2) / (2 * 0.1**2)) for k in range(11)]
    found = edge_targets(TARGETS, 11, snap_loss(sigma=0.1))[0, 1]
    torch.testing.assert_close(found, torch.tensor(places) / sum(places))
    peaked = edge_targets(TARGETS, 11, snap_loss(form="bce", sigma=0.1))[0, 1]
    torch.testing.assert_close(peaked, torch.tensor(places))


@pytest.mark.parametrize("form", ["softmax", "bce"])
def test_a_gaussian_narrower_than_a_position_is_onehot(form: str) -> None:
    narrow = edge_targets(TARGETS, 11, snap_loss(form=form, sigma=1e-4))
    torch.testing.assert_close(narrow, edge_targets(TARGETS, 11, snap_loss(target="onehot")))


def test_bce_of_flat_logits_is_four_times_log_two() -> None:
    found = SnapLoss(snap_loss(form="bce", target="onehot"), DECISION)(torch.zeros(2, 4, 224), TARGETS, ONES)
    assert found["total"].item() == pytest.approx(4 * math.log(2), rel=1e-6)
    assert set(found) == {"total", "edges"}


def test_softmax_of_flat_logits_is_four_times_log_n() -> None:
    for target in ("onehot", "gaussian"):
        found = SnapLoss(snap_loss(target=target), DECISION)(torch.zeros(2, 4, 50), TARGETS, ONES)
        assert found["total"].item() == pytest.approx(4 * math.log(50), rel=1e-6)


def test_weights_shrink_a_box_share_of_the_mean() -> None:
    logits = torch.randn(2, 4, 20, generator=torch.Generator().manual_seed(0))
    loss = SnapLoss(snap_loss(giou=0.5), DECISION)
    first, second = (loss(logits[i : i + 1], TARGETS[i : i + 1], ONES[:1])["total"] for i in (0, 1))
    both = loss(logits, TARGETS, torch.tensor([1.0, 0.25]))["total"]
    assert both.item() == pytest.approx((first + 0.25 * second).item() / 2, rel=1e-5)
    nothing = loss(logits, TARGETS, torch.zeros(2))["total"]
    assert nothing.item() == 0.0


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.0, 0.0, 1.0, 1.0), 0.0),
        ((0.0, 0.0, 0.5, 1.0), 0.5),
        ((1.0, 0.0, 0.0, 1.0), 0.0),
        ((2.0, 0.0, 3.0, 1.0), 1 + 1 / 3),
    ],
    ids=["the same", "half", "edges that changed sides", "apart"],
)
def test_giou_by_hand(box: tuple[float, ...], expected: float) -> None:
    """Apart: no overlap, and a third of the box around both belongs to neither."""
    found = box_giou_loss(torch.tensor([box]), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_giou_term_is_added_with_its_coefficient() -> None:
    logits = torch.randn(2, 4, 20, generator=torch.Generator().manual_seed(0))
    found = SnapLoss(snap_loss(giou=0.5), DECISION)(logits, TARGETS, ONES)
    assert found["total"].item() == pytest.approx((found["edges"] + 0.5 * found["giou"]).item(), rel=1e-6)


@pytest.mark.parametrize("form", ["softmax", "bce"])
@pytest.mark.parametrize("target", ["onehot", "gaussian"])
@pytest.mark.parametrize("rule", ["argmax", "expectation"])
def test_following_the_gradient_finds_the_edges(form: str, target: str, rule: str) -> None:
    logits = torch.zeros(2, 4, 20, requires_grad=True)
    decision = snapper_section(decision={"rule": rule}).decision
    loss = SnapLoss(snap_loss(form=form, target=target, giou=1.0), decision)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        total = loss(logits, TARGETS, ONES)["total"]
        total.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        optimizer.step()
    assert (logits.argmax(dim=-1) / 19 - TARGETS).abs().max().item() <= 0.5 / 19 + 1e-6
