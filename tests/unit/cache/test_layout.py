"""Tests of roiseg.cache.layout and the fields that a store is compared by."""

import pytest
from onnx_factory import cache_params, extractor_params

from roiseg.cache.layout import MIB, check_match, differences, shard_images, shard_key, stored_arrays, tile_of
from roiseg.cache.params import asked_fields
from roiseg.errors import ParamsError, StoreMismatchError
from roiseg.types import CutLayer, StoredArray, StoredType


@pytest.mark.parametrize(
    ("dtype", "mib", "images", "expected"),
    [
        ("float16", 839, 64_000, 67),  # YOLOv9-E: 12.5 MiB an image
        ("int8", 839, 64_000, 134),
        ("float16", 25, 64_000, 2),
        ("float16", 24, 64_000, 1),
        ("float16", 1, 64_000, 1),
        ("int8", 1000, 5, 5),
    ],
)
def test_shard_images(dtype: StoredType, mib: int, images: int, expected: int) -> None:
    arrays = (StoredArray("a", 10, (2, 3), dtype), StoredArray("b", 1024, (80, 80), dtype))
    assert shard_images(arrays, mib, images) == expected
    assert MIB == 1024**2


def test_shard_key() -> None:
    assert shard_key(12) == "c.12.0.0.0"


def test_differences_go_into_mappings() -> None:
    have = {"a": 1, "b": {"x": 1, "y": [1, 2], "old": 5}, "only": 3}
    assert differences(have, {"a": 1, "b": {"x": 1, "y": [1, 2], "old": 5}}) == []
    assert differences(have, {"a": 2, "b": {"x": 1, "y": [2, 1], "new": None}, "c": 0}) == [
        "a: store has 1, asked for 2",
        "b.y: store has [1, 2], asked for [2, 1]",
        "b.old: store has 5, asked for nothing",
        "c: store has None, asked for 0",
    ]


def test_check_match_names_all() -> None:
    with pytest.raises(StoreMismatchError, match=r"x\.zarr: was made with other settings:\n  a: .*\n  b: .*\nrun `dvc repro`"):
        check_match("x.zarr", {"a": 1, "b": 2}, {"a": 3, "b": 4})


def test_asked_fields_are_plain_values() -> None:
    assert asked_fields(extractor_params(layers={"p": "/t"}), cache_params(dtype="int8")) == {
        "layers": {"p": "/t"},
        "input": {"hw": [32, 64], "resize": "stretch", "color": "rgb", "pixel_max": 255.0},
        "dtype": "int8",
    }
    assert cache_params(codec="zstd", level=3, tile_hw=[4, 8], views=["plain", "mirrored"], image=True).form() == {
        "codec": {"name": "zstd", "level": 3, "shuffle": "bitshuffle"},
        "shard_mib": 1,
        "tile_hw": [4, 8],
        "views": ["plain", "mirrored"],
        "image": True,
    }


def test_stored_arrays() -> None:
    layers = (CutLayer("a", "/a", 10, (2, 3)), CutLayer("b", "/b", 4, (4, 6)))
    cache = cache_params(dtype="int8", views=["plain", "mirrored"], image=True)
    arrays = stored_arrays(layers, (8, 12), cache, {"mirrored/a": "1"})
    assert [(item.name, item.shape, item.dtype, item.origin, item.attributes) for item in arrays] == [
        ("a", (10, 2, 3), "int8", "", {"tensor": "/a"}),
        ("b", (4, 4, 6), "int8", "", {"tensor": "/b"}),
        ("mirrored/a", (10, 2, 3), "int8", "1", {"tensor": "/a"}),
        ("mirrored/b", (4, 4, 6), "int8", "", {"tensor": "/b"}),
        ("image", (3, 8, 12), "uint8", "", {"color": "rgb"}),
    ]


@pytest.mark.parametrize("views", [[], ["mirrored"], ["mirrored", "plain"], ["plain", "plain"], ["upside down"]])
def test_views_that_make_no_sense(views: list[str]) -> None:
    with pytest.raises(ParamsError, match=r"cache(\.views|.*views must be \[plain\] or \[plain, mirrored\])"):
        cache_params(views=views)


def test_tiles() -> None:
    assert tile_of((30, 40), None) == (30, 40)
    assert tile_of((30, 40), (16, 64)) == (16, 40)
    with pytest.raises(ParamsError, match=r"cache\.tile_hw"):
        cache_params(tile_hw=[0, 4])
