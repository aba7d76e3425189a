"""Tests of roiseg.extractor.session: it runs where it was asked to, or not at all."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx_factory import CHANNELS, INPUT_HW, LAYERS, make_detector

from roiseg.backbone import make_backbone
from roiseg.errors import GraphError
from roiseg.extractor.session import Backbone
from roiseg.types import StoredType


def _cut(folder: Path, dtype: StoredType = "float16") -> Path:
    make_backbone(make_detector(folder / "d.onnx"), LAYERS, INPUT_HW, dtype, None, folder / "cut.onnx")
    return folder / "cut.onnx"


def test_runtime_of_the_processor(tmp_path: Path) -> None:
    runtime = Backbone(_cut(tmp_path), "cpu", "float32").runtime
    assert (runtime.provider, runtime.precision, runtime.device) == ("cpu", "float32", "cpu")
    assert runtime.onnxruntime == onnxruntime.__version__


@pytest.mark.parametrize("scales", [None, {"layer_34": np.ones(12, dtype=np.float32)}], ids=["none", "one"])
def test_missing_scales(tmp_path: Path, scales: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]] | None) -> None:
    with pytest.raises(GraphError, match=r"wants .*layer_3_scale.*, which the scales lack; run `dvc repro calibrate`"):
        Backbone(_cut(tmp_path, "int8"), "cpu", "float32", scales)


def test_scales_that_the_graph_does_not_want_are_left_out(tmp_path: Path) -> None:
    scales = {name: np.ones(count, dtype=np.float32) for name, count in CHANNELS.items()}
    backbone = Backbone(_cut(tmp_path), "cpu", "float32", scales)
    outputs = backbone(np.zeros((2, 3, *INPUT_HW), dtype=np.float32))
    assert {name: (values.shape, str(values.dtype)) for name, values in outputs.items()} == {
        "layer_34": ((2, 12, 4, 8), "float16"),
        "layer_3": ((2, 8, 8, 16), "float16"),
    }


def test_an_onnx_that_was_not_cut(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="has no 'roiseg' metadata"):
        Backbone(make_detector(tmp_path / "d.onnx"), "cpu", "float32")


# --- buffers ---


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_runs_into_buffers_of_the_caller(tmp_path: Path, dtype: StoredType) -> None:
    """The same memory twice, any subset of the layers, and nothing else is computed."""
    backbone = open_backbone(tmp_path, dtype)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, *INPUT_HW)).astype(np.float32)
    expected = backbone(images)
    for names in (list(LAYERS), ["layer_3"], ["layer_34"], []):
        buffers = backbone.buffers(names, 2)
        assert list(buffers) == [name for name in LAYERS if name in names]
        places = {name: values.ctypes.data for name, values in buffers.items()}
        if names:
            assert backbone.run_into(images, buffers, detect=False) is None
        for name, values in buffers.items():
            assert values.ctypes.data == places[name]
            assert values.shape == (2, CHANNELS[name], *expected[name].shape[2:])
            np.testing.assert_array_equal(values, expected[name])


def test_runs_in_several_threads(tmp_path: Path) -> None:
    backbone = open_backbone(tmp_path, "int8")
    images = np.random.default_rng(0).integers(0, 256, (12, 3, *INPUT_HW)).astype(np.float32)
    expected = backbone(images)
    with ThreadPoolExecutor(4) as pool:
        for found, number in zip(pool.map(lambda number: backbone(images[number : number + 1]), range(12)), range(12), strict=True):
            for name in LAYERS:
                np.testing.assert_array_equal(found[name][0], expected[name][number])


def open_backbone(folder: Path, dtype: StoredType) -> Backbone:
    scales = {name: np.full(count, 0.25, dtype=np.float32) for name, count in CHANNELS.items()}
    return Backbone(_cut(folder, dtype), "cpu", "float32", scales if dtype == "int8" else {}, side_by_side=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_gpu_writes_into_page_locked_buffers(tmp_path: Path, dtype: StoredType) -> None:
    """Whole numbers of powers of two: every device gives the same bits."""
    scales = {name: np.full(count, 0.25, dtype=np.float32) for name, count in CHANNELS.items()} if dtype == "int8" else {}
    path = _cut(tmp_path, dtype)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, *INPUT_HW)).astype(np.float32)
    here, there = (Backbone(path, provider, "float32", scales) for provider in ("cpu", "cuda"))
    buffers = there.buffers(LAYERS, 2)
    assert all(torch.from_numpy(values).is_pinned() for values in buffers.values())
    there.run_into(images, buffers, detect=False)
    for name, values in here(images).items():
        np.testing.assert_array_equal(buffers[name], values)
