"""What colour alone tells about the sample: a linear classifier on pixel RGB, beside the whole box as target.

    python -m bench.sample_cues [--json FILE]

Prints `iou_target_roi` on the validation split, which must stay below 0.5: people who can be told by their colours would make the
sample a test of nothing. Needs the outs of `dvc repro prepare`; writes nothing else.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from roiseg.classes import TARGET
from roiseg.coco import DataParams
from roiseg.evaluate.confusion import ious, roi_confusions
from roiseg.extractor.images import decode, read_bytes
from roiseg.extractor.params import ExtractorParams
from roiseg.files import write_json
from roiseg.geometry import roi_boxes
from roiseg.index import Index
from roiseg.masks import roi_labels
from roiseg.params import load_section

GRID = (56, 56)
"""Cells that an ROI is read at, as the masks of the heads."""
THRESHOLDS = np.linspace(0.02, 0.98, 49)


def rois(split: str) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """Colours (h, w, 3), 0 to 1, and labels (h, w) of every ROI of a split."""
    extractor = load_section(ExtractorParams, "extractor")
    index = Index(Path("data/index") / split, extractor.input_hw, extractor.resize)
    folder = Path(load_section(DataParams, "data").split(split).images)
    for row, name in enumerate(index.images["file_name"]):
        people = index.people(row)
        image = decode(read_bytes(folder / name), name)
        for number, roi in zip(people.roi_numbers.tolist(), roi_boxes(people.boxes[people.roi_numbers], 0.0), strict=True):
            x, y = ((np.arange(cells) + 0.5) / cells for cells in reversed(GRID))
            columns = (roi[0] + x * (roi[2] - roi[0])) * image.shape[1] - 0.5
            lines = (roi[1] + y * (roi[3] - roi[1])) * image.shape[0] - 0.5
            at = np.meshgrid(columns.astype(np.float32), lines.astype(np.float32))
            colours = cv2.remap(image, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            labels = roi_labels(roi, people.segmentations[number], people.others_in(roi, number), GRID)
            yield (colours / np.float32(255)).astype(np.float32), labels


def fit(colours: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Logistic regression of (P, 3) on (P,) of 0 and 1: weights and bias (4,)."""
    weights = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def step() -> float:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(colours @ weights[:3] + weights[3], target)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(step)  # type: ignore[no-untyped-call]
    return weights.detach()


def target_iou(predicted: NDArray[np.bool_], labels: NDArray[np.uint8]) -> float:
    """`iou_target_roi` of masks (R, h, w)."""
    return float(np.nan_to_num(ious(roi_confusions(predicted.astype(np.uint8), labels))[:, TARGET]).mean())


def main() -> None:
    """Fit on train, choose the threshold there, score on val."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    splits = {name: [np.stack(part) for part in zip(*rois(name), strict=True)] for name in ("train", "val")}
    colours, labels = splits["train"]
    weights = fit(torch.from_numpy(colours).reshape(-1, 3), torch.from_numpy((labels == TARGET).astype(np.float32)).reshape(-1))
    chances = {name: (torch.from_numpy(part[0]) @ weights[:3] + weights[3]).sigmoid().numpy() for name, part in splits.items()}
    best = max(THRESHOLDS, key=lambda threshold: target_iou(chances["train"] > threshold, labels))
    colours, labels = splits["val"]
    figures = {
        "whole_box": target_iou(np.ones(labels.shape, np.bool_), labels),
        "linear_rgb": target_iou(chances["val"] > 0.5, labels),
        "linear_rgb_best": target_iou(chances["val"] > best, labels),
    }
    print(f"whole box            {figures['whole_box']:.3f}")
    print(f"linear RGB, at 0.5   {figures['linear_rgb']:.3f}")
    print(f"linear RGB, at {best:.2f}  {figures['linear_rgb_best']:.3f}  (threshold with the best IoU on train)")
    if options.json:
        write_json(options.json, {**figures, "best_threshold": float(best)})


if __name__ == "__main__":
    main()
