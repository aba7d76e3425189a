"""Tests of roiseg.cache.reuse: a layer more costs its own computation, and what DVC's cache holds is never trusted blindly."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from extraction_place import PATHS, run, shard_files, tree, work_folder
from numpy.typing import NDArray
from onnx_factory import LAYERS, cache_params, extractor_params, make_detector, read_bgr
from ruamel.yaml import YAML

from roiseg.cache.reader import FeatureStore
from roiseg.cache.reuse import previous_store
from roiseg.cache.writer import OpenShard, StoreWriter
from roiseg.errors import StoreDamagedError
from roiseg.extractor.session import Backbone

ONE = {"layer_34": LAYERS["layer_34"]}


def commit() -> None:
    """What DVC does with the store: its files in the cache by their sums, and a line of the lock; the out itself goes away."""
    objects, listing = Path(".dvc/cache/files/md5"), []
    for file in sorted(PATHS.store.rglob("*")):
        if file.is_file():
            md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
            (objects / md5[:2]).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, objects / md5[:2] / md5[2:])
            listing.append({"md5": md5, "relpath": file.relative_to(PATHS.store).as_posix()})
    text = json.dumps(listing)
    name = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"
    (objects / name[:2]).mkdir(parents=True, exist_ok=True)
    (objects / name[:2] / name[2:]).write_text(text)
    outs = [{"path": "d.parquet", "md5": "0" * 32}, {"path": PATHS.store.as_posix(), "md5": name}]
    YAML().dump({"stages": {"extract@train": {"outs": outs}}}, Path("dvc.lock"))
    shutil.rmtree(PATHS.store)
    shutil.rmtree(".work")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Layers of each run of the detector."""
    seen: list[set[str]] = []
    run_into = Backbone.run_into

    def noting(self: Backbone, images: NDArray[np.float32], out: dict[str, Any], *, detect: bool) -> NDArray[Any] | None:
        seen.append(set(out))
        return run_into(self, images, out, detect=detect)

    monkeypatch.setattr(Backbone, "run_into", noting)
    return seen


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("first", ["layer_34", "layer_3"])
def test_an_added_layer_is_all_that_is_computed(place: Path, ran: list[set[str]], dtype: str, first: str) -> None:
    """`layer_3` is the larger one, so adding it changes the number of images in a shard, and adding `layer_34` doesn't."""
    cache = cache_params(dtype=dtype, codec="lz4")
    run(extractor_params(), cache)
    expected = tree(PATHS.store)
    shutil.rmtree(".work")
    run(extractor_params(layers={first: LAYERS[first]}), cache)
    commit()
    ran.clear()
    figures = run(extractor_params(), cache)
    other = next(name for name in LAYERS if name != first)
    assert ran
    assert all(layers == {other} for layers in ran)
    found = tree(PATHS.store)
    assert found == expected
    assert not list(Path(".work").rglob("previous.zarr"))
    assert figures["bytes_stored"] == sum(item.stat().st_size for item in PATHS.store.glob("layer_*/c.*.0.0.0"))
    if dtype == "int8":
        values = FeatureStore(PATHS.store)
        ends = sum(int((np.abs(values.read(row, LAYERS)[name]) == 127).sum()) for row in range(len(values)) for name in LAYERS)
        assert figures["saturated_share"] * sum(np.prod(values.shapes[name]) for name in LAYERS) * len(values) == pytest.approx(
            ends
        )


def test_shards_of_the_same_size_are_linked(place: Path) -> None:
    run(extractor_params(layers={"layer_3": LAYERS["layer_3"]}), cache_params())
    commit()
    run(extractor_params(), cache_params())
    for file in PATHS.store.glob("layer_3/c.*"):
        assert file.stat().st_nlink >= 3  # cache, work folder, out
    for file in PATHS.store.glob("layer_34/c.*"):
        assert file.stat().st_nlink == 2


