"""Tests of roiseg.cache.race: sides take turns, every side reads the same rows, and nothing is left behind."""

import re
import shutil
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_factory import STORE_IMAGES, STORE_LAYERS, Recipe

from roiseg.cache.race import LIMIT, copying, race, race_store, readers, reading
from roiseg.cache.reader import FeatureStore
from roiseg.errors import DiskSpaceError, StoreError

Recipes = Callable[..., Recipe]
Usage = namedtuple("Usage", "total used free")
NAMES = [layer.name for layer in STORE_LAYERS]
SIDES = [LIMIT, "roiseg", "roiseg, no checksums", "zarr-python"]
SPEED = re.compile(r"    (.{22}) *([\d,]+) images/s +([\d.]+) GB/s +([\d.]+)")


def test_sides_take_turns_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order, ticks = [0.0], [], []
    lasts = {"a": iter([5.0, 1.0, 2.0]), "b": iter([1.0, 9.0, 1.0])}
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def side(name: str) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            now[0] += next(lasts[name])

        return run

    assert race({"a": side("a"), "b": side("b")}, 3, lambda: ticks.append(1)) == {"a": 2.0, "b": 1.0}
    assert order == ["a", "b"] * 3
    assert len(ticks) == 6


def test_reading_goes_through_the_rows_each_time() -> None:
    seen: list[int] = []
    run = reading(seen.append, iter([2, 0, 2]))
    run()
    run()
    assert seen == [2, 0, 2, 2, 0, 2]


def test_copying_stays_within_the_raw_file() -> None:
    copying(np.zeros((2, 3, 4, 5), np.float16), [1, 0])()
    with pytest.raises(IndexError):
        copying(np.zeros((2, 3, 4, 5), np.float16), [2])()


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_readers_read_the_rows_with_and_without_checksums(recipe: Recipes, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    made = recipe("lz4", dtype)
    seen: list[tuple[bool, int]] = []
    plain = FeatureStore.read_into

    def noted(self: FeatureStore, row: int, layer: str, out: NDArray[np.generic]) -> None:
        plain(self, row, layer, out)
        np.testing.assert_array_equal(out, made.features[layer][row])
        seen.append((self.checksums, row))

    monkeypatch.setattr(FeatureStore, "read_into", noted)
    sides = readers(made.make(), "layer_3", [3, 0])
    assert list(sides) == SIDES[1:]
    for run in sides.values():
        run()
    assert seen == [(True, 3), (True, 0), (False, 3), (False, 0)]


def test_every_layer_is_raced(recipe: Recipes, tmp_path: Path) -> None:
    path, work = recipe("lz4", "int8").make(), tmp_path / "w"
    lines = list(race_store(path, None, 3, work))
    assert lines[0].startswith(f"{path}: 3 images in random order, one thread, median of 7 rounds")
    assert len(lines) == 1 + 5 * len(NAMES)
    for number, layer in enumerate(STORE_LAYERS):
        first, *rest = lines[1 + 5 * number : 6 + 5 * number]
        assert first.startswith(f"  {layer.name}: {layer.channels} x {layer.hw[0]} x {layer.hw[1]} int8, ")
        found = [match.groups() for line in rest if (match := SPEED.fullmatch(line))]
        assert [name.strip() for name, *_ in found] == SIDES
        assert found[0][3] == "1.00"
        assert all(int(speed.replace(",", "")) > 0 for _, speed, *_ in found)
    assert list(work.iterdir()) == []


def test_one_layer_and_more_images_than_there_are(recipe: Recipes, tmp_path: Path) -> None:
    lines = list(race_store(recipe().make(), NAMES[1], 10_000, tmp_path))
    assert f": {STORE_IMAGES} images in random order" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1::5]] == [NAMES[1]]


def test_an_unknown_layer_names_near_ones_before_anything_is_said(recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no layer 'layer_4'; did you mean .*'layer_3'"):
        next(race_store(recipe().make(), "layer_4", 3, tmp_path))


def test_too_small_a_disk_is_refused(recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, work = recipe().make(), tmp_path / "w"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 90, 10))
    with pytest.raises(DiskSpaceError, match=r"0\.0 GB are free, but 2 images of .*; make room, or read fewer images"):
        list(race_store(path, NAMES[0], 2, work))
    assert list(work.iterdir()) == []
