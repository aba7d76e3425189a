"""The two-row overlay of the fixed validation images (spec 15.4)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from roiseg.batches import dequantise, single_batch
from roiseg.dataset import RoiDataset
from roiseg.evaluate.infer import run_head
from roiseg.evaluate.overlays import Person, Picture, draw_boxes, draw_masks, sheet
from roiseg.extractor.images import decode, read_bytes
from roiseg.geometry import Floats, Resize
from roiseg.masks import BACKGROUND, NON_TARGET, TARGET, Bools, paste
from roiseg.types import HW


def target_mask(probabilities: Tensor, box_image: Floats, image_hw: HW) -> tuple[Bools, float]:
    """One person's mask at the size of the image.

    A pixel is target where the target's probability, brought back to the image, is above that of both other classes: the
    arg-max of the ROI mask, with an outline as smooth as the probabilities.

    Args:
        probabilities: (3, h, w), softmaxed.
        box_image: (4,) xyxy of the ROI, image frame.
        image_hw: (H, W).

    Returns:
        (H, W), and the confidence: the mean target probability of the ROI's cells where the target wins (0 for none).
    """
    values = probabilities.numpy()
    margin = values[TARGET] - np.maximum(values[BACKGROUND], values[NON_TARGET])
    window, inside = paste(margin, box_image, image_hw)
    mask = np.zeros(image_hw, dtype=bool)
    mask[window] = inside > 0
    won = margin > 0
    return mask, float(values[TARGET][won].mean()) if won.any() else 0.0


@dataclass(frozen=True)
class FixedPicture:
    """A validation image that is drawn every epoch."""

    row: int
    pixels: Picture


def load_fixed(folder: Path, dataset: RoiDataset) -> list[FixedPicture]:
    """The pictures that `prepare` copied, with their rows in the index."""
    names = dataset.index.images["file_name"].tolist()
    found = []
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        name = path.relative_to(folder).as_posix()
        row = names.index(name)
        hw = dataset.index.resize(row).image_hw
        found.append(FixedPicture(row, decode(read_bytes(path), str(path), hw)))
    return found


@torch.no_grad()
def draw_validation(head: nn.Module, dataset: RoiDataset, fixed: list[FixedPicture], device: torch.device, title: str) -> Picture:
    """Top: annotated masks with red, numbered ROI boxes. Bottom: predicted masks alone.

    Args:
        head: in eval mode.
        dataset: the validation split.
        fixed: see `load_fixed`.
        device: where the head is.
        title: written above the bottom row.
    """
    top: list[Picture] = []
    bottom: list[Picture] = []
    scales = {name: torch.from_numpy(values) for name, values in dataset.store.scales.items()}
    for picture in fixed:
        batch = single_batch(dataset, picture.row)
        resize = dataset.index.resize(picture.row)
        rois_image = resize.boxes_to_image(batch.boxes[:, 1:].double().numpy())
        truth = _annotated(dataset, picture.row, rois_image, batch.numbers.tolist(), resize)
        guessed: list[Person] = []
        if len(batch.boxes):
            logits = run_head(head, dequantise(batch.features, scales, device), batch.boxes.to(device))
            for number, (probabilities, roi) in enumerate(zip(logits.softmax(dim=1), rois_image, strict=True), start=1):
                guessed.append(Person(target_mask(probabilities, roi, resize.image_hw)[0], roi, number))
        top.append(draw_boxes(draw_masks(picture.pixels, truth), truth))
        bottom.append(draw_masks(picture.pixels, guessed))
    return sheet([top, bottom], ["annotation", title])


def _annotated(dataset: RoiDataset, row: int, rois_image: Floats, numbers: list[int], resize: Resize) -> list[Person]:
    people = dataset.index.people(row)
    whole = resize.boxes_to_unit(np.array([[0.0, 0.0, resize.image_hw[1], resize.image_hw[0]]]))[0]
    return [
        Person(people.segmentations[number].rasterise(whole, resize.image_hw), roi, position)
        for position, (number, roi) in enumerate(zip(numbers, rois_image, strict=True), start=1)
    ]
