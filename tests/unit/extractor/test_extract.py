"""Tests of roiseg.extractor.extract and its pipeline, on a tiny data set: images to a published store."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import zarr
from extraction_place import (
    DETECTIONS,
    IMAGES,
    PATHS,
    PER_SHARD,
    SCALES,
    SHARD_BYTES,
    expected_floats,
    run,
    shard_files,
    stored,
    tree,
    work_folder,
)
from numpy.typing import NDArray
from onnx_factory import (
    CHANNELS,
    DOG_BOX,
    INPUT_HW,
    LAYERS,
    PERSON_BOX,
    READER,
    STRIDES,
    cache_params,
    extractor_params,
    make_detector,
    read_bgr,
)

from roiseg.cache import layout
from roiseg.cache.params import CacheParams
from roiseg.cache.reader import FeatureStore
from roiseg.cache.scales import load_scales
from roiseg.cache.version import CACHE_VERSION
from roiseg.cache.writer import OpenShard
from roiseg.errors import DiskSpaceError, GraphError, ImageReadError, MissingImageError, StoreError
from roiseg.extractor.extract import extract
from roiseg.files import write_parquet

BOXES = {"output": "detections", "person_class": 0, "min_score": 0.0}


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_float16_store_equals_a_slow_way(place: Path, codec: str) -> None:
    figures = run(extractor_params(), cache_params(codec=codec))
    expected, found = expected_floats(place / "detector.onnx"), stored()
    for name in LAYERS:
        assert found[name].dtype == np.float16
        np.testing.assert_array_equal(found[name], expected[name].astype(np.float16))
    assert figures["images"] == IMAGES
    assert figures["bytes_raw"] == sum(value.nbytes for value in found.values())
    assert figures["bytes_stored"] == sum(item.stat().st_size for item in PATHS.store.glob("layer_*/c.*"))
    assert figures["compression"] == round(figures["bytes_raw"] / figures["bytes_stored"], 4)
    assert figures["saturated_share"] == 0


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_int8_store_equals_a_slow_way(place: Path, codec: str) -> None:
    figures = run(extractor_params(), cache_params(dtype="int8", codec=codec))
    expected, found, scales = expected_floats(place / "detector.onnx"), stored(), load_scales(SCALES)
    saturated = 0
    for name in LAYERS:
        np.testing.assert_array_equal(scales[name], np.abs(expected[name]).max(axis=(0, 2, 3)) / np.float32(127))
        quotient = expected[name] / scales[name][:, None, None]
        np.testing.assert_array_equal(found[name], np.clip(np.rint(quotient), -127, 127).astype(np.int8))
        saturated += int((np.abs(found[name]) == 127).sum())
        group = zarr.open_group(PATHS.store, mode="r")
        np.testing.assert_array_equal(group[f"{name}_scale"][:], scales[name])  # type: ignore[index]
    assert saturated >= sum(CHANNELS.values())
    assert figures["saturated_share"] == saturated / sum(value.size for value in found.values())


def test_the_store_describes_itself(place: Path) -> None:
    run(extractor_params(), cache_params(codec="zstd"))
    group = zarr.open_group(PATHS.store, mode="r")
    index = pd.read_parquet(PATHS.index)
    attrs: dict[str, Any] = dict(group.attrs)
    assert list(attrs) == ["asked", "found", "version", "origins", "shards", "saturated", "small", "complete"]
    assert attrs["complete"] is True
    assert attrs["version"] == CACHE_VERSION
    assert attrs["asked"] == {
        "layers": LAYERS,
        "input": {"hw": [32, 64], "resize": "stretch", "color": "rgb", "pixel_max": 255.0},
        "dtype": "float16",
        "graph": hashlib.sha256(PATHS.backbone.read_bytes()).hexdigest(),
        "scales": None,
        "codec": {"name": "zstd", "level": 1, "shuffle": "bitshuffle"},
        "shard_mib": 1,
        "tile_hw": None,
        "views": ["plain"],
        "image": False,
        "batch_size": 3,
        "image_ids": attrs["asked"]["image_ids"],
        "images": attrs["asked"]["images"],
    }
    assert attrs["found"] == {"provider": "cpu", "precision": "float32", "onnxruntime": onnxruntime.__version__, "device": "cpu"}
    np.testing.assert_array_equal(group["image_id"][:], index["image_id"])  # type: ignore[index]
    for name, tensor in LAYERS.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        height, width = INPUT_HW[0] // STRIDES[name], INPUT_HW[1] // STRIDES[name]
        assert array.shape == (IMAGES, CHANNELS[name], height, width)
        assert array.chunks == (1, *array.shape[1:])
        assert array.shards == (4, *array.shape[1:])
        assert array.attrs["tensor"] == tensor
        assert array.metadata.dimension_names == ("image", "channel", "y", "x")  # type: ignore[union-attr]
        assert {item.name for item in (PATHS.store / name).iterdir()} == {"zarr.json", "c.0.0.0.0", "c.1.0.0.0", "c.2.0.0.0"}
    assert FeatureStore(PATHS.store).specs["layer_34"].stride_hw == (8, 8)


@pytest.mark.parametrize(("shard", "batch"), [(2048, 1), (2048, 16), (4096, 4), (10**6, 1), (10**6, 4)], ids=str)
def test_shards_and_batches_do_not_matter(place: Path, monkeypatch: pytest.MonkeyPatch, shard: int, batch: int) -> None:
    monkeypatch.setattr(layout, "MIB", shard)
    run(extractor_params(batch_size=batch, detections=BOXES), cache_params())
    expected, found = expected_floats(place / "detector.onnx"), stored()
    for name in LAYERS:
        np.testing.assert_array_equal(found[name], expected[name].astype(np.float16))
    assert pd.read_parquet(DETECTIONS)["row"].tolist() == list(range(IMAGES))
    count = len(list(PATHS.store.glob("layer_3/c.*")))
    assert count == {2048: 11, 4096: 6, 10**6: 1}[shard]


def test_detections_table(place: Path) -> None:
    run(extractor_params(detections=BOXES), cache_params())
    table, index = pd.read_parquet(DETECTIONS), pd.read_parquet(PATHS.index)
    assert list(table.columns) == ["row", "image_id", "x0", "y0", "x1", "y1", "score"]
    assert table["row"].tolist() == index["row"].tolist()
    assert table["image_id"].tolist() == index["image_id"].tolist()
    height, width = INPUT_HW
    expected = np.array(PERSON_BOX) / [width, height, width, height]
    np.testing.assert_allclose(table[["x0", "y0", "x1", "y1"]], np.tile(expected, (IMAGES, 1)), atol=1e-12)
    peaks = [cv2.resize(read_bgr(f"images/{name}"), (width, height)).max() / 512 for name in index["file_name"]]
    np.testing.assert_array_equal(table["score"], peaks)
    assert len(set(peaks)) > 1


def test_detections_of_another_class(place: Path) -> None:
    run(extractor_params(detections=BOXES | {"person_class": 1, "min_score": 0.75}), cache_params())
    table = pd.read_parquet(DETECTIONS)
    assert table["score"].tolist() == [0.75] * IMAGES
    np.testing.assert_allclose(table[["x1", "y1"]], [[DOG_BOX[2] / 64, DOG_BOX[3] / 32]] * IMAGES)


def test_no_detections(place: Path) -> None:
    run(extractor_params(), cache_params())
    table = pd.read_parquet(DETECTIONS)
    assert len(table) == 0
    assert {name: str(kind) for name, kind in table.dtypes.items()} == {
        "row": "int64",
        "image_id": "int64",
        **dict.fromkeys(("x0", "y0", "x1", "y1", "score"), "float64"),
    }


def _run_until(monkeypatch: pytest.MonkeyPatch, shards: int, cache: CacheParams, moment: str) -> None:
    """Extract until the writer fails at shard number `shards`, before or in the middle of its write."""
    append = OpenShard.append
    done = 0

    def failing(self: OpenShard, features: dict[str, NDArray[Any]]) -> None:
        nonlocal done
        if done == shards * PER_SHARD + (moment == "middle"):
            if moment == "middle":
                torn = work_folder() / f"store.zarr/layer_34/c.{shards}.0.0.0"
                torn.write_bytes(b"torn")
                torn.with_name("c.9.0.0.0.0123.partial").write_bytes(b"torn")
                (work_folder() / "made.json.0123.partial").write_bytes(b"torn")
            raise KeyboardInterrupt
        done += 1
        append(self, features)

    with monkeypatch.context() as patch:
        patch.setattr(OpenShard, "append", failing)
        with pytest.raises(KeyboardInterrupt):
            run(extractor_params(detections=BOXES), cache)


@pytest.mark.parametrize(
    ("dtype", "shards", "moment"),
    [("float16", 0, "before"), ("float16", 1, "middle"), ("float16", 2, "middle"), ("int8", 1, "before"), ("int8", 2, "middle")],
)
def test_resume_gives_the_same_bytes(place: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, shards: int, moment: str) -> None:
    monkeypatch.setattr(layout, "MIB", SHARD_BYTES // (2 if dtype == "int8" else 1))
    cache = cache_params(dtype=dtype, codec="lz4")
    _run_until(monkeypatch, shards, cache, moment)
    assert not PATHS.store.exists()
    kept = shard_files(work_folder())
    assert len(kept) == shards * len(LAYERS)
    figures = run(extractor_params(detections=BOXES), cache)
    now = shard_files(work_folder())
    assert len(now) == 3 * len(LAYERS)
    assert {name: now[name] for name in kept} == kept
    resumed, boxes = tree(PATHS.store), DETECTIONS.read_bytes()
    assert not list(Path().rglob("*.partial"))

    DETECTIONS.unlink()
    Path(".work").rename("resumed")
    assert run(extractor_params(detections=BOXES), cache) == figures
    assert tree(PATHS.store) == resumed
    assert DETECTIONS.read_bytes() == boxes


def test_a_finished_extraction_only_links(place: Path) -> None:
    run(extractor_params(), cache_params())
    before, bytes_before = shard_files(work_folder()), tree(PATHS.store)
    run(extractor_params(), cache_params())
    assert shard_files(work_folder()) == before
    assert tree(PATHS.store) == bytes_before


CHILD = """
import os, sys, time
from pathlib import Path
from onnx_factory import READER, cache_params, extractor_params
from roiseg.cache import layout
from roiseg.cache.writer import OpenShard
from roiseg.extractor import extract
layout.MIB = 2048
fsync = os.fsync
def slow(number):
    time.sleep(0.02)
    fsync(number)
