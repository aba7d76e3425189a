"""The `evaluate` stage: a trained head to figures, COCO results, plots and pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from roiseg.batches import Loading
from roiseg.cache.params import ReaderParams
from roiseg.coco import load_prepared
from roiseg.dataset import RoiDataset
from roiseg.evaluate.coco_eval import oracle_box_ap
from roiseg.evaluate.infer import Prediction, Score, predictions
from roiseg.evaluate.overlays import write_png
from roiseg.evaluate.pictures import draw_validation, load_fixed, target_mask
from roiseg.evaluate.plots import confusion_picture, iou_by_size, size_picture, write_rows
from roiseg.files import new_folder, write_json
from roiseg.masks import encode_mask
from roiseg.params import Section
from roiseg.progress import progress
from roiseg.train.checkpoint import CHECKPOINT_FILE

PERSON = 1
"""Category id of the results: COCO's person."""


class EvaluateParams(Section):
    """Section `evaluate`."""

    checkpoint: str = Field(pattern=CHECKPOINT_FILE)
    images_per_batch: int = Field(ge=1)


@dataclass(frozen=True)
class EvaluatePaths:
    """Files of the stage.

    Attributes:
        annotations: the person-only JSON of the images in use.
        pictures: folder of the fixed validation images.
        figures: out, flat JSON.
        plots: out, folder.
        results: out, COCO results JSON.
    """

    annotations: Path
    pictures: Path
    figures: Path
    plots: Path
    results: Path


def coco_results(prediction: Prediction, dataset: RoiDataset) -> list[dict[str, Any]]:
    """COCO results of a batch: masks at the size of their images, as compressed RLE."""
    results = []
    probabilities = prediction.logits.softmax(dim=1)
    boxes = prediction.batch.boxes.double().numpy()
    for position, number in enumerate(prediction.batch.numbers.tolist()):
        row = prediction.batch.rows[int(boxes[position, 0])]
        resize = dataset.index.resize(row)
        roi_image = resize.boxes_to_image(boxes[position : position + 1, 1:])[0]
        mask, score = target_mask(probabilities[position], roi_image, resize.image_hw)
        people = dataset.index.people(row)
        results.append(
            {
                "image_id": people.image_id,
                "category_id": PERSON,
                "annotation_id": int(people.annotation_ids[number]),
                "score": round(score, 6),
                "segmentation": encode_mask(mask),
            }
        )
    return results


def _longer_sides(prediction: Prediction, dataset: RoiDataset) -> NDArray[np.float64]:
    boxes = prediction.batch.boxes.double().numpy()
    sides = []
    for number, *box in boxes.tolist():
        roi = dataset.index.resize(prediction.batch.rows[int(number)]).boxes_to_image(np.array([box]))[0]
        sides.append(float((roi[2:] - roi[:2]).max()))
    return np.array(sides)


def evaluate(
    head: torch.nn.Module, dataset: RoiDataset, params: EvaluateParams, reader: ReaderParams, paths: EvaluatePaths
) -> dict[str, float]:
    """Score a head on the validation split and write all reports.

    Args:
        head: with trained weights, in eval mode.
        dataset: the split.
        params: section `evaluate`.
        reader: section `reader`.
        paths: inputs and outs.

    Returns:
        The flat figures that were written.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    head.to(device)
    score, sides = Score.empty(), []
    results: list[dict[str, Any]] = []
    rois = int(dataset.index.rois_per_image.sum())
    with progress("evaluate", rois) as tick:
        for prediction in predictions(head, dataset, device, Loading(params.images_per_batch, reader.load_threads, reader.ahead)):
            score.add(prediction)
            sides.append(_longer_sides(prediction, dataset))
            results += coco_results(prediction, dataset)
            tick(len(prediction.batch.numbers))
    people = load_prepared(paths.annotations)
    for result in results:
        result["category_id"] = people.category["id"]
    figures = {
        **score.figures(),
        **oracle_box_ap(people, results),
        "images": len(dataset.rows),
        "rois": rois,
    }
    confusions = score.metrics.confusions
    with new_folder(paths.plots) as plots:
        confusion_picture(confusions.sum(axis=0), plots / "confusion.png")
        rows = iou_by_size(confusions, np.concatenate(sides) if sides else np.zeros(0))
        write_rows(plots / "iou_by_size.csv", rows)
        size_picture(rows, plots / "iou_by_size.png")
        fixed = load_fixed(paths.pictures, dataset)
        if fixed:
            title = f"prediction: miou_fg_roi {figures['miou_fg_roi']:.4f}"
            write_png(plots / "validation.png", draw_validation(head, dataset, fixed, device, title, "two_row"))
    write_json(paths.results, results, indent=None)
    write_json(paths.figures, {name: round(float(value), 6) for name, value in figures.items()})
    return figures
