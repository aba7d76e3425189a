"""Tests of roiseg.unet.teacher: what is stored is what the net says, of the same rows, and of no other net."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from net_factory import link_project, narrow_encoders, shared_teacher, stored_sections, teacher_net, unet_section
from numpy.typing import NDArray
from onnx import numpy_helper
from store_factory import Project

from roiseg.cache import layout
from roiseg.cache.joined import JoinedStore
from roiseg.cache.reader import FeatureStore
from roiseg.errors import GraphError, StoreDamagedError, StoreError, StoreMismatchError
from roiseg.export.net_onnx import LOGIT_LIMIT
from roiseg.extractor.inputs import ImageFile
from roiseg.extractor.session import Backbone
from roiseg.files import write_bytes
from roiseg.onnx_names import BACKBONE_FILE
from roiseg.types import IMAGE, MIRRORED, PLAIN, TEACHER
from roiseg.unet.teacher import STORES, StoredImages, write_teacher
from roiseg.unet.train import open_people
from roiseg.work import WORK

FILE = Path(BACKBONE_FILE)
TRAIN = STORES / "train.zarr"


@pytest.fixture(autouse=True, scope="module")
def narrow() -> Iterator[None]:
    with narrow_encoders():
        yield


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Path]:
    return shared_teacher(tmp_path_factory)


@pytest.fixture
def place(taught: tuple[Project, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with features and a net, and no store of its logits yet."""
    project, net = taught
    link_project(tmp_path, project)
    shutil.copyfile(net / BACKBONE_FILE, tmp_path / BACKBONE_FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def features(split: str = "train") -> FeatureStore:
    return FeatureStore(Path("data/features") / f"{split}.zarr")


def images_of(store: FeatureStore) -> NDArray[np.uint8]:
    """(N, 3, H, W)."""
    return np.stack([store.read(row, [IMAGE])[IMAGE] for row in range(len(store))])


def tree(folder: Path) -> dict[str, str]:
    files = sorted(item for item in folder.rglob("*") if item.is_file())
    return {item.relative_to(folder).as_posix(): hashlib.sha256(item.read_bytes()).hexdigest() for item in files}


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_store_holds_the_net_s_logits(taught: tuple[Project, Path], place: Path, split: str) -> None:
    """Of both views, row by row: torch's, on the cached image, in float16."""
    _, root = taught
    found, source, net = FeatureStore(root / STORES / f"{split}.zarr"), features(split), teacher_net()
    assert found.image_ids.tolist() == source.image_ids.tolist()
    assert found.views == source.views == (PLAIN, MIRRORED)
    assert dict(found.shapes) == {TEACHER: (1, 64, 64)}
    assert found.dtypes[TEACHER] == np.float16
    images = images_of(source).astype(np.float32) / 255
    for view in found.views:
        seen = images if view == PLAIN else images[..., ::-1].copy()
        with torch.no_grad():
            logits = net(torch.from_numpy(seen)).numpy()
        for row in range(len(found)):
            stored = found.read(row, [TEACHER], view)[TEACHER]
            np.testing.assert_allclose(stored, logits[row], rtol=2**-10, atol=2e-3)
    assert np.ptp(logits) > 0.5, "or it would say little"


def change_net(factor: float) -> None:
    """Another net in the file: all its logits times a number."""
    model = onnx.load(FILE)
    weight = next(item for item in model.graph.initializer if item.name.endswith("segmentation_head.0.weight"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), weight.name))
    write_bytes(FILE, model.SerializeToString(deterministic=True))


def test_logits_are_clipped(place: Path) -> None:
    """Those of a net that is very sure would overflow float16, which the store refuses."""
    change_net(1e7)
    write_teacher("val", FILE, stored_sections())
    found = FeatureStore(STORES / "val.zarr")
    logits = np.stack([found.read(row, [TEACHER])[TEACHER] for row in range(len(found))])
    assert np.abs(logits).max() == LOGIT_LIMIT
    assert (np.abs(logits) == LOGIT_LIMIT).mean() > 0.5
    assert np.isfinite(logits).all()