def test_an_added_view(place: Path, ran: list[set[str]]) -> None:
    run(extractor_params(), cache_params())
    commit()
    ran.clear()
    count = len(pd.read_parquet(PATHS.index))
    run(extractor_params(), cache_params(views=["plain", "mirrored"]))
    assert ran == [set(LAYERS)] * -(-count // 3)  # one run a batch, not two


def test_a_forced_run_computes_all(place: Path, ran: list[set[str]]) -> None:
    run(extractor_params(), cache_params())
    commit()
    ran.clear()
    run(extractor_params(), cache_params())
    assert ran
    assert all(layers == set(LAYERS) for layers in ran)


@pytest.mark.parametrize(
    ("extractor", "cache"),
    [
        ({"pixel_max": 1.0}, {}),
        ({"color": "bgr"}, {}),
        ({"batch_size": 2}, {}),
        ({}, {"codec": "zstd"}),
        ({}, {"dtype": "int8"}),
        ({}, {"tile_hw": [4, 4]}),
    ],
    ids=["pixel_max", "color", "batch_size", "codec", "dtype", "tile_hw"],
)
def test_nothing_is_taken_over_from_another_extraction(
    place: Path, ran: list[set[str]], extractor: dict[str, Any], cache: dict[str, Any]
) -> None:
    run(extractor_params(layers=ONE), cache_params())
    commit()
    ran.clear()
    run(extractor_params(**extractor), cache_params(**cache))
    assert all(layers == set(LAYERS) for layers in ran)


def test_nothing_is_taken_over_from_another_detector(place: Path, ran: list[set[str]]) -> None:
    run(extractor_params(layers=ONE), cache_params())
    commit()
    make_detector(place / "other.onnx", gain=2.0**-7)
    ran.clear()
    run(extractor_params(), cache_params(), "other.onnx")
    assert all(layers == set(LAYERS) for layers in ran)


def test_nothing_is_taken_over_from_other_images(place: Path, ran: list[set[str]]) -> None:
    run(extractor_params(layers=ONE), cache_params())
    commit()
    source = (place / "images").resolve()
    (place / "images").unlink()
    shutil.copytree(source, place / "images")
    first = next(iter(sorted((place / "images").iterdir())))
    cv2.imwrite(str(first), 255 - read_bgr(first))
    ran.clear()
    run(extractor_params(), cache_params())
    assert all(layers == set(LAYERS) for layers in ran)


@pytest.mark.parametrize("what", ["lock", "listing", "object"])
def test_what_dvc_no_longer_has_is_computed(place: Path, ran: list[set[str]], what: str) -> None:
    run(extractor_params(layers=ONE), cache_params())
    commit()
    objects = Path(".dvc/cache/files/md5")
    if what == "lock":
        Path("dvc.lock").unlink()
    elif what == "listing":
        next(objects.rglob("*.dir")).unlink()
    else:
        max((item for item in objects.rglob("*") if item.is_file()), key=lambda item: item.stat().st_size).unlink()
    ran.clear()
    run(extractor_params(), cache_params())
    assert all(layers == set(LAYERS) for layers in ran)


@pytest.mark.parametrize("first", ["layer_34", "layer_3"])
def test_a_changed_shard_in_the_cache_is_refused(place: Path, first: str) -> None:
    run(extractor_params(layers={first: LAYERS[first]}), cache_params())
    commit()
    objects = [item for item in Path(".dvc/cache/files/md5").rglob("*") if item.is_file()]
    shard = max(objects, key=lambda item: item.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[10] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(StoreDamagedError, match=r"was changed; .*delete the file|fails its checksum"):
        run(extractor_params(), cache_params())
    shard.unlink()
    run(extractor_params(), cache_params())


def test_killed_while_taking_over(place: Path, monkeypatch: pytest.MonkeyPatch, ran: list[set[str]]) -> None:
    """Between two arrays, and later between two shards: the settled choice holds."""
    cache = cache_params(views=["plain", "mirrored"])
    run(extractor_params(), cache)
    expected = tree(PATHS.store)
    shutil.rmtree(".work")
    run(extractor_params(), cache_params())
    commit()
    adopt, close = StoreWriter.adopt, OpenShard.close

    def die_at_the_second(self: StoreWriter, name: str, shards: Any, saturated: int) -> None:  # noqa: ANN401
        if name == "layer_3":
            raise KeyboardInterrupt
        adopt(self, name, shards, saturated)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "adopt", die_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            run(extractor_params(), cache)
    closed: list[OpenShard] = []

    def die_after_one(self: OpenShard) -> None:
        if closed:
            raise KeyboardInterrupt
        closed.append(self)
        close(self)

    with monkeypatch.context() as patch:
        patch.setattr(OpenShard, "close", die_after_one)
        with pytest.raises(KeyboardInterrupt):
            run(extractor_params(), cache)
    kept = shard_files(work_folder())
    Path("dvc.lock").unlink()
    ran.clear()
    run(extractor_params(), cache)
    assert all(layers == set(LAYERS) for layers in ran)
    assert tree(PATHS.store) == expected
    now = shard_files(work_folder())
    assert {name: now[name] for name in kept} == kept


def test_a_store_of_another_version_is_left_alone(place: Path) -> None:
    run(extractor_params(layers=ONE), cache_params())
    meta = json.loads((PATHS.store / "zarr.json").read_text())
    meta["attributes"]["version"] = 1
    file = PATHS.store / "zarr.json"
    file.unlink()
    file.write_text(json.dumps(meta))
    commit()
    assert previous_store("extract@train", PATHS.store, Path("old.zarr")) is None
