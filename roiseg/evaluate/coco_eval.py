"""COCO mask AP by pycocotools, from ground-truth boxes: an oracle-box score, not comparable with a detector's mask AP."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from roiseg.coco import People, to_coco

NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
"""What `COCOeval.stats` begins with; -1 stands for a size that the data set hasn't got."""


def oracle_box_ap(people: People, results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mask AP of results that were made from annotated boxes.

    Args:
        people: the annotations.
        results: COCO results: image_id, category_id, segmentation (RLE), score.

    Returns:
        `oracle_box_ap`, and the same at IoU 0.5, 0.75, and for small, medium and large people; a size that isn't there is left
        out. All 0 where there are no results.
    """
    if not results:
        return {f"oracle_box_{name}": 0.0 for name in NAMES[:3]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        # pycocotools writes into what it gets
        truth.dataset = {
            **to_coco(people),
            "annotations": [dict(item, iscrowd=0) for item in people.annotations],
            "info": {},
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(item) for item in results]), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = dict(zip(NAMES, evaluation.stats.tolist(), strict=False))
    return {f"oracle_box_{name}": float(value) for name, value in stats.items() if value >= 0}
