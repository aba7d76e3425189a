from dataclasses import replace

import numpy as np
import pytest
from snapped_factory import chosen, snap_results

from roiseg.snapper.baselines import baseline_figures
from roiseg.snapper.gains import gains
from roiseg.snapper.metrics import snap_figures


def test_gains_are_those_of_the_figures_and_lie_in_their_intervals() -> None:
    results = snap_results(300)
    found, model, rough = gains(results), snap_figures(results), baseline_figures(results)["rough"]
    assert found["gain_mean_iou"] == pytest.approx(model["mean_iou"] - rough["mean_iou"])
    ratio = model["edge_share_within_3px"] / rough["edge_share_within_3px"]
    assert found["ratio_edge_share_within_3px"] == pytest.approx(ratio)
    for name in ("gain_mean_iou", "ratio_edge_share_within_3px"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_the_interval_is_that_of_means_over_images() -> None:
    """With one box an image, the central limit theorem says how wide it is."""
    results = snap_results(2000, per_image=1)
    found = gains(results)
    each = np.array([snap_figures(chosen(results, np.array([n])))["mean_iou"] for n in range(400)])
    rough = np.array([baseline_figures(chosen(results, np.array([n])))["rough"]["mean_iou"] for n in range(400)])
    expected = 2 * 1.96 * (each - rough).std() / 2000**0.5
    assert found["gain_mean_iou_high"] - found["gain_mean_iou_low"] == pytest.approx(expected, rel=0.15)


def test_boxes_that_stay_where_they_were_gain_nothing() -> None:
    results = snap_results(50)
    found = gains(replace(results, snapped=results.rough))
    assert [found[f"gain_mean_iou{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]
    assert [found[f"ratio_edge_share_within_3px{end}"] for end in ("", "_low", "_high")] == [1, 1, 1]


def test_there_is_no_ratio_to_nothing() -> None:
    results = snap_results(5)
    far = replace(results, rough=results.rough + 100)
    assert set(gains(far)) == {"gain_mean_iou", "gain_mean_iou_low", "gain_mean_iou_high"}
    assert gains(chosen(results, np.zeros(0, dtype=np.int64))) == {}
