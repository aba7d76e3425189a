"""Masks that a box alone gives, at the size of the image: what a head's mask AP is compared with."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from roiseg.classes import Bools
from roiseg.evaluate.coco_truth import Json
from roiseg.evaluate.results import mask_result
from roiseg.geometry import Floats
from roiseg.types import HW


def box_mask(box_image: Floats, image_hw: HW) -> Bools:
    """The whole box: pixels whose centre lies in it, its sides included.

    Args:
        box_image: (4,) xyxy, image frame.
        image_hw: (H, W).

    Returns:
        (H, W).
    """
    y, x = (np.arange(side) + 0.5 for side in image_hw)
    columns, rows = ((at >= box_image[place]) & (at <= box_image[place + 2]) for place, at in enumerate((x, y)))
    return np.asarray(columns[:, None] & rows[None]).T


def ellipse_mask(box_image: Floats, image_hw: HW) -> Bools:
    """The upright ellipse that touches all four sides of the box: pixels whose centre lies in it.

    Args:
        box_image: (4,) xyxy, image frame, of positive area.
        image_hw: (H, W).

    Returns:
        (H, W).
    """
    y, x = (np.arange(side) + 0.5 for side in image_hw)
    across, down = (
        ((at - (box_image[place] + box_image[place + 2]) / 2) / ((box_image[place + 2] - box_image[place]) / 2)) ** 2
        for place, at in enumerate((x, y))
    )
    return np.asarray(across[:, None] + down[None] <= 1).T


BOX_MASKS: Mapping[str, Callable[[Floats, HW], Bools]] = {"whole_box": box_mask, "ellipse": ellipse_mask}
"""Baseline -> what draws its mask."""


def box_results(
    baseline: str, image_id: int, category_id: int, image_hw: HW, boxes_image: Floats, scores: Sequence[float]
) -> list[Json]:
    """COCO results of a baseline for the boxes of an image.

    Args:
        baseline: of `BOX_MASKS`.
        image_id: COCO's id.
        category_id: that of the annotated people.
        image_hw: (H, W).
        boxes_image: (k, 4) xyxy, image frame.
        scores: k, those of a detector's boxes; annotated boxes are all as sure as each other.
    """
    draw = BOX_MASKS[baseline]
    return [mask_result(image_id, category_id, score, draw(box, image_hw)) for box, score in zip(boxes_image, scores, strict=True)]
