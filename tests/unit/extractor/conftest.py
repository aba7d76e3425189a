"""The folder that extraction is tried in."""

from pathlib import Path

import pytest
from data_factory import data_params, make_coco
from extraction_place import IMAGES, SHARD_BYTES
from onnx_factory import INPUT_HW, make_detector

from roiseg.cache import layout
from roiseg.prepare import prepare


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of 11 images of random sizes, and a detector."""
    folder = tmp_path_factory.mktemp("origin")
    annotations = make_coco(folder, IMAGES, seed=4)
    prepare(
        data_params(annotations, annotations), INPUT_HW, "stretch", folder / "annotations", folder / "index", folder / "objects"
    )
    make_detector(folder / "detector.onnx", detections=True)
    return folder


@pytest.fixture
def place(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with links to the data set, and small shards."""
    for name in ("images", "index", "detector.onnx"):
        (tmp_path / name).symlink_to(origin / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layout, "MIB", SHARD_BYTES)
    return tmp_path
