"""Tests of roiseg.cache.joined: rows are found by image id, whatever the order of the other store."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_factory import INPUT_HW, STORE_IDS, STORE_LAYERS, cache_params, make_recipe

from roiseg.cache.joined import JoinedStore
from roiseg.cache.layout import stored_arrays
from roiseg.cache.reader import FeatureStore
from roiseg.cache.writer import StoreWriter
from roiseg.errors import StoreMismatchError
from roiseg.types import CutLayer, Window

OTHER = CutLayer("logits", "/logits", 1, (8, 16))


def first(folder: Path, dtype: str = "int8") -> FeatureStore:
    return FeatureStore(make_recipe(folder / "first", "lz4", dtype).make())


def other(folder: Path, ids: NDArray[np.int64], layer: CutLayer = OTHER) -> FeatureStore:
    """Every value of an image is its id."""
    work = folder / "other"
    work.mkdir()
    cache = cache_params(codec="lz4")
    asked = {"input": {"hw": list(INPUT_HW)}, "dtype": "float16", "layers": {layer.name: layer.tensor}}
    writer = StoreWriter(work, stored_arrays([layer], INPUT_HW, cache), ids, cache, {}, asked, {"provider": "cpu"})
    values = np.broadcast_to(ids.astype(np.float16)[:, None, None, None], (len(ids), layer.channels, *layer.hw))
    for shard in writer.missing():
        writer.write(shard, {layer.name: values[writer.rows(shard).start : writer.rows(shard).stop]})
    writer.finish()
    return FeatureStore(writer.path)


@pytest.mark.parametrize(
    "order", [STORE_IDS, STORE_IDS[::-1], np.array([999, *sorted(STORE_IDS), 0])], ids=["same", "back", "more"]
)
def test_rows_are_joined_by_id(tmp_path: Path, order: NDArray[np.int64]) -> None:
    one, two = first(tmp_path), other(tmp_path, np.asarray(order, dtype=np.int64))
    joined = JoinedStore(one, two)
    assert joined.layers == (*one.layers, "logits")
    assert len(joined) == len(one)
    joined.check_rows(STORE_IDS, "the index")
    joined.check_layers(["logits", "layer_3"])
    for row, image_id in enumerate(STORE_IDS.tolist()):
        found = joined.read(row, ["layer_3", "logits"])
        np.testing.assert_array_equal(found["layer_3"], one.read(row, ["layer_3"])["layer_3"])
        np.testing.assert_array_equal(found["logits"], np.full((1, 8, 16), image_id, np.float16))
        part = np.empty((1, 2, 3), np.float16)
        joined.read_window_into(row, "logits", Window(1, 3, 4, 7), part)
        assert (part == image_id).all()


def test_what_the_layers_are(tmp_path: Path) -> None:
    one, two = first(tmp_path), other(tmp_path, STORE_IDS)
    joined = JoinedStore(one, two)
    assert joined.specs == {**one.specs, **two.specs}
    assert joined.shapes["logits"] == (1, 8, 16)
    assert joined.dtypes["logits"] == np.float16
    assert joined.dtypes["layer_3"] == np.int8
    assert set(joined.scales) == set(one.scales)
    assert joined.views == ("plain",)
    assert joined.asked[two.path.as_posix()] == two.asked
    assert joined.found[two.path.as_posix()] == two.found


def test_a_missing_image(tmp_path: Path) -> None:
    ids = STORE_IDS[[0, 1, 3, 4, 5]]
    with pytest.raises(StoreMismatchError, match=r"store\.zarr: lacks 2 of the 7 images of .*, the first with id 41; make it anew"):
        JoinedStore(first(tmp_path), other(tmp_path, ids))


def test_two_layers_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(StoreMismatchError, match=r"both have a layer 'layer_3'; call one of them otherwise"):
        JoinedStore(first(tmp_path), other(tmp_path, STORE_IDS, STORE_LAYERS[1]))


def test_rows_outside(tmp_path: Path) -> None:
    joined = JoinedStore(first(tmp_path), other(tmp_path, STORE_IDS))
    with pytest.raises(IndexError, match=r"row 7, expected 0 to 6"):
        joined.read(7, ["logits"])
