"""Tests of roiseg.cache.writer: whole shards, resumable between any two of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from onnx_factory import INPUT_HW, STORE_FOUND, STORE_IDS, STORE_IMAGES, STORE_LAYERS, Recipe

from roiseg.cache import layout, writer
from roiseg.cache.layout import stored_arrays
from roiseg.cache.writer import StoreWriter
from roiseg.errors import StoreDamagedError, StoreMismatchError
from roiseg.files import sha256_file

Recipes = Callable[..., Recipe]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_plain_zarr_reads_what_was_written(recipe: Recipes, codec: str, dtype: str) -> None:
    made = recipe(codec, dtype)
    group = zarr.open_group(made.make(), mode="r")
    for name, values in made.features.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert array.dtype == values.dtype
        np.testing.assert_array_equal(array[:], values)
    np.testing.assert_array_equal(group["image_id"][:], STORE_IDS)  # type: ignore[index]
    assert sorted(name for name, _ in group.arrays()) == sorted(["image_id", *made.features, *(f"{n}_scale" for n in made.scales)])


def test_rows_of_shards(recipe: Recipes) -> None:
    made = recipe().writer()
    assert (made.per_shard, made.count) == (3, 3)
    assert [list(made.rows(shard)) for shard in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_missing_shrinks_by_what_was_written(recipe: Recipes) -> None:
    made = recipe()
    first = made.writer()
    made.write(first, 1)
    assert first.missing() == [0, 2]
    assert made.writer().missing() == [0, 2]


def test_the_same_bytes_in_any_order(recipe: Recipes) -> None:
    one, other = recipe(name="a"), recipe(name="b")
    store = one.make()
    for shard in (2, 0, 1):
        other.write(other.writer(), shard)
    finished = other.writer()
    finished.finish()
    files = sorted(item.relative_to(store) for item in store.rglob("*") if item.is_file())
    assert files == sorted(item.relative_to(finished.path) for item in finished.path.rglob("*") if item.is_file())
    for file in files:
        assert (store / file).read_bytes() == (finished.path / file).read_bytes(), file


def test_a_torn_shard_is_written_again(recipe: Recipes) -> None:
    made = recipe()
    first = made.writer()
    torn = first.path / "layer_34" / "c.0.0.0.0"
    torn.write_bytes(b"torn")
    store = made.make()
    np.testing.assert_array_equal(zarr.open_group(store, mode="r")["layer_34"][:], made.features["layer_34"])  # type: ignore[index]


def test_partial_files_are_removed_on_opening(recipe: Recipes) -> None:
    made = recipe()
    path = made.writer().path
    torn = [path / "layer_3" / "c.0.0.0.0.12.partial", path / "zarr.json.34.partial", made.folder / "made.json.5.partial"]
    for item in torn:
        item.write_bytes(b"x")
    made.writer()
    assert not any(item.exists() for item in torn)


def test_a_store_that_was_cut_short_at_its_creation_is_created_anew(recipe: Recipes, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe()

    def die(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "create_vector", die)
        with pytest.raises(KeyboardInterrupt):
            made.writer()
    (made.folder / "store.zarr" / "layer_34" / "junk").write_bytes(b"x")
    store = made.make()
    assert not (store / "layer_34" / "junk").exists()
    np.testing.assert_array_equal(zarr.open_group(store, mode="r")["layer_3"][:], made.features["layer_3"])  # type: ignore[index]


def test_records_hold_sizes_and_sums(recipe: Recipes) -> None:
    made = recipe()
    attrs: dict[str, Any] = json.loads((made.make() / "zarr.json").read_text())["attributes"]
    for layer in STORE_LAYERS:
        entries = attrs["shards"][layer.name]
        assert len(entries) == 3
        for number, (size, digest) in enumerate(entries):
            file = made.folder / "store.zarr" / layer.name / f"c.{number}.0.0.0"
            assert size == file.stat().st_size
            assert digest == sha256_file(file)


def test_incomplete_until_finished(recipe: Recipes) -> None:
    made = recipe()
    opened = made.writer()
    for shard in opened.missing():
        made.write(opened, shard)
    assert "complete" not in zarr.open_group(opened.path, mode="r").attrs
    sizes = opened.finish()
    assert sizes == {
        layer.name: sum(item.stat().st_size for item in (opened.path / layer.name).glob("c.*")) for layer in STORE_LAYERS
    }
    assert zarr.open_group(opened.path, mode="r").attrs["complete"] is True


@pytest.mark.parametrize("change", ["gone", "short"])
def test_finish_finds_a_shard_that_changed(recipe: Recipes, change: str) -> None:
    made = recipe()
    made.make()
    opened = made.writer()
    file = opened.path / "layer_3" / "c.1.0.0.0"
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreDamagedError, match=r"c\.1\.0\.0\.0: not the \d+ bytes that were written; run again"):
        opened.finish()
    assert made.writer().missing() == [1]
    made.make()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("asked", {"graph": "11"}, r"asked\.graph: store has '00ff', asked for '11'"),
        ("found", {"provider": "cuda"}, r"found\.provider: store has 'cpu', asked for 'cuda'"),
        ("found", {"onnxruntime": "1.1"}, r"found\.onnxruntime: store has '1\.0', asked for '1\.1'"),
    ],
)
def test_going_on_compares_all_fields(recipe: Recipes, field: str, value: dict[str, Any], message: str) -> None:
    made = recipe()
    made.writer()
    described: dict[str, dict[str, Any]] = {"asked": made.asked, "found": dict(STORE_FOUND)}
    described[field] = described[field] | value
    arrays = stored_arrays(STORE_LAYERS, INPUT_HW, made.cache)
    with pytest.raises(StoreMismatchError, match=message):
        StoreWriter(made.folder, arrays, STORE_IDS, made.cache, made.scales, described["asked"], described["found"])


def test_going_on_compares_the_version(recipe: Recipes, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe()
    made.writer()
    monkeypatch.setattr(writer, "CACHE_VERSION", 99)
    with pytest.raises(StoreMismatchError, match=r"version: store has \d+, asked for 99"):
        made.writer()


def test_one_shard_when_it_all_fits(recipe: Recipes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = recipe()
    monkeypatch.setattr(layout, "MIB", 2**20)
    opened = made.writer()
    assert (opened.per_shard, opened.count) == (STORE_IMAGES, 1)
    made.make()


def test_features_of_zeros_are_written_too(recipe: Recipes) -> None:
    """Zarr leaves empty chunks out unless told not to, and a missing shard couldn't be told from a dead layer."""
    made = recipe()
    made.features["layer_3"][:] = 0
    store = made.make()
    assert len(list((store / "layer_3").glob("c.*"))) == 3
    assert not zarr.open_group(store, mode="r")["layer_3"][:].any()  # type: ignore[index,union-attr]
