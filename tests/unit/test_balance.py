"""Tests of roiseg.balance: groups by hand, counts that are exact on average and never more than one off."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roiseg.balance import GROUP_NAMES, Balance, crowdedness, systematic_counts


def test_groups_by_hand() -> None:
    shares = np.array([0.0, 1e-6, 0.0999, 0.1, 0.2, 0.3, 0.3001, 1.0], dtype=np.float32)
    assert [GROUP_NAMES[group] for group in crowdedness(shares)] == [
        "none", "below 10 %", "below 10 %", "10 to 30 %", "10 to 30 %", "10 to 30 %", "above 30 %", "above 30 %"
    ]  # fmt: skip


def test_whole_expectations_are_met_exactly() -> None:
    expected = np.array([2.0, 0.0, 1.0, 3.0])
    for seed in range(20):
        assert systematic_counts(expected, np.random.default_rng(seed)).tolist() == [2, 0, 1, 3]


@given(seed=st.integers(0, 1000), weights=st.lists(st.floats(0.05, 20), min_size=1, max_size=12), total=st.integers(1, 40))
def test_counts_are_expectations_rounded_up_or_down(seed: int, weights: list[float], total: int) -> None:
    expected = np.array(weights) * total / np.sum(weights)
    counts = systematic_counts(expected, np.random.default_rng(seed))
    assert counts.sum() == total
    assert (np.abs(counts - expected) < 1 + 1e-9).all()


def test_counts_are_right_on_average() -> None:
    expected = np.array([0.2, 0.8, 1.5, 0.5])
    found = np.mean([systematic_counts(expected, np.random.default_rng(seed)) for seed in range(4000)], axis=0)
    assert found == pytest.approx(expected, abs=0.03)


def test_groups_of_any_size_have_the_same_turns() -> None:
    """12 images in groups of 1, 3 and 8: four turns each."""
    groups = np.repeat([0, 1, 3], [1, 3, 8])
    balance = Balance(groups, np.ones(12))
    assert balance.names.tolist() == [0, 1, 3]
    assert balance.sizes.tolist() == [1, 3, 8]
    assert balance.most.tolist() == [4, 2, 2, 2, *[1] * 8]
    seen = np.zeros(12)
    for seed in range(2000):
        drawn = balance.draw(np.random.default_rng(seed))
        counts = np.bincount(drawn, minlength=12)
        assert np.bincount(groups, counts).tolist() == [4, 4, 0, 4]
        assert (counts <= balance.most).all()
        seen += counts
    assert seen / 2000 == pytest.approx([4, 4 / 3, 4 / 3, 4 / 3, *[0.5] * 8], abs=0.05)


def test_weights_count_within_a_group() -> None:
    balance = Balance(np.array([0, 0, 2, 2]), np.array([1.0, 3.0, 1.0, 1.0]))
    assert balance.most.tolist() == [1, 2, 1, 1]
    found = np.mean([np.bincount(balance.draw(np.random.default_rng(seed)), minlength=4) for seed in range(2000)], axis=0)
    assert found == pytest.approx([0.5, 1.5, 1.0, 1.0], abs=0.04)


def test_one_group_of_equal_images_is_the_plain_epoch() -> None:
    drawn = Balance(np.full(7, 2), np.ones(7)).draw(np.random.default_rng(0))
    assert sorted(drawn.tolist()) == list(range(7))


def test_no_images_are_no_turns() -> None:
    balance = Balance(np.zeros(0, dtype=np.int64), np.ones(0))
    assert balance.draw(np.random.default_rng(0)).tolist() == []
    assert balance.most.tolist() == []
