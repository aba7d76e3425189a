"""Tests of roiseg.predict.smoothing: a filter in a person's window says what it says of the whole image."""

from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper
from pooling_factory import write_pooling

from roiseg.errors import GraphError
from roiseg.export.filter_onnx import export_filter
from roiseg.filters import FilterParams, Kind
from roiseg.placed import Pasted, Placed
from roiseg.predict.smoothing import Smoothing
from roiseg.runtime import make_session
from roiseg.types import Window

HW = (60, 90)


FILTERS = ("mean", "dilation")
KINDS: tuple[Kind, ...] = get_args(Kind)


def make_filter(name: str, folder: Path) -> Path:
    """A mean over 7 x 7 pixels that leaves out what lies beyond the border, a dilation by 2, or one of roiseg's own kinds."""
    path = folder / f"{name}.onnx"
    if name in KINDS:
        export_filter(FilterParams.parse({"kind": name, "preset": "light"}, "filter"), channels=1, opset=18, path=path)
    else:
        reach = {"mean": 3, "dilation": 2}[name]
        write_pooling(path, "AveragePool" if name == "mean" else "MaxPool", reach)
    return path


@pytest.fixture
def dilation(tmp_path: Path) -> Path:
    return make_filter("dilation", tmp_path)


def person(window: Window, seed: int) -> Pasted:
    """Half of the pixels of a window, in blotches of 2 x 2."""
    rng = np.random.default_rng(seed)
    shape = window.bottom - window.top, window.right - window.left
    blotches = rng.random(((shape[0] + 1) // 2, (shape[1] + 1) // 2), dtype=np.float32)
    claim = np.ascontiguousarray(blotches.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]])
    return Pasted(Placed(window, claim > 0.5), rng.random(shape).astype(np.float32), 0.5, claim)


def whole_image(path: Path, given: Pasted) -> NDArray[np.float32]:
    """The filter's values (H, W) where it sees all of the image."""
    session, _ = make_session(path, "cpu", "float32")
    claims = np.zeros((1, 1, *HW), dtype=np.float32)
    claims[0, 0][given.placed.slices] = given.claim
    return np.asarray(session.run(None, {"input": claims})[0][0, 0])


@pytest.mark.parametrize("name", [*FILTERS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS)])
@pytest.mark.parametrize(
    "window",
    [Window(25, 40, 30, 55), Window(0, 13, 70, 90), Window(57, 60, 0, 1), Window(0, 60, 0, 90)],
    ids=["inside", "corner", "tiny", "whole"],
)
def test_a_window_gives_what_the_whole_image_does(tmp_path: Path, name: str, window: Window) -> None:
    path, given = make_filter(name, tmp_path), person(window, seed=window.top)
    found = Smoothing(path, "cpu")(given, HW)
    expected = whole_image(path, given)
    np.testing.assert_array_equal(found.placed.whole(HW), expected > 0.5)
    np.testing.assert_allclose(found.claim, expected[found.placed.slices], atol=1e-6)
    assert found.score == given.score
    inside = np.zeros(HW, dtype=np.float32)
    inside[found.placed.slices] = found.probability
    expected_probability = np.zeros(HW, dtype=np.float32)
    expected_probability[given.placed.slices] = given.probability
    np.testing.assert_array_equal(inside, expected_probability)


def test_nobody(dilation: Path) -> None:
    empty = np.zeros((0, 0), dtype=np.float32)
    nobody = Pasted(Placed(Window(9, 9, 4, 4), empty > 0), empty, 0.0, empty)
    assert Smoothing(dilation, "cpu")(nobody, HW) is nobody
    nothing = np.zeros((2, 5), dtype=np.float32)
    found = Smoothing(dilation, "cpu")(Pasted(Placed(Window(3, 5, 4, 9), nothing > 0), nothing, 0.0, nothing), HW)
    assert not found.placed.mask.any()


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind != "fast" else []) for kind in KINDS])
def test_every_kind_smooths_what_a_head_says(tmp_path: Path, kind: Kind) -> None:
    """Hard masks are all edge: those that keep edges would change nothing of them."""
    given = person(Window(10, 50, 20, 80), seed=5)
    found = Smoothing(make_filter(kind, tmp_path), "cpu")(given, HW)
    assert np.count_nonzero(found.placed.whole(HW) != given.placed.whole(HW)) > 10


def test_files_that_are_no_filters_of_masks(dilation: Path, tmp_path: Path) -> None:
    model = onnx.load(dilation)
    helper.set_model_props(model, {"roiseg": '{"reach_px": 3, "channels": 2}'})
    onnx.save(model, tmp_path / "two.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    for name in ("two", "plain"):
        with pytest.raises(GraphError, match=rf"{name}\.onnx: expected a filter of one channel that `roiseg export-filter` wrote"):
            Smoothing(tmp_path / f"{name}.onnx", "cpu")
