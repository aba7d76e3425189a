"""Tests of roiseg.cache.space: what a store takes, whose copy counts, and a disk that runs full."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_factory import STORE_LAYERS, Recipe, cache_params

from roiseg.cache.layout import stored_arrays
from roiseg.cache.reader import FeatureStore
from roiseg.cache.space import SHARES, check_space, estimate_bytes, links_into
from roiseg.errors import DiskSpaceError
from roiseg.types import CutLayer
from roiseg.work import dvc_cache

Usage = namedtuple("Usage", "total used free")


def test_estimate_of_full_coco() -> None:
    layers = (CutLayer("layer_34", "/34", 1024, (80, 80)),)

    def gigabytes(**changes: object) -> float:
        cache = cache_params(codec="none", **changes)
        return estimate_bytes(stored_arrays(layers, (640, 640), cache), 59_920, cache) / 1e9

    assert gigabytes() == pytest.approx(785.4, rel=1e-3)
    assert gigabytes(dtype="int8") == pytest.approx(392.7, rel=1e-3)
    assert gigabytes(views=["plain", "mirrored"]) == pytest.approx(2 * 785.4, rel=1e-3)
    assert gigabytes(image=True) == pytest.approx(785.4 + 73.6, rel=1e-3)


def test_every_form_has_a_share() -> None:
    assert set(SHARES) == {(dtype, codec) for dtype in ("float16", "int8", "uint8") for codec in ("none", "lz4", "zstd")}
    assert estimate_bytes(stored_arrays(STORE_LAYERS, (32, 64), cache_params()), 0, cache_params()) == 0


def test_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert links_into(dvc_cache(), tmp_path), "no DVC here"
    Path(".dvc").mkdir()
    assert links_into(dvc_cache(), tmp_path)
    Path(".dvc/cache", f".link-{tmp_path.name}.partial").write_bytes(b"")
    assert links_into(dvc_cache(), tmp_path), "an earlier look was killed"
    assert not list(tmp_path.rglob("*.partial"))

    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    assert not links_into(dvc_cache(), tmp_path)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(("free", "copies", "fits"), [(100, 1, True), (99, 1, False), (199, 2, False), (200, 2, True)])
def test_check_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, copies: int, fits: bool) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, free * 10**9))
    if fits:
        check_space(tmp_path, 100 * 10**9, copies)
        return
    twice = " twice, because DVC's cache is on another file system" if copies == 2 else ";"
    with pytest.raises(
        DiskSpaceError, match=rf"{free}\.0 GB are free, but the store takes about 100\.0 GB{twice}.*cache\.codec: zstd"
    ):
        check_space(tmp_path, 100 * 10**9, copies)


def test_a_disk_that_fills_up_keeps_what_is_finished(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    made: Recipe = recipe("lz4", "int8")
    writer = made.writer()
    made.write(writer, 0)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        DiskSpaceError, match=r"c\.1\.0\.0\.0: the disk is full .*finished shards are kept: make room and run again"
    ):
        made.write(writer, 1)
    monkeypatch.undo()
    made = recipe("lz4", "int8")
    assert not list(made.folder.rglob("*.partial")), "half a shard would fill the disk for nothing"
    again = made.writer()
    assert again.missing() == [1, 2]
    for shard in again.missing():
        made.write(again, shard)
    again.finish()
    np.testing.assert_array_equal(FeatureStore(again.path).read(4, ["layer_3"])["layer_3"], made.features["layer_3"][4])


def test_another_fault_stays_what_it_is(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    made: Recipe = recipe()
    writer = made.writer()

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        made.write(writer, 0)
    assert not isinstance(caught.value, DiskSpaceError)
