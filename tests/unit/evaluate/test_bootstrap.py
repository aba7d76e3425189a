"""Tests of roiseg.evaluate.bootstrap: a naive loop, known distributions, and differences of what is equal."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from table_factory import random_table, table_of

from roiseg.evaluate import bootstrap
from roiseg.evaluate.bootstrap import HEADLINE, RESAMPLES, Difference, difference, draws, intervals, percentiles
from roiseg.evaluate.metrics import roi_figures
from roiseg.evaluate.table import RoiTable


def figure_tables(rng: np.random.Generator, images: int, rate: float) -> RoiTable:
    """Images of one ROI, whose people are found with a probability."""
    found = rng.random(images) < rate
    confusions = np.zeros((images, 3, 3), dtype=np.int64)
    confusions[found, 1, 1] = confusions[~found, 1, 0] = 10
    return table_of(confusions)


def drawn(images: int, seed: tuple[int, ...] = (0,)) -> NDArray[np.int64]:
    return np.concatenate(list(draws(images, seed)))


# --- a naive loop ---


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 resamples, as a loop over them is slow."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 80)


def naive_values(table: RoiTable, counts: NDArray[np.int64]) -> list[dict[str, float]]:
    """Figures of tables in which each image stands as often as it was drawn."""
    images = [table.part(table.image_ids == number) for number in np.unique(table.image_ids)]
    repeated = ([part for part, times in zip(images, row, strict=True) for _ in range(times)] for row in counts.tolist())
    return [roi_figures(RoiTable.together(parts)) for parts in repeated]


def naive_percentile(values: list[float], percent: float) -> float:
    """Linear between the two nearest of sorted values."""
    ordered, place = sorted(values), percent / 100 * (len(values) - 1)
    below, above = ordered[int(place)], ordered[min(int(place) + 1, len(values) - 1)]
    return below + (above - below) * (place - int(place))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("seed", range(6))
def test_intervals_are_those_of_a_naive_loop(seed: int) -> None:
    table = random_table(np.random.default_rng(seed), seed + 1, 9)
    values = naive_values(table, drawn(len(np.unique(table.image_ids))))
    found = intervals(table)
    assert set(found) == {name for name in HEADLINE if any(name in item for item in values)}
    for name, pair in found.items():
        kept = [item[name] for item in values if name in item]
        assert pair == pytest.approx((naive_percentile(kept, 2.5), naive_percentile(kept, 97.5)), abs=1e-9)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_differences_are_those_of_a_naive_loop(seed: int, paired: bool) -> None:
    rng = np.random.default_rng(seed)
    first, second = (random_table(rng, 5, 12) for _ in range(2))
    ids = np.sort(np.concatenate([np.arange(5), rng.integers(0, 5, 7)]))
    first, second = replace(first, image_ids=ids), replace(second, image_ids=ids if paired else ids + 1)
    before = naive_values(first, drawn(5))
    after = naive_values(second, drawn(5, (0,) if paired else (0, 1)))
    found = difference(first, second)
    for name in ("miou_fg_roi", "pixel_accuracy", "boundary_iou_image", "separation_accuracy"):
        steps = [right[name] - left[name] for left, right in zip(before, after, strict=True) if name in left and name in right]
        expected = Difference(
            roi_figures(second)[name] - roi_figures(first)[name],
            naive_percentile(steps, 2.5),
            naive_percentile(steps, 97.5),
            paired,
        )
        assert astuple(found[name]) == pytest.approx(astuple(expected), abs=1e-9)


# --- known distributions ---


def test_intervals_cover_the_truth_19_times_of_20() -> None:
    """Of 400 data sets of 80 images; three standard deviations of the count are 13."""
    rng, truth, covered = np.random.default_rng(0), 0.6, 0
    for _ in range(400):
        low, high = intervals(figure_tables(rng, 80, truth))["iou_target_roi"]
        covered += low <= truth <= high
    assert abs(covered / 400 - 0.95) < 0.033


def test_intervals_are_as_wide_as_the_standard_error_says() -> None:
    table = figure_tables(np.random.default_rng(1), 1000, 0.5)
    low, high = intervals(table)["iou_target_roi"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 1000), rel=0.1)


def test_images_are_drawn_whole() -> None:
    """Ten equal ROIs in each image say no more than one of them, and the interval is no narrower."""
    table = figure_tables(np.random.default_rng(2), 50, 0.5)
    tenfold = table.part(np.repeat(np.arange(50), 10))
    assert intervals(tenfold)["iou_target_roi"] == pytest.approx(intervals(table)["iou_target_roi"])


def test_pairs_show_smaller_differences() -> None:
    """Hard images are hard for both: by themselves, their draw hides that the second is better throughout."""
    rng = np.random.default_rng(3)
    hits = rng.integers(10, 80, 100)
    first, second = (table_of(np.array([[[100, 0, 0], [100 - hit, hit, 0], [0, 0, 0]] for hit in hits + more])) for more in (0, 2))
    together = difference(first, second)["iou_target_roi"]
    apart = difference(first, replace(second, image_ids=second.image_ids + 1))["iou_target_roi"]
    assert together.value == apart.value == pytest.approx(0.02)
    assert (together.low, together.high) == pytest.approx((0.02, 0.02))
    assert apart.low < 0 < apart.high
    assert (together.paired, apart.paired) == (True, False)


# --- draws ---


def test_draws_are_whole_resamples_of_the_same_size(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = drawn(7)
    assert counts.shape == (RESAMPLES, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=0.12)
    np.testing.assert_array_equal(counts, drawn(7))
    assert (counts != drawn(7, (0, 1))).any()
    monkeypatch.setattr(bootstrap, "DRAWN_TOGETHER", 700)
    parts = list(draws(7))
    assert [len(part) for part in parts] == [100] * 10
    np.testing.assert_array_equal(np.concatenate(parts), counts, "memory is bounded, and the draws are the same")


def test_percentiles_leave_out_what_isnt_there() -> None:
    assert percentiles(np.array([np.nan, 3.0, np.nan, 3.0])) == (3.0, 3.0)
    assert percentiles(np.array([np.nan])) is None
    assert percentiles(np.linspace(0, 1, 1001)) == pytest.approx((0.025, 0.975))


def test_order_of_images_makes_no_difference() -> None:
    rng = np.random.default_rng(4)
    table = random_table(rng, 12, 60)
    turned = intervals(table.part(rng.permutation(60)))
    assert set(turned) == set(HEADLINE)
    for name, pair in intervals(table).items():
        assert turned[name] == pytest.approx(pair, abs=1e-12)


# --- what is equal, and what is nothing ---


def test_difference_of_equal_tables_is_nought() -> None:
    table = random_table(np.random.default_rng(5), 9, 40)
    found = difference(table, table.part(np.ones(40, dtype=bool)))
    assert set(found) >= set(HEADLINE)
    assert set(found.values()) == {Difference(0.0, 0.0, 0.0, True)}


def test_figures_that_one_table_lacks_are_left_out() -> None:
    first = table_of(np.array([np.diag([5, 5, 5]), np.diag([5, 5, 0])]))
    second = replace(first, confusions=np.array([np.diag([5, 5, 0]), np.diag([5, 4, 0])]))
    assert "iou_nontarget_roi" not in difference(first, second)
    assert "iou_nontarget_roi" not in difference(second, first)
    assert difference(second, first)["iou_target_roi"].value == 0


def test_of_nothing_and_of_one_roi() -> None:
    empty, one = RoiTable.together([]), table_of(np.array([[[4, 1, 0], [1, 3, 0], [0, 0, 0]]]))
    assert intervals(empty) == {}
    assert difference(empty, one) == difference(one, empty) == {}
    assert intervals(one)["iou_target_roi"] == (0.6, 0.6)
    assert "iou_nontarget_roi" not in intervals(one)
