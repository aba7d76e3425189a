"""What a head makes of the fixed validation images, in two rows (spec 15.4) or four panels (spec 15.5).

Symbols: (H, W) size of an image on the sheet; R ROIs of an image; (h, w) cells of the mask.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from roiseg.batches import dequantise, single_batch
from roiseg.classes import BACKGROUND, Bools, Floats32
from roiseg.dataset import RoiDataset
from roiseg.evaluate.infer import head_outputs
from roiseg.evaluate.overlays import Person, Picture, draw_boxes, draw_heat, draw_masks, outline, tint
from roiseg.evaluate.palette import GREEN, RED, YELLOW
from roiseg.evaluate.sheets import legend, shown, side_by_side, stacked, table, text_line, with_bar
from roiseg.extractor.images import decode, read_bytes
from roiseg.geometry import Floats
from roiseg.index import Index
from roiseg.nn.outputs import HeadOutput
from roiseg.paste import paste
from roiseg.placed import paste_target
from roiseg.types import HW

Layout = Literal["two_row", "four_panel"]

FOREGROUND = "foreground"
"""Name among a head's auxiliary outputs of the branch that tells people from background: logits (R, 1, h, w)."""

DECISION_ALPHA = 0.3
WRONG_ALPHA = 0.55
CLAIMED_ALPHA = 0.35


def target_mask(probabilities: Tensor, box_image: Floats, image_hw: HW) -> tuple[Bools, float]:
    """One person's mask at the size of the image, see `paste_target`.

    Args:
        probabilities: (3, h, w), softmaxed.
        box_image: (4,) xyxy of the ROI, image frame.
        image_hw: (H, W).

    Returns:
        (H, W), and the confidence.
    """
    pasted = paste_target(probabilities.numpy(), box_image, image_hw)
    return pasted.placed.whole(image_hw), pasted.score


@dataclass(frozen=True)
class FixedPicture:
    """A validation image that is drawn every epoch."""

    row: int
    pixels: Picture


class Indexed(Protocol):
    """A data set, of ROIs or of whole images."""

    @property
    def index(self) -> Index:
        """Tables of the split."""


def load_fixed(folder: Path, dataset: Indexed) -> list[FixedPicture]:
    """The pictures that `prepare` copied, with their rows in the index."""
    names = dataset.index.images["file_name"].tolist()
    found = []
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        name = path.relative_to(folder).as_posix()
        row = names.index(name)
        hw = dataset.index.resize(row).image_hw
        found.append(FixedPicture(row, decode(read_bytes(path), str(path), hw)))
    return found


@dataclass(frozen=True)
class Answered:
    """An image at its size on the sheet, what is annotated in it and what a head says.

    Attributes:
        pixels: (H, W, 3).
        annotated: people that have an ROI.
        predicted: the same people as the head sees them.
        anybody: (H, W), true on every annotated person, with an ROI or without.
        asked: (H, W), true in some ROI.
        probability: (H, W) of foreground, the largest of all ROIs.
        source: what says so: the auxiliary branch if the head has one, else the mask.
        foreground: (H, W), true where the mask of some ROI says target or non-target rather than background.
    """

    pixels: Picture
    annotated: Sequence[Person]
    predicted: Sequence[Person]
    anybody: Bools
    asked: Bools
    probability: Floats32
    source: str
    foreground: Bools


def paste_largest(maps: Floats32, boxes: Floats, image_hw: HW) -> Floats32:
    """Maps of many ROIs on one image, the largest value where ROIs meet, 0 where none is.

    Args:
        maps: (R, h, w), at least 0.
        boxes: (R, 4) xyxy in pixels of the image.
        image_hw: (H, W).
    """
    whole = np.zeros(image_hw, dtype=np.float32)
    for values, box in zip(maps, boxes, strict=True):
        window, inside = paste(values, box, image_hw)
        whole[window] = np.maximum(whole[window], inside)
    return whole


