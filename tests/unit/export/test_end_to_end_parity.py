"""Tests of roiseg.export.end_to_end_parity: agreement of every kind of file, and what is said where there is none."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from end_to_end_factory import StepByStep, backbone, head, metadata, people, photo
from onnx import numpy_helper

from roiseg.errors import ParityError
from roiseg.export.end_to_end import EndToEnd, export_end_to_end
from roiseg.export.end_to_end_parity import end_to_end_parity
from roiseg.network_input import InputRule

IMAGES = [photo((75, 130), 1), photo((90, 61), 2)]
BOXES = [people((75, 130), 5, 1), people((90, 61), 3, 2)]
LAYERS = ("layer_34", "image")


@pytest.mark.parametrize("preprocess", [True, False], ids=["images", "network_images"])
@pytest.mark.parametrize("boxes", ["boxes", "detector"])
@pytest.mark.parametrize("batch", [None, 2], ids=["free", "two"])
def test_the_steps_agree(tmp_path: Path, boxes: str, batch: int | None, *, preprocess: bool) -> None:
    rule = InputRule((64, 96), "letterbox", "bgr", 1.0)
    parts = head(LAYERS), backbone(batch=batch), metadata(LAYERS, input=rule.plain(), roi_padding=0.1)
    path = tmp_path / "end.onnx"
    choice = EndToEnd("boxes" if boxes == "boxes" else "detector", preprocess=preprocess)
    export_end_to_end(*parts, choice, path)
    assert end_to_end_parity(path, StepByStep(*parts), rule, IMAGES, BOXES) == 0


def test_no_images(tmp_path: Path) -> None:
    parts = head(), backbone(), metadata()
    export_end_to_end(*parts, EndToEnd("boxes", preprocess=True), tmp_path / "end.onnx")
    rule = InputRule.from_plain(metadata()["input"])
    assert end_to_end_parity(tmp_path / "end.onnx", StepByStep(*parts), rule, [], []) == 0


def test_another_head_is_found(tmp_path: Path) -> None:
    """Its share is that of pixels of the image, not of all masks."""
    parts = head(), backbone(), metadata()
    other = onnx.ModelProto()
    other.CopyFrom(parts[0])
    weight = next(item for item in other.graph.initializer if len(item.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.3), weight.name))
    export_end_to_end(other, *parts[1:], EndToEnd("boxes", preprocess=True), tmp_path / "end.onnx")
    rule = InputRule.from_plain(metadata()["input"])
    with pytest.raises(ParityError, match=r"end\.onnx: 0\.\d+ of the pixels of 2 images differ .* expected at most 0\.0001; is"):
        end_to_end_parity(tmp_path / "end.onnx", StepByStep(*parts), rule, IMAGES, BOXES)


def test_other_people_are_found(tmp_path: Path) -> None:
    parts = head(), backbone(), metadata()
    told = metadata(detections={"output": "found", "person_class": 0, "min_score": 0.75})
    export_end_to_end(*parts[:2], told, EndToEnd("detector", preprocess=True), tmp_path / "end.onnx")
    rule = InputRule.from_plain(metadata()["input"])
    with pytest.raises(ParityError, match=r"end\.onnx: finds 1 people in image 0, the single steps find 4; were they exported"):
        end_to_end_parity(tmp_path / "end.onnx", StepByStep(*parts), rule, IMAGES, BOXES)
