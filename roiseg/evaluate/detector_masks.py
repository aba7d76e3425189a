"""A head on a detector's boxes, as it is used: masks that score like any detector's.

Symbols: B images, R boxes of them, (h, w) cells of the mask.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from roiseg.dataset import RoiDataset
from roiseg.evaluate.coco_truth import Json
from roiseg.evaluate.detections import Detections
from roiseg.evaluate.infer import run_head
from roiseg.evaluate.pictures import target_mask
from roiseg.evaluate.results import mask_result
from roiseg.geometry import Floats, roi_boxes


def rows_to_read(dataset: RoiDataset, detections: Detections) -> NDArray[np.int64]:
    """Images that have an ROI or a detected box, in row order.

    COCO scores every image of the annotations: a box where nobody has an ROI is wrong there, and people too small for an ROI are
    missed. Images that have neither need no head; `MaskAp` counts their people without being told.
    """
    return np.union1d(dataset.rows, detections.rows).astype(np.int64)


@dataclass(frozen=True)
class DetectedMasks:
    """A head's answer to the detected boxes of some images.

    Attributes:
        rows: B rows of the index.
        images: (R,) image of each box, a position in `rows`.
        rois: (R, 4) xyxy, unit frame: the boxes, padded as annotated ones are.
        scores: (R,) of the boxes.
        logits: (R, 3, h, w) float32, on the CPU.
    """

    rows: Sequence[int]
    images: NDArray[np.int64]
    rois: Floats
    scores: Floats
    logits: Tensor

    def results(self, dataset: RoiDataset, category_id: int) -> Iterator[Json]:
        """COCO results, in the order of the images: score of the box times confidence of the mask, at the size of the image.

        A box without a target pixel has no result: there is nothing that it could have found.

        Args:
            dataset: whose rows these are.
            category_id: that of the annotated people.
        """
        probabilities = self.logits.softmax(dim=1)
        for place, image in enumerate(self.images.tolist()):
            row = self.rows[image]
            resize = dataset.index.resize(row)
            roi_image = resize.boxes_to_image(self.rois[place : place + 1])[0]
            mask, confidence = target_mask(probabilities[place], roi_image, resize.image_hw)
            if mask.any():
                image_id = int(dataset.index.image_ids[row])
                yield mask_result(image_id, category_id, float(self.scores[place]) * confidence, mask)


def detected_masks(
    head: nn.Module, features: Mapping[str, Tensor], rows: Sequence[int], detections: Detections, roi_padding: float
) -> DetectedMasks:
    """Run a head on the detected boxes of a batch of images.

    Args:
        head: in eval mode.
        features: layer -> (B, C, H, W) float32, on the head's device.
        rows: B rows of the index, those of the features.
        detections: of the split.
        roi_padding: param `dataset.roi_padding`.
    """
    found = [detections.of(row) for row in rows]
    images = np.repeat(np.arange(len(rows)), [len(scores) for _, scores in found])
    rois = roi_boxes(np.concatenate([boxes for boxes, _ in found]), roi_padding)
    asked = torch.from_numpy(np.concatenate([images[:, None], rois], axis=1).astype(np.float32))
    with torch.no_grad():
        logits = run_head(head, features, asked.to(next(iter(features.values())).device))
    return DetectedMasks(rows, images, rois, np.concatenate([scores for _, scores in found]), logits)
