"""Tests of roiseg.losses.class_weights: where they come from, and their cap."""

from typing import Any

import pytest
from store_factory import STATISTICS

from roiseg.analyze.weights import frequency_class_weights, log_class_weights
from roiseg.errors import ParamsError
from roiseg.losses.class_weights import ClassWeightParams, class_weights


def params_of(mode: str, values: object = None, cap: float | None = None) -> ClassWeightParams:
    return ClassWeightParams.parse({"mode": mode, "values": values, "cap": cap}, "loss.class_weights")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("none", (1.0, 1.0, 1.0)), ("freq", (0.5, 1.0, 1.5)), ("log", (0.8, 1.0, 1.2)), ("separation", (0.6, 1.1, 1.3))],
)
def test_each_mode(mode: str, expected: tuple[float, float, float]) -> None:
    assert class_weights(params_of(mode), STATISTICS) == expected


def test_manual_weights_need_no_statistics() -> None:
    assert class_weights(params_of("manual", [0.0, 2.0, 3.5]), {}) == (0.0, 2.0, 3.5)


@pytest.mark.parametrize(
    ("mode", "field"),
    [("freq", "recommended_class_weights"), ("log", "recommended_log_class_weights"), ("separation", "separation_aware_weights")],
)
def test_statistics_that_lack_them(mode: str, field: str) -> None:
    with pytest.raises(ParamsError, match=f"mode is '{mode}', but data_analyze.json has no '{field}'; run `dvc repro analyze`"):
        class_weights(params_of(mode), {name: value for name, value in STATISTICS.items() if name != field})


def test_cap_holds_the_largest_weight() -> None:
    assert class_weights(params_of("freq", cap=1.2), STATISTICS) == pytest.approx((0.5, 1.0, 1.2))
    assert class_weights(params_of("freq", cap=2.0), STATISTICS) == pytest.approx((0.5, 1.0, 1.5))


def test_cap_counts_from_a_mean_of_one() -> None:
    """1, 2, 9 are 0.25, 0.5, 2.25 then."""
    assert class_weights(params_of("manual", [1.0, 2.0, 9.0], 2.0), {}) == pytest.approx((0.25, 0.5, 2.0))
    assert class_weights(params_of("manual", [10.0, 20.0, 90.0], 2.0), {}) == pytest.approx((0.25, 0.5, 2.0))


def test_the_recipe_of_the_seed() -> None:
    """Pixels counted in ROIs, inverse frequency, cap, or softened by the logarithm (spec 12); the 100 images of spec 4.2."""
    counts = {"background": 6_070_922, "target": 4_915_699, "non_target": 1_533_722}
    ratios = {name: count / sum(counts.values()) for name, count in counts.items()}
    found = {
        "recommended_class_weights": frequency_class_weights(ratios, 1e-3),
        "recommended_log_class_weights": log_class_weights(ratios, 1e-3),
    }
    assert class_weights(params_of("freq"), found) == pytest.approx((0.4863, 0.6003, 1.9134), abs=5e-5)
    assert class_weights(params_of("freq", cap=1.5), found) == pytest.approx((0.4863, 0.6003, 1.5), abs=5e-5)
    assert class_weights(params_of("log"), found) == pytest.approx((0.5781, 0.7468, 1.6751), abs=5e-5)
    assert class_weights(params_of("log", cap=1.5), found) == pytest.approx((0.5781, 0.7468, 1.5), abs=5e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "manual", "values": None, "cap": None}, "'manual' needs three values"),
        ({"mode": "log", "values": [1.0, 1.0, 1.0], "cap": None}, "any other mode needs null"),
        ({"mode": "manual", "values": [1.0, -0.1, 1.0], "cap": None}, "weights are at least 0"),
        ({"mode": "manual", "values": [0.0, 0.0, 0.0], "cap": None}, "not all of them 0"),
        ({"mode": "manual", "values": [1.0, 1.0], "cap": None}, r"loss\.class_weights\.values"),
        ({"mode": "frequency", "values": None, "cap": None}, r"loss\.class_weights\.mode: value is 'frequency'"),
        ({"mode": "freq", "values": None, "cap": 0.9}, r"loss\.class_weights\.cap: value is 0.9"),
    ],
)
def test_params_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        ClassWeightParams.parse(values, "loss.class_weights")
