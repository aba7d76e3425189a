"""The detector's own boxes, in the layout that YOLO exports with NMS inside give."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiseg.errors import GraphError
from roiseg.geometry import clip_boxes
from roiseg.network_input import InputRule
from roiseg.types import HW


@dataclass(frozen=True)
class DetectionRule:
    """Which of a detector's boxes are people.

    Attributes:
        output: tensor of the ONNX that holds them.
        person_class: number of the class.
        min_score: least score, in [0, 1].
    """

    output: str
    person_class: int
    min_score: float


def read_detections(
    raw: NDArray[Any], rule: DetectionRule, image_hws: Sequence[HW], input_rule: InputRule
) -> list[NDArray[np.float64]]:
    """Person boxes of each image of a batch.

    Args:
        raw: (n, 7) of batch number, class, score, x0, y0, x1, y1 in network pixels, after NMS.
        rule: which class counts, and from which score.
        image_hws: sizes of the images, for clipping to the part of the input that they fill.
        input_rule: network size and resize rule.

    Returns:
        Per image (k, 5): x0, y0, x1, y1 in the unit frame, clipped to the image, and the score; best score first.

    Raises:
        GraphError: the output has another layout.
    """
    if raw.ndim != 2 or raw.shape[1] != 7:
        raise GraphError(
            f"extractor.detections.output {rule.output!r} has shape {list(raw.shape)}, expected [n, 7] of batch number, class, "
            "score, x0, y0, x1, y1 after NMS; set extractor.detections to null to do without"
        )
    wanted = raw[(raw[:, 1] == rule.person_class) & (raw[:, 2] >= rule.min_score)].astype(np.float64)
    height, width = input_rule.hw
    boxes = []
    for number, image_hw in enumerate(image_hws):
        mine = wanted[wanted[:, 0] == number]
        mine = mine[np.argsort(-mine[:, 2], kind="stable")]
        resize = input_rule.resizing(image_hw)
        unit = mine[:, 3:7] / np.array([width, height, width, height])
        unit = resize.boxes_to_unit(clip_boxes(resize.boxes_to_image(unit), image_hw))
        alive = (unit[:, 2:] > unit[:, :2]).all(axis=1)
        boxes.append(np.concatenate([unit, mine[:, 2:3]], axis=1)[alive])
    return boxes
