"""Tests of what extraction stores beside the plain features (mirrored views, images, tiles), and of several runs side by side."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import zarr
from extraction_place import IMAGES, PATHS, SCALES, expected_floats, run, stored, tree, work_folder
from numpy.typing import NDArray
from onnx_factory import CHANNELS, INPUT_HW, LAYERS, READER, STRIDES, cache_params, extractor_params, read_bgr

from roiseg.cache.reader import FeatureStore
from roiseg.cache.scales import load_scales
from roiseg.extractor.extract import extract
from roiseg.extractor.inputs import image_files
from roiseg.extractor.recompute import recompute
from roiseg.extractor.session import Backbone
from roiseg.types import Window

BOTH = ["plain", "mirrored"]


def flipped_detector_features(place: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, NDArray[np.float32]]:
    """The slow way, on pictures that OpenCV flips after it has resized them."""
    resize = cv2.resize

    def resize_and_flip(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.asarray(cv2.flip(resize(pixels, size), 1), dtype=np.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(cv2, "resize", resize_and_flip)
        return expected_floats(place / "detector.onnx")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_the_mirrored_view_is_what_the_detector_sees_in_a_mirror(place: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    run(extractor_params(), cache_params(dtype=dtype, codec="lz4", views=BOTH))
    expected, group = flipped_detector_features(place, monkeypatch), zarr.open_group(PATHS.store, mode="r")
    store, scales = FeatureStore(PATHS.store), load_scales(SCALES)
    assert store.views == ("plain", "mirrored")
    assert store.layers == tuple(LAYERS)
    for name in LAYERS:
        values = expected[name]
        if dtype == "int8":
            values = np.clip(np.rint(values / scales[name][:, None, None]), -127, 127)
        found = np.asarray(group[f"mirrored/{name}"][:])  # type: ignore[index]
        np.testing.assert_array_equal(found, values.astype(dtype))
        for row in (0, IMAGES - 1):
            np.testing.assert_array_equal(store.read(row, [name], "mirrored")[name], found[row])


def test_flipped_features_are_not_the_features_of_the_flipped_image(place: Path) -> None:
    """Why the second view is computed: a detector's kernels aren't symmetric, and strides begin at the left."""
    run(extractor_params(), cache_params(views=BOTH))
    store = FeatureStore(PATHS.store)
    for name in LAYERS:
        plain, mirrored = (store.read(0, [name], view)[name].astype(np.float64) for view in store.views)
        differing = np.abs(plain[..., ::-1] - mirrored)
        assert np.mean(differing > 0.01 * plain.std()) > 0.5
        assert differing.std() > 0.2 * plain.std()


def test_plain_features_are_the_same_with_other_views_beside_them(place: Path) -> None:
    run(extractor_params(), cache_params())
    alone = stored()
    run(extractor_params(), cache_params(views=BOTH, image=True))
    for name, values in stored().items():
        np.testing.assert_array_equal(values, alone[name])


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_the_image_is_rgb_at_network_size(place: Path, color: str) -> None:
    run(extractor_params(color=color), cache_params(codec="zstd", image=True, views=BOTH))
    store, index = FeatureStore(PATHS.store), pd.read_parquet(PATHS.index)
    assert store.layers == (*LAYERS, "image")
    assert store.specs["image"].stride_hw == (1, 1)
    np.testing.assert_array_equal(store.scales["image"], np.full(3, 1 / 255, np.float32))
    height, width = INPUT_HW
    for row, name in enumerate(index["file_name"]):
        expected = cv2.resize(read_bgr(f"images/{name}"), (width, height))[:, :, ::-1].transpose(2, 0, 1)
        np.testing.assert_array_equal(store.read(row, ["image"])["image"], expected)
        np.testing.assert_array_equal(store.read(row, ["image"], "mirrored")["image"], expected[..., ::-1])
        for view, whole in (("plain", expected), ("mirrored", expected[..., ::-1])):
            part = np.empty((3, 5, 9), np.uint8)
            store.read_window_into(row, "image", Window(3, 8, 10, 19), part, view)  # type: ignore[arg-type]
            np.testing.assert_array_equal(part, whole[:, 3:8, 10:19])
    assert "mirrored/image" not in store.shards


def test_recompute_looks_at_every_view(place: Path) -> None:
    run(extractor_params(), cache_params(dtype="int8", views=BOTH, image=True))
    store, scales = FeatureStore(PATHS.store), load_scales(SCALES)
    files = image_files(pd.read_parquet(PATHS.index), PATHS.images)[:2]
    found = recompute(store, Backbone(PATHS.backbone, "cpu", "float32", scales), files, [0, 1], extractor_params(), 1)
    assert set(found) == {*LAYERS, *(f"mirrored/{name}" for name in LAYERS)}
    assert all(item.fits and item.largest == 0 for item in found.values())
    swapped = recompute(store, Backbone(PATHS.backbone, "cpu", "float32", scales), files, [1, 0], extractor_params(), 1)
    assert not any(item.fits for item in swapped.values())


def test_tiles_hold_the_same_values(place: Path) -> None:
    run(extractor_params(), cache_params())
    whole = FeatureStore(PATHS.store)
    expected = [whole.read(row, LAYERS) for row in range(IMAGES)]
    run(extractor_params(), cache_params(codec="lz4", tile_hw=[3, 5]))
    tiled = FeatureStore(PATHS.store)
    for row in range(IMAGES):
        found = tiled.read(row, LAYERS)
        for name in LAYERS:
            np.testing.assert_array_equal(found[name], expected[row][name])


@pytest.mark.parametrize("runs", [1, 3, 8])
@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_runs_side_by_side_gives_the_same_bytes(place: Path, runs: int, threads: int) -> None:
    extractor, cache = extractor_params(batch_size=2), cache_params(dtype="int8", codec="lz4", views=BOTH)
    run(extractor, cache)
    expected = tree(PATHS.store)
    work_folder().rename("whole")
    reader = READER.model_copy(update={"concurrent_runs": runs, "decode_threads": threads})
    extract("extract@train", PATHS, extractor, cache, reader)
    assert tree(PATHS.store) == expected


def test_shapes_of_the_views(place: Path) -> None:
    run(extractor_params(), cache_params(views=BOTH))
    store = FeatureStore(PATHS.store)
    for name in LAYERS:
        height, width = INPUT_HW[0] // STRIDES[name], INPUT_HW[1] // STRIDES[name]
        assert store.shapes[name] == (CHANNELS[name], height, width)
        assert store.shards[f"mirrored/{name}"]
