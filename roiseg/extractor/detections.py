"""The detector's own boxes, in the layout that YOLO exports with NMS inside give."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiseg.errors import GraphError
from roiseg.extractor.params import DetectionParams, ExtractorParams
from roiseg.geometry import Resize, clip_boxes
from roiseg.types import HW


def read_detections(
    raw: NDArray[Any], rule: DetectionParams, image_hws: Sequence[HW], params: ExtractorParams
) -> list[NDArray[np.float64]]:
    """Person boxes of each image of a batch.

    Args:
        raw: (n, 7) of batch number, class, score, x0, y0, x1, y1 in network pixels, after NMS.
        rule: which class counts, and from which score.
        image_hws: sizes of the images, for clipping to the part of the input that they fill.
        params: network size and resize rule.

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
    height, width = params.input_hw
    boxes = []
    for number, image_hw in enumerate(image_hws):
        mine = wanted[wanted[:, 0] == number]
        mine = mine[np.argsort(-mine[:, 2], kind="stable")]
        resize = Resize(image_hw, params.input_hw, params.resize)
        unit = mine[:, 3:7] / np.array([width, height, width, height])
        unit = resize.boxes_to_unit(clip_boxes(resize.boxes_to_image(unit), image_hw))
        alive = (unit[:, 2:] > unit[:, :2]).all(axis=1)
        boxes.append(np.concatenate([unit, mine[:, 2:3]], axis=1)[alive])
    return boxes
