"""Tests of roiseg.calibrate: peaks to scales, against a slow way."""

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_factory import INPUT_HW, LAYERS, extractor_params, make_detector, read_bgr

from roiseg.backbone import make_backbone
from roiseg.calibrate import CalibrateParams, calibrate, scales_from_peaks
from roiseg.errors import GraphError
from roiseg.extractor.graph import load_graph, read_metadata, uncast
from roiseg.files import write_parquet
from roiseg.types import StoredType

IMAGES = 9


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Nine images whose brightness differs, so that samples have different peaks."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for row in range(IMAGES):
        cv2.imwrite(str(tmp_path / f"images/{row}.png"), rng.integers(0, 20 + 25 * row, (*INPUT_HW, 3), dtype=np.uint8))
    columns = {"row": range(IMAGES), "image_id": range(IMAGES), "file_name": [f"{row}.png" for row in range(IMAGES)]}
    write_parquet(tmp_path / "index.parquet", pd.DataFrame({**columns, "height": INPUT_HW[0], "width": INPUT_HW[1]}))
    make_detector(tmp_path / "d.onnx")
    return tmp_path


def run(
    data: Path, images: int = 100, seed: int = 0, dtype: StoredType = "int8", detector: str = "d.onnx", **extractor: object
) -> dict[str, NDArray[np.float32]]:
    make_backbone(data / detector, LAYERS, INPUT_HW, dtype, None, data / "cut.onnx")
    params = CalibrateParams(images=images, seed=seed)
    return calibrate(params, extractor_params(**extractor), data / "cut.onnx", data / "index.parquet", data / "images", 2)


def slow_peaks(data: Path) -> dict[str, NDArray[np.float32]]:
    """Largest magnitudes (image, channel) of each layer, one image at a time."""
    model = load_graph(data / "cut.onnx")
    plain = uncast(model, read_metadata(model, data / "cut.onnx"))
    session = onnxruntime.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"])
    peaks: dict[str, list[list[float]]] = {name: [] for name in LAYERS}
    for row in range(IMAGES):
        image = read_bgr(data / f"images/{row}.png")[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        for name, value in zip(LAYERS, session.run(list(LAYERS.values()), {"images": image}), strict=True):
            peaks[name].append([max(abs(float(v)) for v in channel.ravel()) for channel in value[0]])
    return {name: np.array(values, dtype=np.float32) for name, values in peaks.items()}


@given(st.lists(st.floats(0, 2.0**127, width=32), min_size=1, max_size=8))
def test_a_peak_is_stored_as_127(peaks: list[float]) -> None:
    values = np.array(peaks, dtype=np.float32)
    scales = scales_from_peaks(values)
    assert scales.dtype == np.float32
    assert (scales > 0).all()
    assert np.isfinite(scales).all()
    heard = values > 127 * np.finfo(np.float32).tiny
    assert (np.rint(values[heard] / scales[heard]) == 127).all()
    assert (np.rint(values[~heard] / scales[~heard]) == 0).all()


def test_silent_channels() -> None:
    assert scales_from_peaks(np.array([0, 254], dtype=np.float32)).tolist() == [np.float32(1 / 127), 2]


def test_float16_needs_none(data: Path) -> None:
    assert run(data, dtype="float16") == {}


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_int8_equals_a_slow_maximum(data: Path, batch: int) -> None:
    found = run(data, batch_size=batch)
    assert list(found) == list(LAYERS)
    for name, peaks in slow_peaks(data).items():
        np.testing.assert_array_equal(found[name], peaks.max(axis=0) / np.float32(127))


def test_the_sample_is_seeded(data: Path) -> None:
    first = run(data, images=2, seed=5)
    again = run(data, images=2, seed=5)
    peaks = slow_peaks(data)
    rows = np.random.default_rng(5).permutation(IMAGES)[:2]
    for name in LAYERS:
        np.testing.assert_array_equal(first[name], again[name])
        np.testing.assert_array_equal(first[name], peaks[name][rows].max(axis=0) / np.float32(127))
    others = [run(data, images=2, seed=seed)["layer_34"] for seed in range(4)]
    assert any((other != first["layer_34"]).any() for other in others)


def test_features_that_are_not_finite(data: Path) -> None:
    make_detector(data / "loud.onnx", gain=3e38)
    with pytest.raises(GraphError, match=r"layer 'layer_34', channel \d+: not finite on .*0\.png or the images after it"):
        run(data, detector="loud.onnx")


def test_a_fixed_batch_size(data: Path) -> None:
    make_detector(data / "one.onnx", batch=1)
    with pytest.raises(GraphError, match=r"extractor\.batch_size is 3, but the detector takes batches of 1 only"):
        run(data, detector="one.onnx")