os.fsync = slow
print("start", flush=True)
paths = extract.ExtractPaths(*map(Path, sys.argv[1:]))
extract.extract("extract@train", paths, extractor_params(batch_size=1), cache_params(codec="zstd"), READER)
"""


def test_kill_9_at_a_random_moment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever moment the process dies at, the next run ends with the same bytes, and keeps what was whole."""
    monkeypatch.setattr(layout, "MIB", 2048)
    extractor, cache = extractor_params(batch_size=1), cache_params(codec="zstd")
    run(extractor, cache)
    expected, name = tree(PATHS.store), work_folder().name
    Path(".work").rename("whole")

    names = [str(getattr(PATHS, field)) for field in ("images", "index", "backbone", "scales", "store", "detections")]
    tests = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, str(Path(tests).parent)]), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", CHILD, *names], env=environment, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"start\n"
    records = Path(".work") / name / "shards"
    stop = time.monotonic() + 60
    while not len(list(records.glob("*.json"))) and time.monotonic() < stop:
        time.sleep(0.002)
    time.sleep(time.time_ns() % 100 / 1000)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    kept = shard_files(work_folder())
    assert kept
    extract("extract@train", PATHS, extractor, cache, READER)
    assert tree(PATHS.store) == expected
    now = shard_files(work_folder())
    assert {item: now[item] for item in kept} == kept
    assert not list(Path(".work").rglob("*.partial"))


