"""Tests of roiseg.cache.reader: what isn't whole is refused, and never read as zeros."""

import copy
import json
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_factory import STORE_FOUND, STORE_IDS, STORE_IMAGES, STORE_LAYERS, Recipe

from roiseg.cache.reader import FeatureStore
from roiseg.cache.version import CACHE_VERSION
from roiseg.errors import StoreDamagedError, StoreError, StoreMismatchError
from roiseg.types import FeatureSpec

Recipes = Callable[..., Recipe]
NAMES = [layer.name for layer in STORE_LAYERS]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_reads_what_was_written(recipe: Recipes, codec: str, dtype: str) -> None:
    made = recipe(codec, dtype)
    store = FeatureStore(made.make())
    assert len(store) == STORE_IMAGES
    np.testing.assert_array_equal(store.image_ids, STORE_IDS)
    for row in range(STORE_IMAGES):
        values = store.read(row, NAMES[::-1])
        assert list(values) == NAMES[::-1]
        for name in NAMES:
            assert values[name].dtype == np.dtype(dtype)
            np.testing.assert_array_equal(values[name], made.features[name][row])
    assert store.read(0, []) == {}
    assert set(store.scales) == set(made.scales)
    for name, scale in made.scales.items():
        np.testing.assert_array_equal(store.scales[name], scale)


def test_a_read_is_ones_own(recipe: Recipes) -> None:
    store = FeatureStore(recipe().make())
    first = store.read(1, ["layer_3"])["layer_3"]
    before = first.copy()
    store.read(2, ["layer_3"])
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("row", [STORE_IMAGES, -STORE_IMAGES - 1])
def test_rows_outside(recipe: Recipes, row: int) -> None:
    with pytest.raises(IndexError):
        FeatureStore(recipe().make()).read(row, NAMES)


def test_specs_in_the_order_of_the_params(recipe: Recipes) -> None:
    specs = FeatureStore(recipe().make()).specs
    assert list(specs.items()) == [
        ("layer_34", FeatureSpec("layer_34", 6, (8.0, 8.0))),
        ("layer_3", FeatureSpec("layer_3", 4, (4.0, 4.0))),
    ]


def test_what_it_was_made_by(recipe: Recipes) -> None:
    made = recipe()
    store = FeatureStore(made.make())
    assert store.asked == made.asked
    assert store.found == STORE_FOUND


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no\.zarr: no feature store there .*run `dvc repro extract` or `dvc pull`"):
        FeatureStore(tmp_path / "no.zarr")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(StoreError, match=r"empty\.zarr: no feature store there"):
        FeatureStore(tmp_path / "empty.zarr")


def test_torn_metadata(recipe: Recipes) -> None:
    path = recipe().make()
    (path / "zarr.json").write_text((path / "zarr.json").read_text()[:-20])
    with pytest.raises(StoreError, match="no feature store there"):
        FeatureStore(path)


def test_an_unfinished_store(recipe: Recipes) -> None:
    made = recipe()
    writer = made.writer()
    for shard in writer.missing():
        made.write(writer, shard)
    with pytest.raises(StoreDamagedError, match="extraction hasn't finished this store; run `dvc repro extract`"):
        FeatureStore(writer.path)


