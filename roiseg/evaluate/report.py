"""The page that a person opens: one HTML file with figures, charts and pictures, which asks nobody for anything."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from roiseg.evaluate.cases import RoiCase
from roiseg.evaluate.charts import Chart, plain_name
from roiseg.evaluate.gallery import (
    CAPTIONS,
    CLASS_COLOURS,
    ERROR_COLOURS,
    PANEL_HW,
    TILE_WIDTH,
    draw_tile,
    encode_jpeg,
    error_shares,
)
from roiseg.evaluate.overlays import Picture
from roiseg.evaluate.strata import GROUPS
from roiseg.files import write_bytes

HEADLINE: Mapping[str, str] = {
    "miou_fg_roi": "mean IoU of target and other people",
    "iou_target_roi": "IoU of the target",
    "iou_nontarget_roi": "IoU of other people",
    "boundary_iou_crop": "IoU of the target's boundary band",
    "separation_accuracy": "pixels of touching people given to the right one",
    "miou_fg_dataset": "mean IoU, pixels of all ROIs summed",
    "oracle_box_ap": "mask AP in annotated boxes",
    "detection_rate_50": "ROIs with a target IoU of at least 0.5",
    "detection_rate_70": "ROIs with a target IoU of at least 0.7",
    "f1_target": "F1 of the target's pixels",
    "pixel_accuracy": "pixels with the right class",
    "target_ece": "calibration error of the target probability",
}
"""Figures of the first table, in order, with what they are; those that weren't measured are left out."""

BASELINES: Mapping[str, str] = {
    "whole_box": "whole box",
    "ellipse": "inscribed ellipse",
    "never_class_2": "class 2 never predicted",
}
"""Start of a baseline's keys among the figures, and its name."""

AP_LABELS: Mapping[str, str] = {
    "ap": "AP",
    "ap50": "AP at IoU 0.5",
    "ap75": "AP at IoU 0.75",
    "ap_small": "AP of small people",
    "ap_medium": "AP of medium people",
    "ap_large": "AP of large people",
    "ar_1": "AR with 1 result an image",
    "ar_10": "AR with 10 results an image",
    "ar": "AR with 100 results an image",
    "ar_small": "AR of small people",
    "ar_medium": "AR of medium people",
    "ar_large": "AR of large people",
    "boundary_ap": "boundary AP",
}
"""End of a key, and what it is; others are shown as they are called."""

BREAKDOWN: Mapping[str, str] = {
    "miou_fg_roi": "mean IoU",
    "iou_target_roi": "target IoU",
    "iou_nontarget_roi": "others' IoU",
    "f1_target": "target F1",
    "boundary_iou_crop": "boundary IoU",
    "detection_rate_50": "IoU of 0.5 or more",
}

QUALITY = 80
"""Of JPEG pictures."""


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        head: name of the head.
        checkpoint: what of it was evaluated, such as "best_model.pth, epoch 12".
        figures: the flat figures of the evaluation; `{name}_low` and `{name}_high` are bounds of an interval, keys that begin
            with one of `BASELINES` are of a baseline.
        breakdown: rows of `roiseg.evaluate.metrics.breakdown`.
        charts: see `draw_charts`.
        overlay: fixed validation images, annotated and predicted; None without any.
        cases: ROIs to show, in any order.
    """

    head: str
    checkpoint: str
    figures: Mapping[str, float]
    breakdown: Sequence[Mapping[str, object]]
    charts: Sequence[Chart]
    overlay: Picture | None
    cases: Iterable[RoiCase]


def write_report(path: Path, report: Report) -> None:
    """Write the page; the same bytes for the same report, a few MB at most."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("roiseg.evaluate"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    figures = report.figures
    cards = sorted((_card(case) for case in report.cases), key=lambda card: (card["iou"], card["annotation_id"]))
    page = environment.get_template("report.html").render(
        head=report.head,
        checkpoint=report.checkpoint,
        images=round(figures.get("images", 0)),
        rois=round(figures.get("rois", 0)),
        headline=headline(figures),
        baselines=list(BASELINES.values()),
        ap=ap_rows(figures),
        has_detector=any(name.startswith("detector_box_") for name in figures),
        breakdown=_breakdown(report.breakdown),
        breakdown_labels=list(BREAKDOWN.values()),
        charts=[
            {
                "name": chart.name,
                "title": chart.title,
                "description": chart.description,
                "missing": chart.missing,
                "svg": chart.svg(),
            }
            for chart in report.charts
        ],
        overlay=None if report.overlay is None else _shown(report.overlay),
        captions=CAPTIONS,
        legend=[(_hex(colour), text) for colour, text in (*CLASS_COLOURS.values(), *ERROR_COLOURS.values())],
        filters=[(group, [(name, plain_name(name)) for name in names]) for group, names in GROUPS.items()],
        tile_hw=(PANEL_HW[0], TILE_WIDTH),
        cases=cards,
    )
    write_bytes(path, page.encode())


