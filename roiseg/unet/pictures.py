"""What a people net makes of the fixed validation images.

Symbols: (H, W) size of an image on the sheet; (h, w) cells of a map over the network input.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from roiseg.classes import Floats32
from roiseg.evaluate.overlays import Person, Picture, draw_heat, draw_masks, outline
from roiseg.evaluate.palette import GREEN
from roiseg.evaluate.pictures import FixedPicture
from roiseg.evaluate.sheets import shown, side_by_side, stacked, text_line, with_bar
from roiseg.paste import paste
from roiseg.types import HW
from roiseg.unet.data import PersonBatch, PersonDataset, single_batch

Probability = Callable[[PersonBatch], Tensor]
"""A batch of one image to its map of people (1, 1, h, w) in [0, 1], of any size."""

FRAME = np.array([[0.0, 0.0, 1.0, 1.0]])
"""The whole network input, unit frame."""


def map_on_sheet(values: Floats32, dataset: PersonDataset, row: int, hw: HW) -> Floats32:
    """A map over the network input, as a map over the image at its size on the sheet; what a letterbox added is cut off.

    Args:
        values: (h, w).
        dataset: knows how the image came to the network input.
        row: of the image.
        hw: (H, W).
    """
    resize = dataset.index.resize(row)
    scale = np.tile([hw[1] / resize.image_hw[1], hw[0] / resize.image_hw[0]], 2)
    whole = np.zeros(hw, dtype=np.float32)
    window, inside = paste(values, resize.boxes_to_image(FRAME)[0] * scale, hw)
    whole[window] = inside
    return whole


def draw_annotated(picture: FixedPicture, dataset: PersonDataset) -> Picture:
    """A fixed image at its size on the sheet with everybody tinted and outlined, each in a colour."""
    pixels, resize = shown(picture.pixels), dataset.index.resize(picture.row)
    hw = (pixels.shape[0], pixels.shape[1])
    whole = resize.boxes_to_unit(np.array([[0.0, 0.0, resize.image_hw[1], resize.image_hw[0]]]))[0]
    people = dataset.index.people(picture.row).segmentations
    box = np.array([0.0, 0.0, hw[1], hw[0]])
    return draw_masks(pixels, [Person(item.rasterise(whole, hw), box, place) for place, item in enumerate(people, start=1)])


def draw_map(values: Floats32) -> Picture:
    """Probabilities (H, W) as heat; a green line runs along what counts as a person."""
    return outline(draw_heat(values), values > 0.5, GREEN)


@torch.no_grad()
def draw_people(
    probability: Probability,
    dataset: PersonDataset,
    fixed: Sequence[FixedPicture],
    title: str,
    teacher: Probability | None = None,
) -> Picture:
    """The fixed images with the annotated people, below them the net's map, below that the teacher's.

    Args:
        probability: the net's map.
        dataset: the validation split; its layers are read for both maps.
        fixed: one or more, see `load_fixed`.
        title: of the net's map, such as epoch and score.
        teacher: its map, if there is one.
    """
    said = [(title, probability)] + ([("teacher", teacher)] if teacher is not None else [])
    annotated = [draw_annotated(picture, dataset) for picture in fixed]
    maps: list[list[Picture]] = [[] for _ in said]
    for picture, drawn in zip(fixed, annotated, strict=True):
        batch, hw = single_batch(dataset, picture.row), (drawn.shape[0], drawn.shape[1])
        for row, (_, find) in zip(maps, said, strict=True):
            values = find(batch)[0, 0].float().cpu().numpy()
            row.append(draw_map(map_on_sheet(values, dataset, picture.row, hw)))
    parts = [text_line("annotation"), side_by_side(annotated)]
    for (caption, _), row in zip(said, maps, strict=True):
        parts += [text_line(caption), side_by_side([*row[:-1], with_bar(row[-1])])]
    return stacked(parts)