def _answer(output: HeadOutput, dataset: RoiDataset, picture: FixedPicture, numbers: Sequence[int], boxes: Floats) -> Answered:
    """Bring a head's output to the sheet.

    Args:
        output: of R ROIs.
        dataset: the validation split.
        picture: the image.
        numbers: R positions of the people in their image.
        boxes: (R, 4) xyxy of the ROIs, image frame.
    """
    resize, pixels = dataset.index.resize(picture.row), shown(picture.pixels)
    hw = (pixels.shape[0], pixels.shape[1])
    boxes = boxes * np.tile([hw[1] / resize.image_hw[1], hw[0] / resize.image_hw[0]], 2)
    whole = resize.boxes_to_unit(np.array([[0.0, 0.0, resize.image_hw[1], resize.image_hw[0]]]))[0]
    outlines = [item.rasterise(whole, hw) for item in dataset.index.people(picture.row).segmentations]
    probabilities = output.mask_logits.softmax(dim=1)
    mask_foreground = (1 - probabilities[:, BACKGROUND]).numpy()
    branch = output.aux[FOREGROUND][:, 0].sigmoid().numpy() if FOREGROUND in output.aux else None
    return Answered(
        pixels,
        [Person(outlines[number], box, place) for place, (number, box) in enumerate(zip(numbers, boxes, strict=True), start=1)],
        [
            Person(target_mask(values, box, hw)[0], box, place)
            for place, (values, box) in enumerate(zip(probabilities, boxes, strict=True), start=1)
        ],
        np.logical_or.reduce([np.zeros(hw, dtype=bool), *outlines]),
        paste_largest(np.ones((len(boxes), 1, 1), dtype=np.float32), boxes, hw) > 0,
        paste_largest(mask_foreground if branch is None else branch, boxes, hw),
        "mask" if branch is None else "auxiliary branch",
        paste_largest(mask_foreground, boxes, hw) > 0.5,
    )


def two_row(answers: Sequence[Answered], title: str) -> Picture:
    """Top: annotated masks with red, numbered ROI boxes. Bottom: predicted masks alone."""
    top = [draw_boxes(draw_masks(answer.pixels, answer.annotated), answer.annotated) for answer in answers]
    bottom = [draw_masks(answer.pixels, answer.predicted) for answer in answers]
    return stacked([text_line("annotation"), side_by_side(top), text_line(title), side_by_side(bottom)])


def four_panel(answers: Sequence[Answered], title: str) -> Picture:
    """A row for each image: annotation, probability of foreground, decision for foreground, predicted masks with what is wrong."""
    captions = ("annotation", f"foreground probability: {answers[0].source}", "foreground or background", "predicted masks")
    key = legend([(GREEN, "decided: foreground"), (RED, "foreground or background wrong"), (YELLOW, "claimed by several people")])
    return stacked([text_line(title), *table([_panels(answer) for answer in answers], captions), key])


def _panels(answer: Answered) -> list[Picture]:
    annotated = draw_boxes(draw_masks(answer.pixels, answer.annotated), answer.annotated)
    decided = tint(answer.pixels, answer.foreground, GREEN, DECISION_ALPHA)
    return [annotated, with_bar(draw_heat(answer.probability)), decided, draw_faults(answer)]


def draw_faults(answer: Answered) -> Picture:
    """Predicted masks; yellow where several people claim a pixel, red where an ROI takes a person for background or the reverse."""
    claims = np.zeros(answer.asked.shape, dtype=np.int64)
    for person in answer.predicted:
        claims += person.mask
    drawn = tint(draw_masks(answer.pixels, answer.predicted), claims > 1, YELLOW, CLAIMED_ALPHA)
    drawn = tint(drawn, answer.asked & (answer.foreground != answer.anybody), RED, WRONG_ALPHA)
    return outline(drawn, claims > 1, YELLOW)


LAYOUTS: Mapping[Layout, Callable[[Sequence[Answered], str], Picture]] = {"two_row": two_row, "four_panel": four_panel}


@torch.no_grad()
def draw_validation(
    head: nn.Module, dataset: RoiDataset, fixed: Sequence[FixedPicture], device: torch.device, title: str, layout: Layout
) -> Picture:
    """The fixed images with their annotations and what a head says of them.

    Args:
        head: in eval mode.
        dataset: the validation split.
        fixed: one or more, see `load_fixed`.
        device: where the head is.
        title: such as epoch and score.
        layout: see `LAYOUTS`.
    """
    scales = {name: torch.from_numpy(values) for name, values in dataset.store.scales.items()}
    answers = []
    for picture in fixed:
        batch = single_batch(dataset, picture.row)
        boxes = dataset.index.resize(picture.row).boxes_to_image(batch.boxes[:, 1:].double().numpy())
        output = head_outputs(head, dequantise(batch.features, scales, device), batch.boxes.to(device), (FOREGROUND,))
        answers.append(_answer(output, dataset, picture, batch.numbers.tolist(), boxes))
    return LAYOUTS[layout](answers, title)