def test_an_unreadable_image_keeps_the_finished_shards(place: Path) -> None:
    images = place / "images"
    names = pd.read_parquet(PATHS.index)["file_name"].tolist()
    source = images.resolve()
    images.unlink()
    images.mkdir()
    for name in names:
        (images / name).write_bytes((source / name).read_bytes())
    good = (images / names[9]).read_bytes()
    (images / names[9]).write_bytes(good[:-40])
    with pytest.raises(ImageReadError, match=rf"images/{names[9]}: the image is truncated"):
        run(extractor_params(), cache_params())
    assert sorted(item.stem for item in (work_folder() / "shards").iterdir()) == ["0", "1"]
    assert not PATHS.store.exists()
    (images / names[9]).write_bytes(good)
    run(extractor_params(), cache_params())
    np.testing.assert_array_equal(stored()["layer_3"], expected_floats(place / "detector.onnx")["layer_3"].astype(np.float16))


def test_a_missing_image(place: Path) -> None:
    table = pd.read_parquet(PATHS.index)
    table.loc[5, "file_name"] = "gone.jpg"
    (place / "index").unlink()
    write_parquet(PATHS.index, table)
    with pytest.raises(MissingImageError, match=r"images/gone\.jpg: no such image"):
        run(extractor_params(), cache_params())


