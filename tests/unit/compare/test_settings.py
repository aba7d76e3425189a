"""Tests of roiseg.compare.settings."""

from compare_factory import run_of

from roiseg.compare.settings import NOT_THERE, Setting, differing


def test_keys_that_differ_with_the_values_of_each_run() -> None:
    first = {"heads": ["a"], "model": {"head": "coarse", "layers": ["x"]}, "loss": {"dice": 1.0, "edge": None}}
    second = {"heads": ["b"], "model": {"head": "coarse", "layers": ["x", "y"]}, "loss": {"dice": 1.0, "edge": {"weight": 0.1}}}
    runs = [run_of("a", {}, params=first), run_of("files", {}), run_of("b", {}, params=second)]
    assert differing(runs) == [
        Setting("model.layers", {0: ["x"], 2: ["x", "y"]}),
        Setting("loss.edge", {0: None, 2: NOT_THERE}),
        Setting("loss.edge.weight", {0: NOT_THERE, 2: 0.1}),
    ]


def test_a_key_that_is_null_differs_from_one_that_is_not_there() -> None:
    runs = [run_of("a", {}, params={"loss": {"dice": 1.0, "edge": None}}), run_of("b", {}, params={"loss": {"dice": 1.0}})]
    assert differing(runs) == [Setting("loss.edge", {0: None, 1: NOT_THERE})]


def test_keys_of_a_section_stand_together() -> None:
    runs = [
        run_of("a", {}, params={"model": {"head": "coarse"}, "train": {"lr": 0.1}}),
        run_of("b", {}, params={"model": {"head": "baseline", "blocks": "silu"}, "train": {"lr": 0.2}}),
    ]
    assert [item.key for item in differing(runs)] == ["model.head", "model.blocks", "train.lr"]


def test_equal_params_and_unknown_ones_differ_in_nothing() -> None:
    assert differing([run_of("a", {}, params={"loss": {"dice": 1.0}}), run_of("b", {}, params={"loss": {"dice": 1.0}})]) == []
    assert differing([run_of("a", {}), run_of("b", {})]) == []