def test_another_checkpoint_is_another_store(place: Path) -> None:
    write_teacher("val", FILE, stored_sections())
    first = FeatureStore(STORES / "val.zarr")
    asked, values = first.asked, first.read(0, [TEACHER])[TEACHER]
    change_net(-1.0)
    write_teacher("val", FILE, stored_sections())
    second = FeatureStore(STORES / "val.zarr")
    assert {key for key in asked | second.asked if asked.get(key) != second.asked.get(key)} == {"graph"}
    assert first.origins != second.origins
    np.testing.assert_allclose(second.read(0, [TEACHER])[TEACHER], -values, atol=1e-3)
    assert len(list(WORK.glob("teacher-val-*"))) == 2


def test_other_images_are_another_store(place: Path) -> None:
    """The fingerprint follows that of the images that the net saw."""
    write_teacher("val", FILE, stored_sections())
    write_teacher("train", FILE, stored_sections())
    train, val = (FeatureStore(STORES / f"{split}.zarr") for split in ("train", "val"))
    assert train.asked["images"] == features("train").asked["images"] != val.asked["images"]


@pytest.mark.parametrize("runs", [2, 5])
def test_a_killed_run_goes_on(taught: tuple[Project, Path], place: Path, monkeypatch: pytest.MonkeyPatch, runs: int) -> None:
    """Shards that are there stay as they are; in the end every byte is that of a run that nobody killed."""
    monkeypatch.setattr(layout, "MIB", 2 * 2 * 64 * 64)  # two images
    write_teacher("train", FILE, stored_sections())
    whole = tree(TRAIN)
    shutil.rmtree(STORES)
    shutil.rmtree(WORK)
    left, run_into = [runs], Backbone.run_into

    def killed(self: Backbone, *args: object, **kwargs: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return run_into(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "run_into", killed)
        with pytest.raises(KeyboardInterrupt):
            write_teacher("train", FILE, stored_sections())
    assert not TRAIN.exists()
    left[0] = 100
    monkeypatch.setattr(Backbone, "run_into", killed)
    write_teacher("train", FILE, stored_sections())
    assert tree(TRAIN) == whole
    passes = 2 * len(features())
    assert 100 - left[0] <= passes


def test_a_damaged_shard_is_an_error(place: Path) -> None:
    write_teacher("train", FILE, stored_sections())
    shard = next(item for item in sorted((TRAIN / TEACHER).rglob("*")) if item.is_file() and item.name != "zarr.json")
    held = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(held[: len(held) // 2])
    with pytest.raises(
        StoreDamagedError, match=rf"train\.zarr/{TEACHER}/.*: has {len(held) // 2} bytes, expected {len(held)} bytes; r"
    ):
        open_people(stored_sections(), "train", [TEACHER], unet_section().model, teacher=True)
    shard.write_bytes(bytes([held[0] ^ 255]) + held[1:-1] + bytes([held[-1] ^ 255]))
    with pytest.raises(StoreDamagedError, match=r"train\.zarr.*restore"):
        read_all()


def read_all() -> None:
    store = FeatureStore(TRAIN)
    for row in range(len(store)):
        store.read(row, [TEACHER])


def test_a_store_of_other_images_is_refused(place: Path) -> None:
    write_teacher("val", FILE, stored_sections())
    with pytest.raises(
        StoreMismatchError, match=r"val\.zarr: lacks \d of the 5 images of data/features/train\.zarr, the first with id"
    ):
        JoinedStore(features("train"), FeatureStore(STORES / "val.zarr"))


def test_without_features_or_net(place: Path) -> None:
    with pytest.raises(GraphError, match=r"gone\.onnx: no such file, whose logits are to be stored; run `dvc repro unet`"):
        write_teacher("val", Path("gone.onnx"), stored_sections())
    with pytest.raises(StoreError, match=r"data/features/test\.zarr: no feature store there .*run `dvc repro extract`"):
        write_teacher("test", FILE, stored_sections())
    assert not STORES.exists()


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_stored_images(place: Path, color: str) -> None:
    """As the net's graph takes them, for a detector of either order."""
    store = features()
    source = StoredImages(store, color)
    for row in (0, 3):
        found = source.load(ImageFile(row, int(store.image_ids[row]), Path("nowhere.jpg"), (1, 1)))
        image = store.read(row, [IMAGE])[IMAGE]
        np.testing.assert_array_equal(found, image if color == "rgb" else image[::-1])
        assert found.flags.c_contiguous
        assert found.dtype == np.uint8
    assert source.digest([], 1) == store.asked["images"]
