import math
from dataclasses import replace

import numpy as np
import pytest
from snapped_factory import chosen, snap_results

from roiseg.errors import PredictionError
from roiseg.geometry import Floats
from roiseg.snapper.metrics import CORNERS, box_figures, snap_figures
from roiseg.snapper.results import SnapResults
from roiseg.snapper.windows import EDGES


def one(truth: list[float], snapped: list[float], window: list[float]) -> SnapResults:
    results = snap_results(1)
    given = [np.array([box], dtype=np.float64) for box in (truth, snapped, window)]
    return replace(results, truth=given[0], snapped=given[1], windows=given[2], rough=given[2])


def test_written_out() -> None:
    """100 x 50 box; left 1, top 3, right 4, bottom 0 pixels off; the window is 200 x 100, so crop pixels are 1.12 and 2.24."""
    found = snap_figures(one([100, 50, 200, 100], [101, 53, 204, 100], [50, 25, 250, 125]))
    assert found["mean_iou"] == pytest.approx(99 * 47 / (5000 + 103 * 47 - 99 * 47))
    assert found["share_iou_above_90"] == 0
    assert found["edge_px_mean"] == 2
    assert found["edge_share_within_1px"] == 0.5
    assert found["edge_share_within_3px"] == 0.75
    assert [found[f"edge_{name}_px_mean"] for name in EDGES] == [1, 3, 4, 0]
    assert [found[f"edge_{name}_share_within_3px"] for name in EDGES] == [1, 1, 0, 1]
    assert [found[f"edge_{name}_crop_px_mean"] for name in EDGES] == pytest.approx([1.12, 6.72, 4.48, 0])
    assert found["edge_crop_px_mean"] == pytest.approx(3.08)
    assert found["edge_crop_share_within_3px"] == 0.5
    assert [found[f"corner_l1_{name}_px_mean"] for name in CORNERS] == [4, 7, 1, 4]
    assert [found[f"corner_euclidean_{name}_px_mean"] for name in CORNERS] == pytest.approx([10**0.5, 5, 1, 4])
    assert found["corner_l1_px_mean"] == 4
    assert found["corner_l1_share_within_3px"] == found["corner_euclidean_share_within_1px"] == 0.25
    assert found["corner_euclidean_bottom_left_crop_px_mean"] == pytest.approx(1.12)


def test_a_limit_belongs_to_what_is_within_it() -> None:
    """Also where another frame left a trace in the last digits."""
    found = snap_figures(one([0, 0, 10, 10], [1 + 1e-12, 0, 13 + 1e-12, 10], [0, 0, 20, 20]))
    assert found["edge_share_within_1px"] == 0.75
    assert found["edge_share_within_3px"] == 1


def test_an_overlap_of_nine_tenths_is_not_above_it() -> None:
    found = snap_figures(one([0, 0, 10, 10], [0, 0, 9, 10], [0, 0, 20, 20]))
    assert found["mean_iou"] == pytest.approx(0.9)
    assert found["share_iou_above_90"] == 0
    assert snap_figures(one([0, 0, 10, 10], [0, 0, 9.01, 10], [0, 0, 20, 20]))["share_iou_above_90"] == 1


def test_matches_reference() -> None:
    """Box by box, without arrays."""
    results = snap_results(50, left=1.0)
    found, edges, crop, corners = snap_figures(results), [], [], []
    for box, truth, window in zip(results.snapped.tolist(), results.truth.tolist(), results.windows.tolist(), strict=True):
        sides = [window[2] - window[0], window[3] - window[1]] * 2
        off = [abs(said - so) for said, so in zip(box, truth, strict=True)]
        edges += off
        crop += [value * 224 / side for value, side in zip(off, sides, strict=True)]
        corners += [math.dist((box[x], box[y]), (truth[x], truth[y])) for x in (0, 2) for y in (1, 3)]
    assert found["edge_px_mean"] == pytest.approx(sum(edges) / 200)
    assert found["edge_crop_px_mean"] == pytest.approx(sum(crop) / 200)
    assert found["edge_crop_share_within_3px"] == sum(value <= 3 for value in crop) / 200
    assert found["corner_euclidean_px_mean"] == pytest.approx(sum(corners) / 200)
    assert found["corner_euclidean_share_within_3px"] == sum(value <= 3 for value in corners) / 200
    assert found["corner_l1_px_mean"] == pytest.approx(2 * found["edge_px_mean"])


def test_the_order_of_boxes_changes_no_bit() -> None:
    results = snap_results(501)
    shuffled = chosen(results, np.random.default_rng(3).permutation(501))
    assert snap_figures(shuffled) == snap_figures(results)


def test_mirrored_boxes_swap_left_and_right() -> None:
    results = snap_results(40)

    def mirrored(boxes: Floats) -> Floats:
        return np.stack([400 - boxes[:, 2], boxes[:, 1], 400 - boxes[:, 0], boxes[:, 3]], axis=1)

    other = replace(
        results,
        truth=mirrored(results.truth),
        rough=mirrored(results.rough),
        windows=mirrored(results.windows),
        snapped=mirrored(results.snapped),
    )
    one_way, other_way = snap_figures(results), snap_figures(other)
    assert other_way["edge_right_px_mean"] == pytest.approx(one_way["edge_left_px_mean"])
    assert other_way["corner_l1_top_left_px_mean"] == pytest.approx(one_way["corner_l1_top_right_px_mean"])
    assert other_way["mean_iou"] == pytest.approx(one_way["mean_iou"])


def test_the_truth_is_without_fault() -> None:
    results = snap_results(20)
    found = box_figures(results, results.truth)
    assert all(value == (0 if name.endswith("px_mean") else 1) for name, value in found.items())


def test_a_reversed_box_overlaps_nothing() -> None:
    assert snap_figures(one([0, 0, 10, 10], [8, 0, 2, 10], [0, 0, 20, 20]))["mean_iou"] == 0


def test_no_boxes_have_no_figures() -> None:
    assert snap_figures(chosen(snap_results(3), np.zeros(0, dtype=np.int64))) == {}


def test_boxes_that_are_no_numbers_are_refused() -> None:
    results = snap_results(3)
    results.snapped[1:, 2] = np.nan
    with pytest.raises(
        PredictionError, match=r"annotation 1001 is \[.*nan.*\], one of 2 like it; expected finite .*snapper.train.lr"
    ):
        snap_figures(results)
