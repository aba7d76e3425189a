"""The whole DAG on real COCO images and a real YOLOv9-N, where they lie beside the checkout."""

import json
from pathlib import Path

import pandas as pd
import pytest
from dvc_project import ROOT, Project, assert_sane, make_project
from pycocotools import mask as coco_mask

REAL = ROOT.parent / "shared" / "real"

pytestmark = [
    pytest.mark.real,
    pytest.mark.pipeline,
    pytest.mark.thorough,
    pytest.mark.skipif(not REAL.is_dir(), reason="../shared/real isn't there"),
]

EPOCHS = 4
"""Enough to see that it learns; the preset's own take minutes."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("real")
    (root / "shared").symlink_to(REAL.parent)
    made = make_project(root / "project")
    (made.root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    made.run("python", "-m", "roiseg.cli", "preset", "apply", "real")
    made.set_params({"train": {"epochs": EPOCHS, "warmup_epochs": 0.5}})
    made.dvc("repro")
    return made


def figures(project: Project, name: str) -> dict[str, float]:
    return dict(json.loads((project.root / "metrics" / name).read_text()))


def test_the_counts_are_those_of_the_annotations(project: Project) -> None:
    counts = figures(project, "prepare.json")
    assert (counts["train_images_with_crowd"], counts["val_images_with_crowd"]) == (8, 7)
    assert (counts["train_rois"], counts["val_rois"]) == (279, 116)


def test_a_few_epochs_beat_the_whole_box(project: Project) -> None:
    found = figures(project, "evaluate/default.json")
    assert found["rois"] == 116
    assert found["iou_target_roi"] > 0.54
    assert found["oracle_box_ap50"] > 0.3
    assert found["iou_target_roi_low"] > found["whole_box_iou_target_roi"]
    assert_sane(found)


def test_masks_in_detected_boxes_are_scored(project: Project) -> None:
    found = figures(project, "evaluate/default.json")
    assert found["detector_boxes"] > 50
    assert 0.1 < found["detector_box_ap"] < found["oracle_box_ap"]
    assert found["detector_box_ap"] > found["whole_box_detector_box_ap"]
    results = json.loads((project.root / "data/predictions/default.detector.json").read_text())
    assert 50 < len(results) <= found["detector_boxes"]
    curves = pd.read_csv(project.root / "metrics/curves/default/pr.csv")["curve"].str.split(", ").str[0]
    assert set(curves) == {"annotated boxes", "detected boxes"}


def test_the_page_has_every_section(project: Project) -> None:
    page = (project.root / "reports/default.html").read_text()
    assert "COCO AP of masks" in page
    assert page.count("<svg") == 8
    assert "data:image/jpeg" in page


def test_the_detectors_own_boxes_are_kept(project: Project) -> None:
    boxes = pd.read_parquet(project.root / "data/detections/val.parquet")
    assert boxes["image_id"].nunique() > 30
    assert boxes[["x0", "y0", "x1", "y1", "score"]].to_numpy().min() >= 0
    assert boxes[["x0", "y0", "x1", "y1", "score"]].to_numpy().max() <= 1


def test_every_exported_file_says_what_was_trained(project: Project) -> None:
    folder = project.root / "models/onnx/default"
    names = {"head.onnx", "head.fp16.onnx", "head.int8.onnx", "backbone.onnx", "end_to_end.onnx", "end_to_end_detector.onnx"}
    assert {path.name for path in folder.iterdir()} == names | {"head.json"}
    found = figures(project, "export/default.json")
    assert found["parity_max_abs"] < 1e-3
    assert found["parity_miou_difference"] < 1e-3
    assert found["end_to_end_differing_share"] < 1e-4
    for name, size, loss in (("fp16", 0.53, 0.005), ("int8", 0.3, 0.015)):
        assert found[f"{name}_size_ratio"] <= size, name
        assert found[f"{name}_miou_fg_roi_loss"] <= loss, name


def test_prediction_writes_a_full_size_mask_that_lies_on_the_person(project: Project) -> None:
    annotations = REAL / "annotations/instances_val.json"
    project.run("roiseg", "predict", "../shared/real/images/val/000000010764.jpg", "--boxes", str(annotations))
    (result,) = json.loads((project.root / "predictions/predictions.json").read_text())
    assert Path(result["file_name"]).name == "000000010764.jpg"
    document = json.loads(annotations.read_text())
    (image,) = [item for item in document["images"] if item["file_name"] == "000000010764.jpg"]
    (person,) = [item for item in document["annotations"] if item["image_id"] == image["id"] and item["category_id"] == 1]
    truth = coco_mask.merge(coco_mask.frPyObjects(person["segmentation"], image["height"], image["width"]))
    assert result["segmentation"]["size"] == truth["size"]
    assert coco_mask.iou([result["segmentation"]], [truth], [0]).item() > 0.55, "the whole box has 0.49"
    assert (project.root / "predictions/overlays/000000010764.jpg").is_file()
