"""Tests of roiseg.cache.layout and the fields that a store is compared by."""

import pytest
from onnx_factory import cache_params, extractor_params

from roiseg.cache.layout import MIB, check_match, differences, shard_images, shard_key
from roiseg.cache.params import asked_fields
from roiseg.errors import StoreMismatchError
from roiseg.types import CutLayer, StoredType


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
    layers = (CutLayer("a", "a", 10, (2, 3)), CutLayer("b", "b", 1024, (80, 80)))
    assert shard_images(layers, dtype, mib, images) == expected
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
        "view": "plain",
    }