@pytest.mark.parametrize("version", [0, 99, None])
def test_another_version(recipe: Recipes, version: int | None) -> None:
    path = recipe().make()
    meta = json.loads((path / "zarr.json").read_text())
    meta["attributes"]["version"] = version
    (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(StoreMismatchError, match=rf"format version is {version}, expected {CACHE_VERSION}; run `dvc repro"):
        FeatureStore(path)


@pytest.mark.parametrize("layer", NAMES)
@pytest.mark.parametrize("shard", [0, 1, 2])
def test_a_missing_shard(recipe: Recipes, layer: str, shard: int) -> None:
    path = recipe().make()
    (path / layer / f"c.{shard}.0.0.0").unlink()
    with pytest.raises(StoreDamagedError, match=rf"{layer}/c\.{shard}\.0\.0\.0: is missing, expected \d+ bytes; restore it"):
        FeatureStore(path)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_shard(recipe: Recipes, keep: int) -> None:
    path = recipe().make()
    file = path / "layer_3" / "c.1.0.0.0"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(StoreDamagedError, match=rf"c\.1\.0\.0\.0: has {file.stat().st_size} bytes, expected \d+ bytes"):
        FeatureStore(path)


@pytest.mark.parametrize("name", ["image_id", "layer_34_scale", "layer_3_scale"])
@pytest.mark.parametrize("change", ["missing", "truncated", "one bit"])
def test_damaged_vectors(recipe: Recipes, name: str, change: str) -> None:
    """zarr would give zeros for them: images without ids, features without scale."""
    path = recipe(dtype="int8").make()
    file = path / name / "c.0"
    data = file.read_bytes()
    file.unlink()
    if change != "missing":
        file.write_bytes(data[:4] if change == "truncated" else bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(StoreDamagedError, match=rf"{name}/c\.0: (is missing|was changed or cut short); restore it"):
        FeatureStore(path)


@pytest.mark.parametrize("name", ["layer_3", "image_id"])
def test_an_array_without_metadata(recipe: Recipes, name: str) -> None:
    path = recipe().make()
    (path / name / "zarr.json").unlink()
    with pytest.raises(StoreDamagedError, match=rf"{name}/zarr\.json: is missing; restore it"):
        FeatureStore(path)


def test_an_array_with_torn_metadata(recipe: Recipes) -> None:
    path = recipe().make()
    file = path / "layer_3" / "zarr.json"
    file.write_text(file.read_text()[:-9])
    with pytest.raises(StoreDamagedError, match=r"layer_3/zarr\.json: was changed or cut short; restore it"):
        FeatureStore(path)


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_any_flipped_bit_of_a_shard_is_found(recipe: Recipes, codec: str) -> None:
    """Every row of the shard is read; one of them, at least, must fail, and the others give what was written."""
    made = recipe(codec)
    path = made.make()
    file = path / "layer_3" / "c.1.0.0.0"
    data = file.read_bytes()
    positions = np.linspace(0, len(data) - 1, 40).astype(int).tolist()
    for position in positions:
        torn = bytearray(data)
        torn[position] ^= 1 << (position % 8)
        file.write_bytes(bytes(torn))
        store = FeatureStore(path)
        failed = 0
        for row in (3, 4, 5):
            try:
                found = store.read(row, ["layer_3"])["layer_3"]
            except StoreDamagedError:
                failed += 1
            else:
                np.testing.assert_array_equal(found, made.features["layer_3"][row])
        assert failed, f"byte {position} of {len(data)}"
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StoreDamagedError, match=r"c\.1\.0\.0\.0: its index fails its checksum; restore it with `dvc checkout`"):
        FeatureStore(path).read(4, ["layer_3"])
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(StoreDamagedError, match=r"c\.1\.0\.0\.0: chunk 0 fails its checksum; restore it with `dvc checkout`"):
        FeatureStore(path).read(3, ["layer_3"])
    file.write_bytes(data)
    np.testing.assert_array_equal(FeatureStore(path).read(4, ["layer_3"])["layer_3"], made.features["layer_3"][4])


def test_a_shard_that_goes_away_while_the_store_is_open(recipe: Recipes) -> None:
    path = recipe().make()
    store = FeatureStore(path)
    (path / "layer_34" / "c.2.0.0.0").unlink()
    with pytest.raises(StoreDamagedError, match=r"layer_34/c\.2\.0\.0\.0: can't be mapped .*No such file.*; restore it"):
        store.read(6, NAMES)
    store.read(5, NAMES)


def test_check_takes_its_own_fields_and_any_part_of_them(recipe: Recipes) -> None:
    made = recipe()
    store = FeatureStore(made.make())
    store.check(made.asked)
    store.check({})
    for name, value in made.asked.items():
        store.check({name: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers.layer_3", "/other"),
        ("layers.layer_5", "/5"),
        ("input.hw", [64, 32]),
        ("input.resize", "letterbox"),
        ("input.color", "bgr"),
        ("input.pixel_max", 1.0),
        ("dtype", "int8"),
        ("views", ["plain", "mirrored"]),
        ("image", True),
        ("tile_hw", [4, 4]),
        ("graph", "ff00"),
        ("scales", "13"),
        ("codec.name", "zstd"),
        ("codec.level", 9),
        ("codec.shuffle", "noshuffle"),
        ("shard_mib", 2),
        ("batch_size", 4),
        ("image_ids", "43"),
        ("images", "65"),
    ],
)
def test_check_names_the_field_and_both_values(recipe: Recipes, field: str, value: object) -> None:
    made = recipe()
    store = FeatureStore(made.make())
    want: dict[str, Any] = copy.deepcopy(made.asked)
    place: dict[str, Any] = want
    *parents, last = field.split(".")
    for name in parents:
        place = place[name]
    had = place.get(last)
    place[last] = value
    with pytest.raises(StoreMismatchError) as caught:
        store.check(want)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{store.path}: was made with other settings:"
    assert lines[1:-1] == [f"  {field}: store has {had!r}, asked for {value!r}"]
    assert "dvc repro" in lines[-1]


def test_check_finds_a_layer_that_is_no_longer_asked_for(recipe: Recipes) -> None:
    made = recipe()
    store = FeatureStore(made.make())
    with pytest.raises(StoreMismatchError, match=r"layers\.layer_3: store has '/3', asked for nothing"):
        store.check({"layers": {"layer_34": "/34"}})


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (STORE_IDS[:-1], "holds 7 images from id 50, but the index lists 6 from id 50"),
        (STORE_IDS[::-1], "but the index lists 7 from id 1, in another order or of another set"),
        (np.array([50, 3, 41, 12, 9, 77, 2]), "in another order or of another set; run `dvc repro extract`"),
    ],
    ids=["fewer", "order", "other"],
)
def test_check_rows(recipe: Recipes, ids: NDArray[np.int64], message: str) -> None:
    store = FeatureStore(recipe().make())
    store.check_rows(STORE_IDS, "the index")
    with pytest.raises(StoreMismatchError, match=message):
        store.check_rows(ids, "the index")


