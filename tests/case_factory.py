"""ROIs to show, for tests: small pictures with one person, another beside it, and a head that errs in part of them."""

import numpy as np

from roiseg.classes import NON_TARGET, TARGET
from roiseg.evaluate.cases import RoiCase
from roiseg.evaluate.charts import draw_charts
from roiseg.evaluate.curves import Curves
from roiseg.evaluate.report import Report
from roiseg.evaluate.strata import CROWDEDNESS


def roi_case(annotation_id: int = 7, **changes: object) -> RoiCase:
    """An ROI of 40 x 30 pixels and 8 x 6 cells; `changes` replace its values."""
    labels = np.zeros((8, 6), dtype=np.uint8)
    labels[1:7, 1:4] = TARGET
    labels[3:7, 4:] = NON_TARGET
    predicted = labels.copy()
    predicted[5:7, 1:4] = 0
    rng = np.random.default_rng(annotation_id)
    values: dict[str, object] = {
        "image_id": 5,
        "annotation_id": annotation_id,
        "file_name": f"{annotation_id}.jpg",
        "box_image": np.array([10.0, 20.0, 40.0, 60.0]),
        "size": "medium",
        "crowdedness": "10_to_30",
        "truncated": False,
        "iou_target": 0.5,
        "iou_nontarget": float("nan"),
        "score": 0.9,
        "crop": rng.integers(0, 256, (40, 30, 3), dtype=np.uint8),
        "labels": labels,
        "predicted": predicted,
    }
    return RoiCase(**{**values, **changes})  # type: ignore[arg-type]


def some_curves() -> Curves:
    """Points for every chart."""
    recalls = [0.0, 0.5, 1.0]
    return Curves(
        pr=[{"curve": "oracle box, IoU 0.5", "recall": recall, "precision": 1 - recall} for recall in recalls],
        iou_histogram=[
            {"group": group, "stratum": f"{group}: {stratum}", "iou": (number + 0.5) / 20, "share": 0.05, "rois": 20}
            for group, stratum in (("size", "small"), ("size", "large"), ("crowdedness", "under_10"))
            for number in range(20)
        ],
        calibration=[
            {"low": 0.0, "high": 0.5, "probability": 0.2, "share": 0.1, "pixels": 40},
            {"low": 0.5, "high": 1.0, "probability": 0.9, "share": 0.8, "pixels": 60},
        ],
        breakdown=[
            {"group": "size", "stratum": "size: small", "figure": "iou_target_roi", "value": 0.4, "rois": 12},
            {"group": "size", "stratum": "size: large", "figure": "iou_target_roi", "value": 0.8, "rois": 8},
            {"group": "size", "stratum": "size: large", "figure": "iou_nontarget_roi", "value": 0.3, "rois": 8},
        ],
    )


def no_curves() -> Curves:
    """As of a split without ROIs."""
    return Curves([], [], [], [])


def full_report(cases: int = 24) -> Report:
    """A report with something in every part; two thirds of the ROIs are medium, every fourth is truncated."""
    figures = {
        "images": 12,
        "rois": 40,
        "miou_fg_roi": 0.6,
        "miou_fg_roi_low": 0.55,
        "miou_fg_roi_high": 0.65,
        "iou_target_roi": 0.75,
        "separation_accuracy": 0.7,
        "oracle_box_ap": 0.5,
        "oracle_box_ap_low": 0.45,
        "oracle_box_ap_high": 0.55,
        "oracle_box_ap50": 0.8,
        "detector_box_ap": 0.0,
        "whole_box_miou_fg_roi": 0.3,
        "ellipse_miou_fg_roi": 0.35,
        "never_class_2_miou_fg_roi": 0.4,
    }
    shown = [
        roi_case(
            1000 + number,
            size="small" if number % 3 == 0 else "medium",
            crowdedness=CROWDEDNESS[number % 4],
            truncated=number % 4 == 0,
            iou_target=round(1 - number / 40, 3),
        )
        for number in range(cases)
    ]
    rows: list[dict[str, object]] = [
        {"group": "size", "stratum": "small", "rois": 12, "images": 6, "iou_target_roi": 0.5, "iou_nontarget_roi": None},
        {"group": "crowdedness", "stratum": "under_10", "rois": 0, "images": 0, "iou_target_roi": None},
    ]
    overlay = np.full((200, 1900, 3), 90, dtype=np.uint8)
    confusion = np.array([[90, 5, 5], [1, 8, 1], [1, 1, 3]], dtype=np.int64)
    return Report("default", "best_model.pth, epoch 12", figures, rows, draw_charts(some_curves(), confusion), overlay, shown)


def empty_report() -> Report:
    """As of a split without ROIs."""
    charts = draw_charts(no_curves(), np.zeros((3, 3), dtype=np.int64))
    return Report("default", "best_model.pth, epoch 1", {"images": 0, "rois": 0}, [], charts, None, [])
