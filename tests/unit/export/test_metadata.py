"""Tests of roiseg.export.metadata: what is said of a head, and where it comes from."""

import json
from dataclasses import replace

import numpy as np
import pytest
from export_factory import Exported, shared_export
from store_factory import TENSORS

from roiseg.export.metadata import Learnt, head_metadata
from roiseg.extractor.params import DetectionParams
from roiseg.files import sha256_file, sha256_json
from roiseg.types import FeatureSpec

SPECS = [FeatureSpec("layer_34", 6, (8.0, 8.0)), FeatureSpec("image", 3, (1.0, 1.0))]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return shared_export(tmp_path_factory)


def test_all_that_a_user_must_know(exported: Exported) -> None:
    sections = exported.project.sections(roi_padding=0.1)
    detections = DetectionParams(output="found", person_class=2, min_score=0.25)
    sections = replace(sections, extractor=sections.extractor.model_copy(update={"detections": detections}))
    scales = {"image": np.full(3, 0.5, np.float32), "layer_3": np.ones(4, np.float32)}
    learnt = Learnt.of(exported.inputs.checkpoint, exported.inputs.file)
    found = head_metadata(sections, SPECS, scales, learnt, exported.project.backbone)
    assert json.loads(json.dumps(found)) == found, "plain values only"
    assert found["classes"] == ["background", "target", "non_target"]
    assert found["layers"] == {
        "layer_34": {"channels": 6, "stride_hw": [8.0, 8.0]},
        "image": {"channels": 3, "stride_hw": [1.0, 1.0]},
    }
    assert found["tensors"] == {"layer_34": TENSORS["layer_34"]}
    assert found["scales"] == {"image": [0.5, 0.5, 0.5]}, "of layers that the head reads"
    assert found["input"] == {"hw": [64, 96], "resize": "stretch", "color": "rgb", "pixel_max": 1.0}
    assert found["detections"] == {"output": "found", "person_class": 2, "min_score": 0.25}
    assert (found["dtype"], found["roi_padding"], found["mask_hw"]) == ("float16", 0.1, [12, 10])
    assert (found["epoch"], found["metrics"]) == (3, {"miou_fg_roi": 0.5})
    assert found["params"]["model"]["head"] == "roi_crop"
    assert found["fingerprints"] == {
        "backbone_sha256": sha256_file(exported.project.backbone),
        "checkpoint_sha256": sha256_file(exported.inputs.file),
        "store_sha256": sha256_json(exported.inputs.checkpoint.fingerprint),
    }


def test_conventions_are_spelled_out(exported: Exported) -> None:
    learnt = Learnt.nothing({"model": {}})
    found = head_metadata(exported.project.sections(), SPECS[:1], {}, learnt, exported.project.backbone)
    assert set(found["frames"]) == {"unit", "network", "image"}
    assert "aligned=True" in found["convention"]["align"]
    assert "x0, y0, x1, y1" in found["convention"]["boxes"]
    assert "grey 114" in found["preprocessing"]
    assert found["detections"] is None
    assert found["fingerprints"]["checkpoint_sha256"] is None
