"""The `snapper_evaluate` stage: a trained snapper to figures beside those of its baselines, curves, pictures and a calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from roiseg.batches import Loading
from roiseg.cache.params import ReaderParams
from roiseg.evaluate.overlays import Picture, write_png
from roiseg.evaluate.pictures import Indexed, load_fixed
from roiseg.files import new_folder, write_bytes, write_json, write_parquet
from roiseg.geometry import paired_box_iou
from roiseg.index import Index
from roiseg.previews import PREVIEWS_FILE, Previews
from roiseg.progress import progress
from roiseg.snapper.baselines import baseline_boxes
from roiseg.snapper.calibration import fit_results, save_calibration
from roiseg.snapper.data import SnapDataset
from roiseg.snapper.gains import gains
from roiseg.snapper.infer import snap_results
from roiseg.snapper.metrics import box_figures, exact_mean, snap_figures, within
from roiseg.snapper.params import ConfidenceParams, DecisionParams
from roiseg.snapper.reliability import Judged, Row, confidence_figures, error_by_confidence_rows, reliability_rows
from roiseg.snapper.results import SnapResults
from roiseg.snapper.sheets import Shown, choose, draw_images, draw_sheet
from roiseg.snapper.windows import EDGES
from roiseg.trained import INDEX

IMAGES_PER_BATCH = 4
"""Images that are in memory together; no figure depends on it."""

DIGITS = 6
"""Decimals of a figure in a file."""

FARTHEST_PX = 20
"""Where the curve of deviances ends."""

COLUMNS: Mapping[str, Sequence[str]] = {
    "deviance": ("curve", "px", "share"),
    "edges": ("stratum", "figure", "value"),
    "reliability": ("low", "high", "confidence", "share", "edge_px_mean", "edges"),
    "reliability_peak": ("low", "high", "confidence", "share", "edge_px_mean", "edges"),
    "error_by_confidence": ("kept", "edges", "confidence", "edge_px_mean", "edge_crop_px_mean", "share_within_3px", "right"),
}
"""Table of a curve -> its columns; the tables are files of `SnapEvaluatePaths.curves`."""


@dataclass(frozen=True)
class SnapEvaluatePaths:
    """Files of the stage.

    Attributes:
        index: folder of the validation split's tables, previews and fixed pictures; None: nothing is drawn.
        figures: out, JSON.
        plots: out, folder of pictures.
        curves: out, folder of tables that DVC draws.
        table: out, a row for each box.
        calibration: out, JSON, see `save_calibration`.
    """

    index: Path | None = INDEX / "val"
    figures: Path = Path("metrics/evaluate/snapper.json")
    plots: Path = Path("metrics/plots/snapper")
    curves: Path = Path("metrics/curves/snapper")
    table: Path = Path("data/predictions/snapper.parquet")
    calibration: Path = Path("data/snapper/calibration.json")


def evaluate_snapper(
    module: nn.Module,
    dataset: SnapDataset,
    decision: DecisionParams,
    confidence: ConfidenceParams,
    reader: ReaderParams,
    paths: SnapEvaluatePaths,
    *,
    device: torch.device,
) -> dict[str, Any]:
    """Score a snapper on a split and write all reports.

    Args:
        module: with trained weights, in eval mode.
        dataset: the split.
        decision: sub-section `snapper.decision`.
        confidence: sub-section `snapper.confidence`.
        reader: section `reader`.
        paths: inputs and outs.
        device: where the model runs.

    Returns:
        The figures that were written, see `all_figures`.

    Raises:
        PredictionError: the model answers with NaN or infinities.
        MissingImageError, ImageReadError: previews that aren't there or can't be read.
    """
    module.to(device)
    loading = Loading(IMAGES_PER_BATCH, reader.load_threads, reader.ahead)
    parts = []
    with progress("snapper_evaluate", len(dataset.rows)) as tick:
        for part in snap_results(module, dataset, decision, device, loading):
            parts.append(part)
            tick(len(np.unique(part.rows)))
    results = SnapResults.together(parts)
    return report(results, dataset, confidence, paths)


def report(results: SnapResults, split: Indexed, confidence: ConfidenceParams, paths: SnapEvaluatePaths) -> dict[str, Any]:
    """Write everything that follows from results.

    Args:
        results: of a whole split.
        split: knows its index.
        confidence: sub-section `snapper.confidence`.
        paths: inputs and outs.

    Returns:
        The figures that were written.
    """
    judged = Judged.of(results, confidence.tolerance)
    figures = all_figures(results, judged, confidence)
    save_calibration(paths.calibration, fit_results(results, confidence.tolerance), confidence.tolerance)
    write_parquet(paths.table, box_table(results, judged, split.index))
    write_curves(paths.curves, all_curves(results, judged))
    shown = Shown(results, judged.confidence, confidence.review_below)
    with new_folder(paths.plots) as folder:
        if paths.index is not None:
            draw_all(folder, shown, split, paths.index)
    write_json(paths.figures, _rounded(figures))
    return figures


def all_figures(results: SnapResults, judged: Judged, confidence: ConfidenceParams) -> dict[str, Any]:
    """Everything that is told of results: the model's figures flat, the rest below a name each.

    * `boxes`, `images`: what it was measured on.
    * `mean_iou` and the like: see `roiseg.snapper.metrics`; the same in `rough`, `whole_crop` and `clipped_oracle`.
    * `over_rough`: see `gains`.
    * `confidence`: see `confidence_figures`.
    """
    return {
        "boxes": len(results),
        "images": len(np.unique(results.rows)),
        **snap_figures(results),
        "over_rough": gains(results),
        "confidence": confidence_figures(results, judged, confidence),
        **{name: box_figures(results, boxes) for name, boxes in baseline_boxes(results).items()},
    }


def _rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _rounded(value) if isinstance(value, Mapping) else round(value, DIGITS) if isinstance(value, float) else value
        for name, value in figures.items()
    }


def box_table(results: SnapResults, judged: Judged, index: Index) -> pd.DataFrame:
    """A row for each box: `row, image_id, annotation_id, iou_rough, iou`.

    Then xyxy of `truth`, `rough`, `window` and `snapped` in the image frame, and `confidence`, `peak`, `entropy` and `error_px` of
    each edge.
    """
    table: dict[str, Any] = {
        "row": results.rows,
        "image_id": index.image_ids[results.rows],
        "annotation_id": results.annotation_ids,
        "iou_rough": paired_box_iou(results.rough, results.truth),
        "iou": paired_box_iou(results.snapped, results.truth),
    }
    boxes = {"truth": results.truth, "rough": results.rough, "window": results.windows, "snapped": results.snapped}
    table |= {
        f"{name}_{end}": values[:, place] for name, values in boxes.items() for place, end in enumerate(("x0", "y0", "x1", "y1"))
    }
    edges = {"confidence": judged.confidence, "peak": results.peak, "entropy": results.entropy, "error_px": judged.error_px}
    table |= {f"{name}_{edge}": values[:, place] for name, values in edges.items() for place, edge in enumerate(EDGES)}
    return pd.DataFrame(table)


def all_curves(results: SnapResults, judged: Judged) -> dict[str, list[Row]]:
    """Rows of every table of `COLUMNS`."""
    boxes = {"rough": results.rough, "snapped": results.snapped, "clipped oracle": baseline_boxes(results)["clipped_oracle"]}
    deviance: list[Row] = []
    edges: list[Row] = []
    for name, values in boxes.items() if len(results) else ():
        off = np.abs(values - results.truth)
        deviance += [{"curve": name, "px": px, "share": exact_mean(within(off, px))} for px in range(FARTHEST_PX + 1)]
        edges += [
            {"stratum": f"{edge}, {name}", "figure": f"edge_share_within_{px}px", "value": exact_mean(within(off[:, place], px))}
            for px in (1, 3)
            for place, edge in enumerate(EDGES)
        ]
    return {
        "deviance": deviance,
        "edges": edges,
        "reliability": reliability_rows(judged.confidence, judged),
        "reliability_peak": reliability_rows(judged.peak, judged),
        "error_by_confidence": error_by_confidence_rows(judged),
    }


def write_curves(folder: Path, curves: Mapping[str, Sequence[Row]]) -> None:
    """A CSV for each table of `COLUMNS`; one without rows has its head."""
    with new_folder(folder) as aside:
        for name, columns in COLUMNS.items():
            table = pd.DataFrame(curves[name], columns=list(columns)).round(DIGITS)
            write_bytes(aside / f"{name}.csv", table.to_csv(index=False, lineterminator="\n").encode())


def draw_all(folder: Path, shown: Shown, split: Indexed, stored: Path) -> None:
    """Sheets of single boxes, and the fixed images with all their boxes.

    Args:
        folder: to write into: `best.png`, `worst.png`, `least_sure.png` and `validation.png`, as far as there is something to show.
        shown: what is drawn.
        split: knows its index.
        stored: folder of the index, with previews and fixed pictures.
    """
    previews = Previews(stored / PREVIEWS_FILE)

    def picture(row: int) -> tuple[int, Picture]:
        image_id = int(split.index.image_ids[row])
        return image_id, previews.picture(image_id)

    for name, places in choose(shown).items():
        if len(places):
            write_png(folder / f"{name}.png", draw_sheet(name, shown, places, picture))
    fixed = load_fixed(stored / "pictures", split)
    if fixed:
        write_png(folder / "validation.png", draw_images(fixed, shown))
