"""All that is measured in one pass of a head over a split. Figures and counts stay, masks don't.

Symbols: R ROIs of a batch, r of one image, (h, w) cells of the mask.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from roiseg.classes import TARGET
from roiseg.dataset import RoiDataset
from roiseg.evaluate.baseline_masks import box_results
from roiseg.evaluate.baselines import ELLIPSE, NEVER_CLASS_2, WHOLE_BOX, beside, ellipse, whole_box, without_two
from roiseg.evaluate.bootstrap import RESAMPLES, SEED, intervals
from roiseg.evaluate.calibration import Calibration
from roiseg.evaluate.coco_truth import Json, Truth
from roiseg.evaluate.confusion import MaskMetrics, confusion_figures, confusion_sums, defined, ious
from roiseg.evaluate.curves import Curves, breakdown_rows, iou_histogram_rows, precision_recall_rows
from roiseg.evaluate.detections import Detections
from roiseg.evaluate.infer import Prediction
from roiseg.evaluate.mask_scores import MODEL, MaskScores
from roiseg.evaluate.measures import Measured, measure
from roiseg.evaluate.metrics import breakdown, roi_figures
from roiseg.evaluate.results import mask_result
from roiseg.evaluate.strata import GROUPS, strata
from roiseg.evaluate.table import RoiTable, TableBuilder
from roiseg.geometry import Floats, roi_boxes
from roiseg.placed import paste_target

Write = Callable[[Json], None]

SURE = 1.0
"""Box score of an annotated person."""


class Evaluation:
    """Takes a head's answers batch by batch."""

    def __init__(self, dataset: RoiDataset, truth: Truth, detections: Detections, *, detector: bool, boundary_ap: bool) -> None:
        """Begin.

        Args:
            dataset: the split.
            truth: the annotated people of the same images.
            detections: boxes of the same images.
            detector: whether there was a detector, which may have found nothing.
            boundary_ap: whether boundary AP is wanted.

        Raises:
            PackageError: it is, and faster-coco-eval isn't installed.
        """
        self._dataset, self._truth, self._detections = dataset, truth, detections
        self._table = TableBuilder()
        self._calibration = Calibration()
        self._baselines = {name: MaskMetrics() for name in (NEVER_CLASS_2, WHOLE_BOX, ELLIPSE)}
        self._oracle = MaskScores(truth, "oracle_box_", boundary=boundary_ap)
        self._detector = MaskScores(truth, "detector_box_", boundary=boundary_ap) if detector else None

    def further(self, row: int) -> Floats:
        """The ROIs (k, 4) xyxy, unit frame, of the detected boxes of an image, padded as those of annotated people are."""
        return roi_boxes(self._detections.of(row)[0], self._dataset.params.roi_padding)

    @property
    def rows(self) -> Sequence[int]:
        """Images to ask about: those that have an ROI or a detected box.

        COCO scores every image: a box where nobody has an ROI is wrong there, and people too small for one are missed.
        """
        return [int(row) for row in np.union1d(self._dataset.rows, self._detections.rows)]

    def add(self, prediction: Prediction, write_oracle: Write, write_detector: Write) -> None:
        """Measure a batch.

        Args:
            prediction: answers about annotated ROIs, and about those of `further`.
            write_oracle: takes COCO results from annotated boxes.
            write_detector: takes those from detected boxes.

        Raises:
            PredictionError: a logit isn't a finite number.
        """
        plain = without_two(prediction.logits).numpy()
        place = 0
        # One at a time: the masks of an image are as large as the image.
        for row, measured in zip(prediction.batch.rows, measure(prediction, self._dataset), strict=True):
            count = len(measured.table)
            self._table.add(measured.table)
            own = slice(place, place + count)
            answers = self._oracle_answers(row, measured, plain[own], prediction.batch.boxes[own, 1:].double().numpy())
            self._oracle.add(int(self._dataset.index.image_ids[row]), answers)
            for result in answers[MODEL]:
                write_oracle(result)
            place += count
        self._count(prediction)
        if self._detector is not None:
            self._add_detected(prediction, self._detector, write_detector)

    def _count(self, prediction: Prediction) -> None:
        """Calibration and the class maps of the baselines."""
        batch = prediction.batch
        labels = batch.targets.labels.numpy()
        probabilities = prediction.logits.softmax(dim=1)
        self._calibration.add(probabilities[:, TARGET].numpy(), labels == TARGET)
        boxes = np.concatenate(
            [np.zeros((0, 4))]
            + [
                self._dataset.index.people(row).boxes[batch.numbers[batch.boxes[:, 0].numpy() == place]]
                for place, row in enumerate(batch.rows)
            ]
        )
        rois = batch.boxes[:, 1:].double().numpy()
        mask_hw = (labels.shape[1], labels.shape[2])
        self._baselines[NEVER_CLASS_2].add(prediction.classes_without_two, labels)
        self._baselines[WHOLE_BOX].add(whole_box(rois, boxes, mask_hw), labels)
        self._baselines[ELLIPSE].add(ellipse(rois, boxes, mask_hw), labels)

    def _oracle_answers(
        self, row: int, measured: Measured, plain: NDArray[np.float32], rois: Floats
    ) -> Mapping[str, Sequence[Json]]:
        """COCO results of an image from annotated boxes, by answer.

        Args:
            row: of the index.
            measured: its r ROIs.
            plain: (r, 3, h, w) probabilities without class 2.
            rois: (r, 4) xyxy, unit frame.
        """
        table, image = measured.table, measured.image
        image_id, category, hw = int(self._dataset.index.image_ids[row]), self._truth.category_id, image.image_hw
        rois_image = self._dataset.index.resize(row).boxes_to_image(rois)
        model = [
            mask_result(image_id, category, found.score, found.placed.whole(hw), annotation_id)
            for found, annotation_id in zip(image.predicted, table.annotation_ids.tolist(), strict=True)
        ]
        pasted = (paste_target(values, roi, hw) for values, roi in zip(plain, rois_image, strict=True))
        never = [mask_result(image_id, category, found.score, found.placed.whole(hw)) for found in pasted]
        sure = [SURE] * len(table)
        boxed = {name: box_results(name, image_id, category, hw, table.boxes_image, sure) for name in (WHOLE_BOX, ELLIPSE)}
        return {MODEL: model, NEVER_CLASS_2: never, **boxed}

    def _add_detected(self, prediction: Prediction, scores: MaskScores, write: Write) -> None:
        """Results from detected boxes: score of the box times confidence of the mask; no target pixel, no result."""
        probabilities = prediction.further_logits.softmax(dim=1).numpy()
        plain = without_two(prediction.further_logits).numpy()
        rois = prediction.further.double().numpy()
        for place, row in enumerate(prediction.batch.rows):
            own = rois[:, 0] == place
            image_id = int(self._dataset.index.image_ids[row])
            boxes, sure = self._detections.of(row)
            resize = self._dataset.index.resize(row)
            rois_image = resize.boxes_to_image(rois[own, 1:])
            answers = {
                name: self._pasted(image_id, values[own], rois_image, sure, resize.image_hw)
                for name, values in ((MODEL, probabilities), (NEVER_CLASS_2, plain))
            }
            for name in (WHOLE_BOX, ELLIPSE):
                answers[name] = box_results(
                    name, image_id, self._truth.category_id, resize.image_hw, resize.boxes_to_image(boxes), sure.tolist()
                )
            scores.add(image_id, answers)
            for result in answers[MODEL]:
                write(result)

    def _pasted(
        self, image_id: int, probabilities: NDArray[np.float32], rois_image: Floats, sure: Floats, image_hw: tuple[int, int]
    ) -> list[Json]:
        results = []
        for values, roi, box_score in zip(probabilities, rois_image, sure.tolist(), strict=True):
            found = paste_target(values, roi, image_hw)
            if found.placed.pixels:
                score = box_score * found.score
                results.append(mask_result(image_id, self._truth.category_id, score, found.placed.whole(image_hw)))
        return results

    @property
    def table(self) -> RoiTable:
        """A row for each ROI so far."""
        return self._table.table()

    def figures(self) -> dict[str, float]:
        """All figures, flat, with the intervals of the leading ones and the baselines beside them."""
        table = self.table
        found = roi_figures(table)
        for name, (low, high) in intervals(table).items():
            found |= {f"{name}_low": low, f"{name}_high": high}
        found |= self._calibration.figures()
        found |= self._oracle.figures(SEED, RESAMPLES)
        if self._detector is not None:
            found |= self._detector.figures(SEED, RESAMPLES)
        for name, figures in self._baseline_figures().items():
            found |= beside(name, figures)
        return found

    def _baseline_figures(self) -> dict[str, dict[str, float]]:
        return {
            name: defined(confusion_figures(confusion_sums(metrics.confusions).sum(axis=0)))
            for name, metrics in self._baselines.items()
        }

    def baselines(self) -> dict[str, float]:
        """All figures of the baselines that class maps give, each under the name of its baseline."""
        return {f"{name}_{key}": value for name, figures in self._baseline_figures().items() for key, value in figures.items()}

    def curves(self) -> Curves:
        """The points of all charts."""
        table = self.table
        sources = {"annotated boxes": self._oracle.curves()}
        if self._detector is not None:
            sources["detected boxes"] = self._detector.curves()
        return Curves(
            pr=precision_recall_rows(sources),
            iou_histogram=iou_histogram_rows(
                ious(table.confusions)[:, TARGET], strata(table), {group: GROUPS[group] for group in ("size", "crowdedness")}
            ),
            calibration=self._calibration.rows(),
            breakdown=breakdown_rows(breakdown(table)),
        )