def headline(figures: Mapping[str, float]) -> list[dict[str, object]]:
    """Rows of the first table: `name`, `label`, `value`, `interval` or None, and `baselines`, None where one has no such figure."""
    if not figures.get("rois"):
        return []
    return [
        {
            "name": name,
            "label": label,
            "value": figures[name],
            "interval": (figures[f"{name}_low"], figures[f"{name}_high"]) if f"{name}_low" in figures else None,
            "baselines": [figures.get(f"{baseline}_{name}") for baseline in BASELINES],
        }
        for name, label in HEADLINE.items()
        if name in figures
    ]


def ap_rows(figures: Mapping[str, float]) -> list[dict[str, object]]:
    """Rows of the table of COCO figures: `label`, and `oracle` and `detector`, None where there is no such figure."""
    ends = [
        name.removeprefix(start)
        for start in ("oracle_box_", "detector_box_")
        for name in figures
        if name.startswith(start) and not name.endswith(("_low", "_high"))
    ]
    order = [name for name in AP_LABELS if name in ends]
    return [
        {
            "label": AP_LABELS.get(name, name.replace("_", " ").upper()),
            "oracle": figures.get(f"oracle_box_{name}"),
            "detector": figures.get(f"detector_box_{name}"),
        }
        for name in dict.fromkeys([*order, *ends])
    ]


def _breakdown(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    group = None
    for row in rows:
        values = [row.get(name) for name in BREAKDOWN]
        found.append(
            {
                "stratum": plain_name(str(row["stratum"])),
                "rois": row["rois"],
                "images": row["images"],
                "first": group not in (None, row["group"]),
                "values": [value if isinstance(value, float) and not np.isnan(value) else None for value in values],
            }
        )
        group = row["group"]
    return found


def _card(case: RoiCase) -> dict[str, object]:
    x0, y0, x1, y1 = case.box_image.tolist()
    shares = ", ".join(f"{share:.0%} {name}" for name, share in error_shares(case).items())
    truncation = GROUPS["truncation"][int(case.truncated)]
    return {
        "annotation_id": case.annotation_id,
        "image_id": case.image_id,
        "file_name": case.file_name,
        "box": f"{x1 - x0:.0f} x {y1 - y0:.0f} px at {x0:.0f}, {y0:.0f}",
        "kind": f"{case.size}, {plain_name(case.crowdedness)}, {truncation}",
        "size": case.size,
        "crowdedness": case.crowdedness,
        "truncation": truncation,
        "iou": case.iou_target,
        "iou_others": None if np.isnan(case.iou_nontarget) else case.iou_nontarget,
        "score": case.score,
        "source": _shown(draw_tile(case))["source"],
        "alt": f"Annotation {case.annotation_id}: {', '.join(CAPTIONS)}. Of the ROI: {shares or 'nothing wrong'}.",
    }


def _shown(picture: Picture) -> dict[str, object]:
    """A picture as an element of a page wants it: data URI and size."""
    data = base64.b64encode(encode_jpeg(picture, QUALITY)).decode()
    return {"source": f"data:image/jpeg;base64,{data}", "height": picture.shape[0], "width": picture.shape[1]}


def _hex(colour: tuple[int, int, int]) -> str:
    blue, green, red = colour
    return f"#{red:02x}{green:02x}{blue:02x}"
