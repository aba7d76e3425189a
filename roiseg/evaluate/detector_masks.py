"""A head on a detector's boxes, as it is used: masks that score like any detector's."""

from collections.abc import Iterator

from roiseg.dataset import RoiDataset
from roiseg.evaluate.coco_truth import Json
from roiseg.evaluate.detections import Detections
from roiseg.evaluate.infer import Further, Prediction
from roiseg.evaluate.pictures import target_mask
from roiseg.evaluate.results import mask_result
from roiseg.geometry import roi_boxes


def detected_rois(detections: Detections, roi_padding: float) -> Further:
    """Row -> ROIs (k, 4) of the detected boxes of its image, xyxy, unit frame: padded and clipped as annotated ones are.

    Args:
        detections: of the split.
        roi_padding: param `dataset.roi_padding`.
    """
    return lambda row: roi_boxes(detections.of(row)[0], roi_padding)


def detected_results(prediction: Prediction, dataset: RoiDataset, detections: Detections, category_id: int) -> Iterator[Json]:
    """COCO results of the detected boxes of a batch: score of the box times confidence of the mask, at the size of the image.

    A box without a target pixel has no result: there is nothing that it could have found.

    Args:
        prediction: of `predictions` with `detected_rois` of the same detections as `further`.
        dataset: whose images these are.
        detections: whose scores the boxes have.
        category_id: that of the annotated people.
    """
    probabilities = prediction.further_logits.softmax(dim=1)
    rois = prediction.further[:, 1:].double().numpy()
    done = 0
    for row in prediction.batch.rows:
        resize, image_id = dataset.index.resize(row), int(dataset.index.image_ids[row])
        for score in detections.of(row)[1].tolist():
            roi_image = resize.boxes_to_image(rois[done : done + 1])[0]
            mask, confidence = target_mask(probabilities[done], roi_image, resize.image_hw)
            done += 1
            if mask.any():
                yield mask_result(image_id, category_id, score * confidence, mask)
