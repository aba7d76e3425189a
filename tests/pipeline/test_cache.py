"""`roiseg cache`: what a finished store says of itself, and what it says once somebody has changed it."""

import shutil
from pathlib import Path

import cv2
import pytest
from dvc_project import Project

pytestmark = pytest.mark.pipeline


@pytest.fixture
def copy(finished: Project, tmp_path: Path) -> Project:
    shutil.copytree(finished.root, tmp_path / "project", symlinks=True, ignore=shutil.ignore_patterns("cache", "tmp"))
    return Project(tmp_path / "project")


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 4
    file.unlink()  # it may be a link into DVC's cache
    file.write_bytes(bytes(data))


def test_info_and_verify(finished: Project) -> None:
    said = finished.run("roiseg", "cache", "info", "val")
    assert "val.zarr: 7 images" in said
    assert "layer_34: 64 x 32 x 40 int8, stride 8, " in said
    assert "asked dtype: int8" in said
    said = finished.run("roiseg", "cache", "verify", "val", "--images", "5")
    assert "shards as they were written" in said
    assert "layer_34: 5 images computed anew: largest difference 0, RMS 0 steps (at most 1 step)" in said


def test_bench(finished: Project) -> None:
    said = finished.run("roiseg", "cache", "bench", "val", "--images", "3")
    assert "val.zarr: 3 images in random order" in said
    assert said.count("GB/s") == 1 + 4 * 5, "four forms of each of five layers, and a line of what they are"
    assert not list((finished.root / ".work").glob("tmp*"))


def test_a_flipped_bit_is_found_by_verify_and_by_training(copy: Project) -> None:
    shard = copy.root / "data/features/train.zarr/layer_34/c.0.0.0.0"
    flip(shard, 5000)
    said = copy.run("roiseg", "cache", "verify", "train", "--images", "0", ok=False)
    assert "StoreDamagedError" in said
    assert "1 shards were changed: data/features/train.zarr/layer_34/c.0.0.0.0; restore the store with `dvc checkout`" in said
    said = copy.run("python", "-m", "stages.train", "default", ok=False)
    assert "fails its checksum; restore it with `dvc checkout` or `dvc pull`" in said


def test_other_images_are_found_by_verify(copy: Project) -> None:
    for file in (copy.root / "data/sample/images/val").iterdir():
        pixels = cv2.imread(str(file))
        assert pixels is not None
        file.unlink()
        cv2.imwrite(str(file), 255 - pixels)
    said = copy.run("roiseg", "cache", "verify", "val", ok=False)
    assert "differ from what the detector gives now by more than the tolerance" in said