@pytest.mark.parametrize("bad", [1, 3, 6])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_that_fails_takes_its_shard_with_it(place: Path, monkeypatch: pytest.MonkeyPatch, bad: int, batch: int) -> None:
    """What waits behind it must not be written in its place: the shard would look whole, one image short."""
    extractor, cache = extractor_params(batch_size=batch), cache_params()
    run(extractor, cache)
    expected = tree(PATHS.store)
    work_folder().rename("whole")
    append, done = OpenShard.append, []

    def failing(self: OpenShard, features: dict[str, NDArray[Any]]) -> None:
        done.append(features)
        if len(done) == bad + 1:
            time.sleep(0.3)  # the others queue up
            raise DiskSpaceError("the disk is full")
        append(self, features)

    with monkeypatch.context() as patch:
        patch.setattr(OpenShard, "append", failing)
        with pytest.raises(DiskSpaceError):
            extract("extract@train", PATHS, extractor, cache, READER)
    assert len(done) == bad + 1
    assert [item.stem for item in (work_folder() / "shards").iterdir()] == [str(number) for number in range(bad // PER_SHARD)]
    extract("extract@train", PATHS, extractor, cache, READER)
    assert tree(PATHS.store) == expected


def test_features_that_float16_cannot_hold(place: Path) -> None:
    make_detector(place / "loud.onnx", gain=64.0)
    with pytest.raises(StoreError, match=r"layer 'layer_34', row 0: \d+ values don't fit float16 .*set cache\.dtype: int8"):
        run(extractor_params(), cache_params(), "loud.onnx")
    run(extractor_params(), cache_params(dtype="int8"), "loud.onnx")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_fixed_batch_size(place: Path, dtype: str) -> None:
    make_detector(place / "one.onnx", batch=1)
    with pytest.raises(GraphError, match=r"extractor\.batch_size is 3, but the detector takes batches of 1 only"):
        run(extractor_params(), cache_params(dtype=dtype), "one.onnx")
    run(extractor_params(batch_size=1), cache_params(dtype=dtype), "one.onnx")


def _touch_image(folder: Path) -> None:
    name = pd.read_parquet(PATHS.index)["file_name"][3]
    source = (folder / "images").resolve()
    (folder / "images").unlink()
    (folder / "images").mkdir()
    for item in source.iterdir():
        (folder / "images" / item.name).write_bytes(item.read_bytes())
    path = folder / "images" / name
    pixels = read_bgr(path)
    cv2.imwrite(str(path), 255 - pixels)


@pytest.mark.parametrize(
    ("extractor", "cache", "change"),
    [
        ({"color": "bgr"}, {}, None),
        ({"resize": "letterbox"}, {}, None),
        ({"pixel_max": 1.0}, {}, None),
        ({"batch_size": 2}, {}, None),
        ({}, {"codec": "lz4"}, None),
        ({}, {"dtype": "int8"}, None),
        ({}, {"shard_mib": 2}, None),
        ({}, {}, _touch_image),
    ],
    ids=["color", "resize", "pixel_max", "batch_size", "codec", "dtype", "shard_mib", "image"],
)
def test_another_extraction_works_elsewhere(
    place: Path, extractor: dict[str, Any], cache: dict[str, Any], change: Callable[[Path], None] | None
) -> None:
    run(extractor_params(), cache_params())
    if change:
        change(place)
    run(extractor_params(**extractor), cache_params(**cache))
    assert len(list(Path(".work").iterdir())) == 2


def test_done_names_the_files_of_dvc(place: Path) -> None:
    run(extractor_params(), cache_params())
    done = json.loads((work_folder() / "done.json").read_text())
    assert done["stage"] == "extract@train"
    assert list(done["files"]) == ["backbone.onnx", "scales.npz", "index/train/images.parquet", "d.parquet", "f.zarr/zarr.json"]


GOLDEN = {
    ("float16", "none"): "e9caa25a4a3b99d938d876827ec7e3d8922eefbb0ebc0f361f07188e4aa982cc",
    ("float16", "lz4"): "9f9b19516fc77286ab9c2deefe24762fe0f692dadbec8c24900dc9b95ea78136",
    ("float16", "zstd"): "8802932792832d1d23d2e729795d1f9122b512cec246aec10eb684176a2d9214",
    ("int8", "none"): "6e2b6a42b73a5ef3fdad8753138b892a46c3a19c2fc3d85f18b7fc97c10fb41f",
    ("int8", "lz4"): "20a5d7de18fbd73cc455c9c55baedf57300174a40a2ac065cae015f8f6b6e025",
    ("int8", "zstd"): "577ef1b9647d28841db30d996e8487a42e9509663252a2e9a6ce00e4e7fbde7d",
}


def draw_pictures() -> None:
    """Five pictures of whole numbers, with their index."""
    for name in ("images", "index"):
        Path(name).unlink()
    Path("images").mkdir()
    y, x = np.mgrid[: INPUT_HW[0], : INPUT_HW[1]]
    rows = 5
    for row in range(rows):
        pixels = np.stack([(x * (row + 1)) % 256, (y * 7 + x) % 256, (x * y + 40 * row) % 256], axis=2).astype(np.uint8)
        cv2.imwrite(f"images/{row}.png", pixels)
    columns = {"row": range(rows), "image_id": [9, 3, 4, 8, 1], "file_name": [f"{row}.png" for row in range(rows)]}
    write_parquet(PATHS.index, pd.DataFrame({**columns, "height": INPUT_HW[0], "width": INPUT_HW[1]}))


def shard_sum() -> str:
    """SHA-256 over all shards of the store."""
    whole = hashlib.sha256()
    for file in sorted(PATHS.store.rglob("c.*")):
        whole.update(f"{file.relative_to(PATHS.store)}\0".encode() + file.read_bytes())
    return whole.hexdigest()


HINT = (
    "the same images, graph and params give other bytes than before: if that is meant, raise CACHE_VERSION in "
    "roiseg/cache/version.py (every store is then made anew) and write the new sum here"
)


@pytest.mark.parametrize(("dtype", "codec"), list(GOLDEN))
def test_golden_bytes(place: Path, dtype: str, codec: str) -> None:
    """DVC watches the version alone, so bytes may change only with it."""
    draw_pictures()
    run(extractor_params(), cache_params(dtype=dtype, codec=codec))
    assert CACHE_VERSION == 3, "the version was raised: write the new sums, and the version here"
    assert shard_sum() == GOLDEN[dtype, codec], HINT


def test_golden_bytes_of_views_tiles_and_images(place: Path) -> None:
    draw_pictures()
    run(extractor_params(), cache_params(dtype="int8", codec="lz4", tile_hw=[3, 8], views=["plain", "mirrored"], image=True))
    assert shard_sum() == "ed18b2dc50ef171510b2fe98b9012d50a7f26c17a5bd9e02113a4708a9f1cb75", HINT
