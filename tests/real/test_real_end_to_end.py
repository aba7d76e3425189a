"""One file from real images to masks with a real YOLOv9-N, where they lie beside the checkout."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from end_to_end_factory import StepByStep, head, metadata
from numpy.typing import NDArray
from onnx_factory import read_bgr

from roiseg.export.end_to_end import BoxSource, EndToEnd, export_end_to_end
from roiseg.export.end_to_end_parity import end_to_end_parity
from roiseg.extractor.graph import cut, load_graph
from roiseg.extractor.params import DetectionParams
from roiseg.geometry import xywh_to_xyxy
from roiseg.network_input import InputRule, Pixels
from roiseg.types import HW, FeatureSpec

REAL = Path(__file__).parents[2].parent / "shared" / "real"

pytestmark = [pytest.mark.real, pytest.mark.skipif(not REAL.is_dir(), reason="../shared/real isn't there")]

INPUT_HW: HW = (480, 640)
SPECS = {"layer_14": FeatureSpec("layer_14", 80, (8.0, 8.0)), "layer_2": FeatureSpec("layer_2", 32, (4.0, 4.0))}
DETECTIONS = DetectionParams(output="batchno_classid_score_x1y1x2y2", person_class=0, min_score=0.25)
IMAGES = 12


@pytest.fixture(scope="module")
def parts() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A head without training, and the detector cut to two layers."""
    source = next((REAL / "extractor").glob("*.onnx"))
    layers = {name: f"/model.{name.removeprefix('layer_')}/Concat_output_0" for name in SPECS}
    return head(tuple(SPECS), SPECS, INPUT_HW), cut(load_graph(source), layers, INPUT_HW, "float16", DETECTIONS, source.name)


@pytest.fixture(scope="module")
def images() -> tuple[list[Pixels], list[NDArray[np.float64]]]:
    """Images with people, and their boxes."""
    document = json.loads((REAL / "annotations" / "instances_val.json").read_text())
    people: dict[int, list[list[float]]] = {}
    for item in document["annotations"]:
        if item["category_id"] == 1 and not item["iscrowd"]:
            people.setdefault(item["image_id"], []).append(item["bbox"])
    chosen = [item for item in document["images"] if item["id"] in people][:IMAGES]
    pixels = [read_bgr(REAL / "images" / "val" / item["file_name"]) for item in chosen]
    return pixels, [xywh_to_xyxy(np.array(people[item["id"]])) for item in chosen]


@pytest.mark.parametrize(("boxes", "resize"), [("boxes", "stretch"), ("detector", "letterbox")])
def test_masks_are_those_of_the_single_steps(
    tmp_path: Path,
    parts: tuple[onnx.ModelProto, onnx.ModelProto],
    images: tuple[list[Pixels], list[NDArray[np.float64]]],
    boxes: BoxSource,
    resize: str,
) -> None:
    rule = {"hw": list(INPUT_HW), "resize": resize, "color": "bgr", "pixel_max": 255.0}
    described = metadata(tuple(SPECS), input=rule, roi_padding=0.1, detections=DETECTIONS.model_dump())
    path = tmp_path / "end_to_end.onnx"
    export_end_to_end(*parts, described, EndToEnd(boxes, preprocess=True), path)
    assert end_to_end_parity(path, StepByStep(*parts, described), InputRule.from_plain(rule), *images) <= 1e-4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = {"images": images[0][0][None]}
    if boxes == "boxes":
        feeds["boxes"] = np.concatenate([np.zeros((len(images[1][0]), 1)), images[1][0]], axis=1).astype(np.float32)
    assert session.run(["masks"], feeds)[0].any(), "nobody's masks prove nothing"