def test_check_layers(recipe: Recipes) -> None:
    store = FeatureStore(recipe().make())
    store.check_layers(NAMES)
    with pytest.raises(StoreMismatchError, match=r"no layer 'layer_35' \(model\.layers\); did you mean 'layer_3' or 'layer_34'\?"):
        store.check_layers(["layer_3", "layer_35"])
    with pytest.raises(StoreMismatchError, match=r"no layer 'zz' .*known: layer_3, layer_34; add it to extractor\.layers"):
        store.check_layers(["zz"])
    with pytest.raises(StoreMismatchError, match=r"no layer 'teacher' .*a people net writes it .*run `dvc repro teacher`"):
        store.check_layers(["layer_3", "teacher"])


def test_threads_read_the_same(recipe: Recipes) -> None:
    made = recipe("zstd")
    store = FeatureStore(made.make())
    rows = np.random.default_rng(0).integers(0, STORE_IMAGES, 200).tolist()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda row: store.read(row, NAMES), rows))
    for row, values in zip(rows, results, strict=True):
        for name in NAMES:
            np.testing.assert_array_equal(values[name], made.features[name][row])


def test_pickling_reopens(recipe: Recipes) -> None:
    store = FeatureStore(recipe().make())
    data = pickle.dumps(store)
    assert len(data) < 1000
    again: FeatureStore = pickle.loads(data)  # noqa: S301 - our own bytes
    assert again.path == store.path
    np.testing.assert_array_equal(again.read(5, ["layer_3"])["layer_3"], store.read(5, ["layer_3"])["layer_3"])
    shutil.rmtree(store.path)
    with pytest.raises(StoreError, match="no feature store there"):
        pickle.loads(data)  # noqa: S301 - our own bytes


def test_a_spawned_process_reads_the_same(recipe: Recipes) -> None:
    made = recipe("zstd")
    store = FeatureStore(made.make())
    store.read(0, NAMES)  # so that there is a thread of zarr's to be lost
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        results = pool.starmap(store.read, [(row, NAMES) for row in range(STORE_IMAGES)])
    for row, values in enumerate(results):
        for name in NAMES:
            np.testing.assert_array_equal(values[name], made.features[name][row])
