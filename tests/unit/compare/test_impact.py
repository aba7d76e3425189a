"""Tests of roiseg.compare.impact against means worked out by hand."""

from typing import Any

import pytest
from compare_factory import run_of

from roiseg.compare.impact import Impact, impacts
from roiseg.compare.runs import Run


def run(score: float, layers: list[str], *, weight: float = 1.0, seed: int = 0, cascade: bool = False) -> Run:
    model: dict[str, Any] = {"head": "multiscale", "layers": layers}
    if cascade:
        model["cascade"] = {"channels": 128}
    params = {"model": model, "loss": {"boundary_weight": weight}, "train": {"seed": seed}, "heads": [str(score)]}
    return run_of(f"run-{score}", {"miou_fg_roi": score}, params=params)


ONE, TWO = ["layer_34"], ["layer_34", "layer_3"]


def test_means_and_pairs_by_hand() -> None:
    runs = [run(0.30, ONE), run(0.40, TWO), run(0.50, ONE, weight=3.0), run(0.70, TWO, weight=3.0), run(0.60, TWO, seed=1)]
    scales, distances = impacts(runs, ["miou_fg_roi"])
    assert scales == Impact("multi-scale", "miou_fg_roi", 3, 2, scales.difference, 2, scales.paired)
    assert scales.difference == pytest.approx((0.40 + 0.70 + 0.60) / 3 - (0.30 + 0.50) / 2)
    assert scales.paired == pytest.approx((0.40 - 0.30 + 0.70 - 0.50) / 2)
    assert distances == Impact("distance loss", "miou_fg_roi", 2, 3, distances.difference, 2, distances.paired)
    assert distances.difference == pytest.approx((0.50 + 0.70) / 2 - (0.30 + 0.40 + 0.60) / 3)
    assert distances.paired == pytest.approx((0.50 - 0.30 + 0.70 - 0.40) / 2), "no pair has the other seed in it"


def test_a_feature_that_all_or_none_have_is_left_out() -> None:
    assert impacts([run(0.3, TWO, weight=2.0), run(0.4, TWO, weight=3.0)], ["miou_fg_roi"]) == []


def test_runs_that_differ_in_more_are_no_pair() -> None:
    plain, both = run(0.3, ONE), run(0.5, ONE, weight=2.0, cascade=True)
    other_family = run_of(
        "c", {"miou_fg_roi": 0.1}, params={**dict(plain.params or {}), "model": {"head": "coarse", "layers": TWO}}
    )
    found = {item.feature: item for item in impacts([plain, both, other_family], ["miou_fg_roi"])}
    assert set(found) == {"multi-scale", "distance loss", "cascade"}
    assert all((item.pairs, item.paired) == (0, None) for item in found.values())
    assert found["cascade"].difference == pytest.approx(0.3)


@pytest.mark.parametrize(("section", "pairs"), [("reader", 1), ("train", 0)])
def test_only_sections_that_shape_no_figure_may_differ(section: str, pairs: int) -> None:
    one, other = run(0.3, ONE), run(0.4, TWO)
    changed = run_of("c", {"miou_fg_roi": 0.4}, params={**dict(other.params or {}), section: {"load_threads": 8}})
    (found,) = impacts([one, changed], ["miou_fg_roi"])
    assert found.pairs == pairs


def test_runs_without_params_or_without_the_metric_count_on_neither_side() -> None:
    runs = [run(0.3, ONE), run(0.4, TWO), run_of("files", {"miou_fg_roi": 0.9}), run_of("c", {}, params=run(0.3, ONE).params)]
    (found,) = impacts(runs, ["miou_fg_roi", "boundary_iou_crop"])
    assert (found.with_it, found.without) == (1, 1)
    assert found.difference == pytest.approx(0.1)
