"""The `evaluate` stage: a trained head to figures, COCO results, plots, pictures and a page to open."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from roiseg.batches import Loading
from roiseg.cache.params import ReaderParams
from roiseg.coco import load_prepared
from roiseg.dataset import RoiDataset
from roiseg.evaluate.cases import RoiCase, choose_cases, load_cases
from roiseg.evaluate.charts import CONFUSIONS, draw_charts, write_charts
from roiseg.evaluate.class_maps import ClassMaps
from roiseg.evaluate.coco_truth import Truth
from roiseg.evaluate.curves import write_curves
from roiseg.evaluate.detections import RESULTS, load_detections
from roiseg.evaluate.evaluation import Evaluation
from roiseg.evaluate.gallery import draw_sheet
from roiseg.evaluate.infer import predictions
from roiseg.evaluate.metrics import breakdown
from roiseg.evaluate.overlays import Picture, write_png
from roiseg.evaluate.params import EvaluateParams
from roiseg.evaluate.pictures import LAYOUTS, draw_validation, load_fixed
from roiseg.evaluate.report import Report, write_report
from roiseg.evaluate.results import new_results
from roiseg.evaluate.table import RoiTable
from roiseg.files import new_folder, write_json
from roiseg.previews import PREVIEWS_FILE, Previews
from roiseg.progress import progress
from roiseg.trained import INDEX

DIGITS = 6
"""Decimals of a figure in a file."""


@dataclass(frozen=True)
class EvaluatePaths:
    """Files of the stage.

    Attributes:
        annotations: the person-only JSON of the images in use.
        detections: boxes of the same images, see `load_detections`.
        pictures: folder of the fixed validation images; None: they aren't drawn.
        previews: of the images; None: no ROI is shown.
        figures: out, flat JSON.
        plots: out, folder of pictures.
        curves: out, folder of tables that DVC draws.
        results: out, COCO results JSON from annotated boxes.
        detector_results: out, COCO results JSON from detected boxes.
        table: out, a row for each ROI.
        report: out, HTML.
    """

    annotations: Path
    detections: Path
    pictures: Path | None
    previews: Path | None
    figures: Path
    plots: Path
    curves: Path
    results: Path
    detector_results: Path
    table: Path
    report: Path

    @classmethod
    def of(cls, name: str, annotations: Path, detections: Path) -> "EvaluatePaths":
        """Where DVC keeps the files of a head.

        Args:
            name: of the head.
            annotations: see the class.
            detections: see the class.
        """
        return cls(
            annotations=annotations,
            detections=detections,
            pictures=INDEX / "val" / "pictures",
            previews=INDEX / "val" / PREVIEWS_FILE,
            figures=Path(f"metrics/evaluate/{name}.json"),
            plots=Path(f"metrics/plots/{name}"),
            curves=Path(f"metrics/curves/{name}"),
            results=Path(f"data/predictions/{name}.json"),
            detector_results=Path(f"data/predictions/{name}.detector.json"),
            table=Path(f"data/predictions/{name}.parquet"),
            report=Path(f"reports/{name}.html"),
        )


@dataclass(frozen=True)
class Trained:
    """A head and what a report calls it.

    Attributes:
        module: with trained weights, in eval mode.
        name: of the head.
        checkpoint: what of it this is, such as "best_model.pth, epoch 12".
    """

    module: torch.nn.Module
    name: str
    checkpoint: str


def evaluate(
    head: Trained,
    dataset: RoiDataset,
    params: EvaluateParams,
    reader: ReaderParams,
    paths: EvaluatePaths,
    *,
    device: torch.device,
) -> dict[str, float]:
    """Score a head on a split and write all reports.

    Args:
        head: to score.
        dataset: the split.
        params: section `evaluate`.
        reader: section `reader`.
        paths: inputs and outs.
        device: where the head runs.

    Returns:
        The flat figures that were written.

    Raises:
        PredictionError: the head answers with NaN or infinities.
        ResultsError: detections that can't be used, or of other images.
        PackageError: `evaluate.boundary_ap` without the extra that it needs.
        MissingImageError, ImageReadError: previews that aren't there or can't be read.
    """
    head.module.to(device)
    truth = Truth(load_prepared(paths.annotations))
    detections = load_detections(paths.detections, dataset.index, truth.category_id)
    # What extract writes is as empty without a detector as with one that finds nobody anywhere.
    detector = len(detections) > 0 or paths.detections.suffix == RESULTS
    evaluation = Evaluation(dataset, truth, detections, detector=detector, boundary_ap=params.boundary_ap)
    loading = Loading(params.images_per_batch, reader.load_threads, reader.ahead)
    rows = evaluation.rows
    with ClassMaps(paths.table.parent, dataset.mask_hw) as maps:
        with (
            new_results(paths.results) as write_oracle,
            new_results(paths.detector_results) as write_detector,
            progress("evaluate", len(rows)) as tick,
        ):
            for prediction in predictions(head.module, dataset, device, loading, rows=rows, further=evaluation.further):
                evaluation.add(prediction, write_oracle, write_detector)
                maps.add(prediction.batch.targets.labels.numpy(), prediction.classes)
                tick(len(prediction.batch.rows))
        table = evaluation.table
        table.write(paths.table)
        cases = _cases(dataset, table, paths, maps)
    figures = evaluation.figures() | {f"detector_{name}": float(count) for name, count in detections.counts.items()}
    _show(head, dataset, table, cases, evaluation, figures, paths, device)
    write_json(paths.figures, {name: round(float(value), DIGITS) for name, value in figures.items()})
    return figures


def _cases(dataset: RoiDataset, table: RoiTable, paths: EvaluatePaths, maps: ClassMaps) -> dict[int, RoiCase]:
    """What is shown, by row of the table; nothing without previews."""
    if paths.previews is None:
        return {}
    positions = choose_cases(table).positions
    found = load_cases(dataset, table, positions, Previews(paths.previews), maps)
    return dict(zip(positions.tolist(), found, strict=True))


def _show(
    head: Trained,
    dataset: RoiDataset,
    table: RoiTable,
    cases: Mapping[int, RoiCase],
    evaluation: Evaluation,
    figures: dict[str, float],
    paths: EvaluatePaths,
    device: torch.device,
) -> None:
    """Plots, pictures and the page."""
    curves = evaluation.curves()
    with new_folder(paths.curves) as folder:
        write_curves(folder, curves)
    charts = draw_charts(curves, table.confusions.sum(axis=0))
    choice = choose_cases(table)
    overlays = _overlays(head, dataset, figures, paths, device)
    with new_folder(paths.plots) as folder:
        # The others are drawn by DVC, from the curves.
        write_charts(folder, [chart for chart in charts if chart.name in CONFUSIONS])
        for name, positions in (("worst", choice.worst), ("best", choice.best)):
            shown = [cases[position] for position in positions.tolist() if position in cases]
            if shown:
                write_png(folder / f"{name}.png", draw_sheet(shown, f"{head.name}: {name} {len(shown)} by target IoU"))
        for layout, picture in overlays.items():
            write_png(folder / f"validation_{layout}.png", picture)
    gallery = [cases[position] for position in choice.gallery.tolist() if position in cases]
    overlay = overlays.get("two_row")
    told = evaluation.baselines() | figures
    write_report(paths.report, Report(head.name, head.checkpoint, told, breakdown(table), charts, overlay, gallery))


def _overlays(
    head: Trained, dataset: RoiDataset, figures: dict[str, float], paths: EvaluatePaths, device: torch.device
) -> dict[str, Picture]:
    """The fixed images in each layout; none where there are no such images."""
    fixed = load_fixed(paths.pictures, dataset) if paths.pictures is not None else []
    if not fixed:
        return {}
    title = f"prediction: miou_fg_roi {figures['miou_fg_roi']:.4f}" if "miou_fg_roi" in figures else "prediction"
    return {layout: draw_validation(head.module, dataset, fixed, device, title, layout) for layout in LAYOUTS}
